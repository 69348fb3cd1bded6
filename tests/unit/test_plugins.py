"""Finding drivers and plugins, and keeping the process safe from broken ones."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mrq_core.composed import ComposedBroker
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.driver import Driver
from mrq_core.errors import ConfigError, DriverNotFound
from mrq_core.plugins import hookspecs
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import driver_for, open_broker
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_core.testing.memory import DRIVER, MemoryQueue, MemoryStore

MakePlugin = Callable[..., str]


@pytest.fixture
def make_plugin(monkeypatch: pytest.MonkeyPatch) -> MakePlugin:
    """Makes an importable module of these functions, and answers with its name."""

    def make(name: str, *functions: Callable[..., object]) -> str:
        module = ModuleType(name)
        for function in functions:
            setattr(module, function.__name__, hookimpl(function))
        monkeypatch.setitem(sys.modules, name, module)
        return name

    return make


def mrq_driver() -> Driver:
    return DRIVER


# --- loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "../x", ".x", "x.", "a b", "a/b", 3, None])
def test_an_item_of_plugins_that_names_no_module_is_an_error(name: object) -> None:
    with pytest.raises(ConfigError, match=rf"^PLUGINS has {re.escape(repr(name))}: expected paths"):
        Plugins(Config(plugins=(name,)))  # type: ignore[arg-type]


def test_the_installed_drivers_are_found() -> None:
    plugins = Plugins(Config())
    assert "sqlite" in plugins.drivers
    assert plugins.origins["sqlite"].startswith("mrq ")


def test_a_plugin_may_be_named_in_the_configuration(make_plugin: MakePlugin) -> None:
    plugins = Plugins(Config(plugins=(make_plugin("memory_plugin", mrq_driver),)))
    assert plugins.drivers["memory"] is DRIVER
    assert plugins.origins["memory_plugin"] == "PLUGINS"
    assert plugins.hooks_of("memory_plugin") == ["mrq_driver"]


def test_each_named_plugin_is_the_one_of_its_name(make_plugin: MakePlugin) -> None:
    names = (make_plugin("first_plugin", mrq_driver), make_plugin("second_plugin"))
    plugins = Plugins(Config(plugins=names))
    assert plugins.hooks_of("first_plugin") == ["mrq_driver"]
    assert plugins.hooks_of("second_plugin") == []


def test_the_config_file_may_be_a_plugin() -> None:
    module = ModuleType("mrq_config")
    module.mrq_driver = hookimpl(mrq_driver)  # type: ignore[attr-defined]
    plugins = Plugins(Config(module=module))
    assert plugins.drivers["memory"] is DRIVER
    assert plugins.origins["config file"] == "config file"


def test_a_plugin_that_does_not_exist_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"plugin no\.such_plugin \(PLUGINS\) cannot be loaded: ModuleNotFound"
    ):
        Plugins(Config(plugins=("no.such_plugin",)))


def test_a_plugin_that_raises_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_broken_plugin.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"a_broken_plugin .*RuntimeError: not today"):
        Plugins(Config(plugins=("a_broken_plugin",)))


def test_a_hook_with_unknown_arguments_is_refused(make_plugin: MakePlugin) -> None:
    def mrq_worker_event(worker: str, colour: str) -> None:
        """Has an argument that the hook does not know."""

    with pytest.raises(ConfigError, match="odd_plugin"):
        Plugins(Config(plugins=(make_plugin("odd_plugin", mrq_worker_event),)))


def test_hooks_of_an_unknown_plugin_are_none() -> None:
    assert Plugins(Config()).hooks_of("unknown") == []


# --- installed distributions -------------------------------------------------------------------------

Install = Callable[..., Path]
MODULES = {
    "a_shop": "@hookimpl\ndef mrq_worker_event(event): pass\nnumber, nothing = 3, []",
    "an_object": "class Watch:\n  @hookimpl\n  def mrq_worker_event(self, event): pass\nwatch = Watch()",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with these entry points, and two modules that they can name."""
    monkeypatch.syspath_prepend(tmp_path)
    for module, code in MODULES.items():
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(f"from mrq_core import hookimpl\n{code}\n")

    def make(points: str | bytes, *, name: str = "shop", metadata: bytes | None = None) -> Path:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        described = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
        (folder / "METADATA").write_bytes(described if metadata is None else metadata)
        text = points if isinstance(points, bytes) else f"[mrq]\n{points}\n".encode()
        (folder / "entry_points.txt").write_bytes(text)
        return folder

    return make


@pytest.mark.parametrize("target", ["a_shop", "an_object:watch"])
def test_an_entry_point_leads_to_a_module_or_an_object_with_hooks(target: str, install: Install) -> None:
    install(f"shop = {target}")
    plugins = Plugins(Config())
    assert plugins.origins["shop"] == "shop 1.0"
    assert plugins.hooks_of("shop") == ["mrq_worker_event"]


@pytest.mark.parametrize(
    ("target", "kind"), [("mrq_worker_event", "function"), ("number", "int"), ("nothing", "list")]
)
def test_an_entry_point_to_an_object_without_hooks_is_refused(
    target: str, kind: str, install: Install
) -> None:
    install(f"shop = a_shop:{target}")
    with pytest.raises(ConfigError) as caught:
        Plugins(Config())
    assert str(caught.value) == (
        f"the plugin shop (shop 1.0) cannot be used: it is of type {kind} and has no hooks: expected a "
        "module, or an object whose methods are marked with @hookimpl"
    )


@pytest.mark.parametrize("target", ["", "1 + 2", "shop:"])
def test_an_entry_point_that_names_no_object_is_shown(target: str, install: Install) -> None:
    install(f"shop = {target}")
    with pytest.raises(
        ConfigError, match=rf"shop \(shop 1\.0\) .* is {re.escape(repr(target))}: expected a m"
    ):
        Plugins(Config())


@pytest.mark.parametrize("name", ["other", "sqlite"])
def test_two_plugins_with_one_name_are_refused(name: str, install: Install) -> None:
    install(f"{name} = a_shop")
    install("other = an_object:watch", name="others")
    with pytest.raises(
        ConfigError, match=rf"^two plugins have the name {name}: one of \w+ 1\.0.* and one of .* Rename one"
    ):
        Plugins(Config())


def test_a_module_that_two_distributions_install_is_loaded_twice(install: Install) -> None:
    install("shop = a_shop")
    install("shop = a_shop", name="others")
    with pytest.raises(
        ConfigError, match=r"^the plugin shop is loaded twice: by \w+ 1\.0 and by \w+ 1\.0\. "
    ):
        Plugins(Config())


@pytest.mark.parametrize("metadata", [b"", b"\xe9"])
def test_a_distribution_with_damaged_metadata_is_named_by_its_folder(
    metadata: bytes, install: Install
) -> None:
    folder = install("shop = a_shop", metadata=metadata)
    assert Plugins(Config()).origins["shop"] == str(folder)


@pytest.mark.parametrize("points", [b"[other]\nsh\xe9p = shop", b"[other]\nshop"])
def test_damaged_entry_points_of_any_distribution_are_named(points: bytes, install: Install) -> None:
    folder = install(points)
    with pytest.raises(ConfigError) as caught:
        Plugins(Config())
    assert str(caught.value).startswith(
        f"the installed plugins cannot be listed: the entry points in {folder} cannot be read: "
    )


# --- drivers ------------------------------------------------------------------------------------------


def memory_plugins(make_plugin: MakePlugin, **driver: object) -> Plugins:
    def mrq_driver() -> Driver:
        return Driver(**{"name": "half", "summary": "", **driver})  # type: ignore[arg-type]

    return Plugins(Config(plugins=(make_plugin("driver_plugin", mrq_driver),)))


def test_a_driver_is_found_by_its_name(make_plugin: MakePlugin) -> None:
    driver, url = driver_for(memory_plugins(make_plugin).drivers, "half")
    assert (driver.name, url) == ("half", None)


def test_a_driver_is_found_by_the_scheme_of_a_url(make_plugin: MakePlugin) -> None:
    plugins = memory_plugins(make_plugin, url_schemes=("half", "halfs"))
    driver, url = driver_for(plugins.drivers, "halfs://host/1")
    assert (driver.name, url) == ("half", "halfs://host/1")


@pytest.mark.parametrize("wanted", ["unheard-of", "", "SQLITE", "sqlite:", "unheard://of"])
def test_an_unknown_driver_is_refused_with_those_installed(wanted: str) -> None:
    with pytest.raises(DriverNotFound) as caught:
        driver_for(Plugins(Config()).drivers, wanted)
    assert caught.value.wanted == wanted
    assert "sqlite" in caught.value.installed
    assert "sqlite" in str(caught.value)
    assert isinstance(caught.value, ConfigError)


def test_a_password_is_not_shown_by_the_error() -> None:
    with pytest.raises(DriverNotFound) as caught:
        driver_for(Plugins(Config()).drivers, "unheard://user:hush@of")
    assert "hush" not in str(caught.value)


def test_half_a_driver_cannot_be_used_alone(make_plugin: MakePlugin) -> None:
    with pytest.raises(ConfigError, match="half of a broker"):
        open_broker(Config(broker="half"), memory_plugins(make_plugin))


def hook_of(driver: Driver) -> Callable[[], Driver]:
    def mrq_driver() -> Driver:
        return driver

    return mrq_driver


def halves(make_plugin: MakePlugin) -> Plugins:
    """With a driver that can only be a queue, and one that can only be a store."""

    found = []
    for driver in (
        Driver(name="line", summary="", open_queue=lambda opening: MemoryQueue(clock=opening.clock)),
        Driver(name="shelf", summary="", open_store=lambda opening: MemoryStore(clock=opening.clock)),
    ):
        found.append(make_plugin(f"{driver.name}_plugin", hook_of(driver)))
    return Plugins(Config(plugins=tuple(found)))


def test_a_queue_of_one_driver_and_a_store_of_another_make_a_broker(make_plugin: MakePlugin) -> None:
    broker = open_broker(Config(broker="line", store="shelf"), halves(make_plugin))
    assert isinstance(broker, ComposedBroker)
    broker.prepare()
    assert broker.totals().by_status() == {}


@pytest.mark.parametrize(
    ("broker", "store", "said"),
    [
        ("line", "line", "BROKER and STORE are both line"),
        ("sqlite", "shelf", "the driver sqlite keeps its records itself, and STORE is shelf"),
        ("shelf", "line", "set BROKER to one of line"),
        ("line", "sqlite", "set it to one of mongo, shelf"),
        ("line", "nothing", "no installed store driver has the name 'nothing'"),
        ("line", "", "half of a broker"),
    ],
)
def test_drivers_that_make_no_pair_are_refused_with_those_that_do(
    make_plugin: MakePlugin, broker: str, store: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_broker(Config(broker=broker, store=store), halves(make_plugin))


def test_the_configured_broker_is_opened_with_its_clock(make_plugin: MakePlugin) -> None:
    plugins = Plugins(Config(plugins=(make_plugin("memory_plugin", mrq_driver),)))
    clock = ManualClock(1_000_000)
    broker = open_broker(Config(broker="memory"), plugins, clock=clock)
    assert isinstance(broker, MemoryBroker)
    item = broker.state.put("n", "a", 1, ttl=1.0)
    assert item.expires_at is not None
    assert item.expires_at.timestamp() == 1001.0
    broker.close()


# --- observers -------------------------------------------------------------------------------------------


def test_an_error_in_an_observer_is_logged_and_stops_no_other(
    make_plugin: MakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def mrq_worker_event(event: str) -> None:
        seen.append(event)

    good = make_plugin("good_plugin", mrq_worker_event)

    def broken(kind: type[BaseException]) -> Callable[..., None]:
        def mrq_worker_event(event: str) -> None:
            raise kind("observer is broken")

        return mrq_worker_event

    broken_ones = (
        make_plugin("bad_one", broken(RuntimeError)),
        make_plugin("bad_two", broken(KeyboardInterrupt)),
    )
    names = (broken_ones[0], good, broken_ones[1])
    plugins = Plugins(Config(plugins=names))
    with caplog.at_level(logging.ERROR, "mrq.plugins"):
        plugins.observe("mrq_worker_event", worker="w", event="spawn")
    assert seen == ["spawn"]
    named = [record.getMessage() for record in caplog.records]
    assert sorted(named) == [
        "plugin.failed hook=mrq_worker_event plugin=bad_one",
        "plugin.failed hook=mrq_worker_event plugin=bad_two",
    ]
    assert all(record.exc_info for record in caplog.records)


def test_an_observer_takes_only_the_arguments_that_it_names(make_plugin: MakePlugin) -> None:
    seen: list[str] = []

    def mrq_worker_event(event: str) -> None:
        seen.append(event)

    plugins = Plugins(Config(plugins=(make_plugin("small_plugin", mrq_worker_event),)))
    plugins.observe("mrq_worker_event", worker="w", event="stop")
    assert seen == ["stop"]


def test_observing_without_observers_does_nothing() -> None:
    Plugins(Config()).observe("mrq_worker_event", worker="w", event="stop")


def test_implements_tells_whether_anybody_does(make_plugin: MakePlugin) -> None:
    def mrq_worker_event(event: str) -> None:
        """Does nothing."""

    plugins = Plugins(Config(plugins=(make_plugin("event_plugin", mrq_worker_event),)))
    assert plugins.implements("mrq_worker_event")
    assert not plugins.implements("mrq_encode")


# --- weight -----------------------------------------------------------------------------------------------


def test_importing_the_core_and_its_plugins_imports_no_gevent() -> None:
    code = (
        "import sys, mrq_core, mrq_core.plugins.manager, mrq_core.config.settings;"
        "mrq_core.plugins.manager.Plugins(mrq_core.config.settings.Config());"
        "print([name for name in ('gevent', 'redis', 'pymongo', 'sqlite3') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert output.strip() == "[]"


def test_every_hook_is_documented() -> None:
    for name, hook in vars(hookspecs).items():
        if name.startswith("mrq_"):
            assert hook.__doc__, name


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1?prefix=a", "mongodb://127.0.0.1:1/x?prefix=a"])
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_default_that_is_given_is_no_default(tmp_path: Path, url: str, source: str) -> None:
    name = f"{url.partition(':')[0].upper()}_PREFIX"
    file = tmp_path / "config.py"
    file.write_text(f"{name} = 'mrq'\n" if source == "file" else "")
    overrides = {"broker": url, **({name: "mrq"} if source == "flag" else {})}
    environ = {f"MRQ_{name}": "mrq"} if source == "environment" else {}
    config = load_config(overrides, file=file, environ=environ)
    with pytest.raises(ConfigError, match=f"two prefixes are given: 'a' .* and 'mrq' in {name}"):
        open_broker(config, Plugins(config))
    unset = load_config({"broker": url}, file=os.devnull, environ={})
    open_broker(unset, Plugins(unset)).close()
