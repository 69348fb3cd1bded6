"""Plugins that mrq would ignore or could not call are refused at start, with one clear message each."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mrq_core.config.settings import Config
from mrq_core.contract.driver import Driver
from mrq_core.errors import ConfigError
from mrq_core.plugins import hookspecs
from mrq_core.plugins.hookspecs import FUNCTION, KINDS, WRAPPER, hookimpl
from mrq_core.plugins.manager import Plugins

HOOKS = [name for name in vars(hookspecs) if name.startswith("mrq_")]
WITHOUT_WRAPPERS = [hook for hook in HOOKS if WRAPPER not in KINDS[hook]]
PLAIN_HOOKS = [hook for hook in HOOKS if FUNCTION in KINDS[hook]]


def plugins_with(function: Callable[..., object], name: str, **marks: Any) -> Plugins:
    """The plugins of a process whose config file marks the function as an implementation."""
    module = ModuleType("mrq_config")
    setattr(module, name, hookimpl(**marks)(function))
    return Plugins(Config(module=module))


def refusal(function: Callable[..., object], name: str, **marks: Any) -> str:
    """The message of the refusal. Every message names the plugin and the function."""
    with pytest.raises(ConfigError) as caught:
        plugins_with(function, name, **marks)
    message = str(caught.value)
    assert message.startswith(f"the plugin config file (config file) cannot be used: {name} ")
    return message.partition(f": {name} ")[2]


def named(name: str, *modules: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Config:
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return Config(plugins=(name,))


def test_every_hook_has_its_kinds() -> None:
    assert list(KINDS) == HOOKS
    assert all(KINDS.values())


class Lazy:
    """An object that must not be evaluated yet, such as the settings of Django."""

    def _refuse(self, *arguments: object) -> Any:
        raise SystemExit("evaluated")

    __eq__ = __bool__ = __getattr__ = __len__ = _refuse
    __hash__ = None  # type: ignore[assignment]
    vars()["__class__"] = property(_refuse)


@pytest.mark.parametrize("is_module", [False, True])
def test_lazy_objects_of_a_plugin_are_not_evaluated(is_module: bool) -> None:
    def mrq_worker_event(event: str) -> None:
        """Called as usual."""

    plugin = ModuleType("mrq_config") if is_module else SimpleNamespace()
    plugin.settings = plugin.SETTINGS = Lazy()  # type: ignore[union-attr]
    plugin.mrq_worker_event = hookimpl(mrq_worker_event)  # type: ignore[union-attr]
    found = Plugins(Config(module=plugin))  # type: ignore[arg-type]
    assert found.hooks_of("config file") == ["mrq_worker_event"]


def test_hooks_in_a_class_or_an_object_of_the_module_are_refused() -> None:
    module = ModuleType("mrq_config")
    kind = type(
        "Plugin", (), {"mrq_jobs_settled": hookimpl(lambda self, settled: None), "__module__": "mrq_config"}
    )
    for value in (kind, kind()):
        module.plugin = value  # type: ignore[attr-defined]
        with pytest.raises(
            ConfigError, match="plugin has the method mrq_jobs_settled, which is marked with @hookimpl"
        ):
            Plugins(Config(module=module))
    kind.__module__ = "elsewhere"
    Plugins(Config(module=module))
    module.plugin = hookimpl(type("mrq_encode", (), {}))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="plugin is marked with @hookimpl, but is not a function"):
        Plugins(Config(module=module))


# --- kinds ---------------------------------------------------------------------------------------


def generator() -> Iterator[None]:
    yield


async def coroutine() -> None:
    """Is never awaited."""


async def async_generator() -> AsyncIterator[None]:
    yield


def ordinary() -> None:
    """Is called."""


@pytest.mark.parametrize("hook", PLAIN_HOOKS)
def test_an_ordinary_function_is_taken(hook: str) -> None:
    assert plugins_with(ordinary, hook).implements(hook)


@pytest.mark.parametrize("hook", WITHOUT_WRAPPERS)
def test_a_wrapper_of_a_hook_without_wrappers_is_refused(hook: str) -> None:
    reason = refusal(generator, hook, wrapper=True)
    assert reason == f"is a wrapper, and mrq does not call wrappers of {hook}: expected an ordinary function"


@pytest.mark.parametrize("hook", HOOKS)
def test_an_old_style_wrapper_is_refused(hook: str) -> None:
    assert "is an old-style wrapper (hookwrapper=True)" in refusal(generator, hook, hookwrapper=True)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("function", [coroutine, async_generator], ids=lambda function: function.__name__)
def test_an_async_function_is_refused(hook: str, function: Callable[..., object]) -> None:
    assert "is an async function, which mrq does not await" in refusal(function, hook)


@pytest.mark.parametrize("hook", PLAIN_HOOKS)
def test_a_generator_function_is_refused(hook: str) -> None:
    assert "is a generator function, whose code would never run" in refusal(generator, hook)


def test_a_wrapper_that_is_no_generator_function_is_refused() -> None:
    reason = refusal(ordinary, "mrq_retry_decision", wrapper=True)
    assert reason == "is marked as a wrapper, but is not a generator function with one yield"


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if FUNCTION not in KINDS[hook]])
def test_a_hook_of_wrappers_refuses_a_function(hook: str) -> None:
    for function in (ordinary, generator):
        assert refusal(function, hook).startswith(f"is not a wrapper, and mrq calls only wrappers of {hook}")
    assert plugins_with(generator, hook, wrapper=True).implements(hook)


# --- arguments -----------------------------------------------------------------------------------


def with_unknown(worker: str, colour: str) -> None: ...
def with_unknown_optional(worker: str, colour: str = "red") -> None: ...
def with_default(worker: str = "w") -> None: ...
def with_more(*values: str) -> None: ...
def with_names(worker: str, **values: str) -> None: ...
def with_keyword(*, worker: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            with_unknown,
            "has the argument 'colour', which the hook does not have: mrq_worker_event takes worker",
        ),
        (with_unknown_optional, "has the argument 'colour', which the hook does not have"),
        (with_default, "gives 'worker' a default, so mrq would never pass it"),
        (with_more, "takes *values, which would stay empty: mrq_worker_event takes worker, event"),
        (with_names, "takes **values, which would stay empty"),
        (with_keyword, "takes 'worker' by keyword only"),
    ],
)
def test_arguments_that_mrq_does_not_pass_are_refused(function: Callable[..., object], reason: str) -> None:
    assert refusal(function, "mrq_worker_event").startswith(reason)


def test_methods_of_an_object_are_implementations_too() -> None:
    class Watch:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @hookimpl
        def mrq_worker_event(self, event: str) -> None:
            self.seen.append(event)

    watch = Watch()
    plugins = Plugins(Config(module=watch))  # type: ignore[arg-type]
    plugins.observe("mrq_worker_event", worker="w", event="stop")
    assert watch.seen == ["stop"]


# --- names ---------------------------------------------------------------------------------------


def test_an_unknown_hook_is_refused_with_the_nearest_name() -> None:
    reason = refusal(ordinary, "mrq_before_enque")
    assert (
        reason == "implements mrq_before_enque, which is not a hook of mrq; did you mean mrq_before_enqueue?"
    )
    assert "`mrq plugins`" in refusal(ordinary, "on_start")


def test_an_unknown_hook_may_be_marked_as_optional() -> None:
    assert not plugins_with(ordinary, "mrq_of_the_future", optionalhook=True).implements("mrq_of_the_future")


def test_specname_names_the_hook() -> None:
    seen: list[str] = []

    def watch(event: str) -> None:
        seen.append(event)

    plugins = plugins_with(watch, "watch", specname="mrq_worker_event")
    plugins.observe("mrq_worker_event", worker="w", event="stop")
    assert seen == ["stop"]
    assert plugins.hooks_of("config file") == ["mrq_worker_event"]
    assert "implements mrq_worker_evnt, which is not a hook" in refusal(
        watch, "watch", specname="mrq_worker_evnt"
    )


def test_a_function_named_like_a_hook_without_a_mark_is_refused() -> None:
    module = ModuleType("mrq_config")
    exec("def mrq_worker_event(event): pass", vars(module))
    with pytest.raises(
        ConfigError, match="mrq_worker_event is named like a hook, but is not marked with @hook"
    ):
        Plugins(Config(module=module))


def test_an_imported_function_without_a_mark_is_left_alone() -> None:
    module = ModuleType("mrq_config")
    module.mrq_worker_event = hookspecs.mrq_worker_event  # type: ignore[attr-defined]
    assert not Plugins(Config(module=module)).implements("mrq_worker_event")


# --- loading -------------------------------------------------------------------------------------


def test_a_plugin_that_is_named_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = named("twice", ModuleType("twice"), monkeypatch=monkeypatch)
    with pytest.raises(ConfigError) as caught:
        Plugins(Config(plugins=config.plugins * 2))
    assert (
        str(caught.value) == "the plugin twice is loaded twice: by PLUGINS and by PLUGINS. Remove one of them"
    )


def test_a_plugin_that_is_installed_and_named_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Plugins(Config(plugins=("mrq_core.embedded.plugin",)))
    assert str(caught.value) == (
        "the plugin mrq_core.embedded.plugin (PLUGINS) is loaded twice: it is the plugin sqlite "
        f"(mrq {importlib.metadata.version('mrq')}). Remove one of them"
    )


def test_a_hook_that_the_config_file_takes_from_a_plugin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def mrq_worker_event(event: str) -> None:
        """Would be called twice."""

    shop, file = ModuleType("shop"), ModuleType("mrq_config")
    for module in (shop, file):
        module.mrq_worker_event = hookimpl(mrq_worker_event)  # type: ignore[attr-defined]
    config = named("shop", shop, monkeypatch=monkeypatch)
    with pytest.raises(
        ConfigError, match="is loaded twice: by the plugin config file and by the plugin shop"
    ):
        Plugins(Config(plugins=config.plugins, module=file))


REPLACED = """
import sys
from mrq_core import hookimpl


class Plugin:
    @hookimpl
    def mrq_jobs_settled(self, settled):
        pass

    {more}


sys.modules[__name__] = Plugin()
"""


def replaced(more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """The plugins with a module that replaces itself with an object."""
    (tmp_path / "a_replaced_plugin.py").write_text(REPLACED.format(more=more))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_replaced_plugin", raising=False)
    return Plugins(Config(plugins=("a_replaced_plugin",)))


@pytest.mark.parametrize(
    "more",
    ["x = property(lambda self: 1 / 0)", "x = property(lambda self: sys.exit(1))", "__len__ = lambda self: 0",
     "__getattr__ = lambda self, name: 1 / 0", "__repr__ = lambda self: sys.exit(1)"],
)  # fmt: skip
def test_a_module_may_replace_itself_with_an_object(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert replaced(more, tmp_path, monkeypatch).hooks_of("a_replaced_plugin") == ["mrq_jobs_settled"]


@pytest.mark.parametrize(
    "more",
    ["__dir__ = lambda self: sys.exit(1)", "__eq__ = lambda self, other: 1 / 0; __hash__ = None",
     "mrq_driver = property(lambda self: sys.exit(1))"],
)  # fmt: skip
def test_an_object_whose_hooks_cannot_be_found_is_named(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"the plugin a_replaced_plugin \(PLUGINS\) cannot be loaded: "):
        replaced(more, tmp_path, monkeypatch)


def test_a_module_that_replaces_itself_with_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_lost_plugin.py").write_text("import sys\nsys.modules[__name__] = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="its module replaced itself with None"):
        Plugins(Config(plugins=("a_lost_plugin",)))


@pytest.mark.parametrize(
    "line",
    ["raise RuntimeError('not today')", "import sys; sys.exit('not today')", "1 +",
     "raise GeneratorExit('not today')", "class Own(BaseException): pass\nraise Own('not today')"],
)  # fmt: skip
def test_a_module_that_cannot_be_imported_is_named(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_broken_plugin.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Plugins(Config(plugins=("a_broken_plugin",)))
    assert str(caught.value).startswith("the plugin a_broken_plugin (PLUGINS) cannot be loaded: ")
    assert ("not today" in str(caught.value)) == ("not today" in line)


# --- drivers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, GeneratorExit])
def test_a_driver_hook_that_raises_is_named(raised: type[BaseException]) -> None:
    def mrq_driver() -> Driver:
        raise raised("no licence")

    with pytest.raises(
        ConfigError, match=f"mrq_driver of the plugin config file failed: {raised.__name__}: no lic"
    ):
        plugins_with(mrq_driver, "mrq_driver")


def test_a_driver_hook_that_returns_something_else_is_named() -> None:
    def mrq_driver() -> str:
        return "sqlite"

    with pytest.raises(ConfigError, match="the plugin config file returned a str: expected a Driver"):
        plugins_with(mrq_driver, "mrq_driver")


def test_a_driver_hook_may_return_none() -> None:
    assert plugins_with(ordinary, "mrq_driver").drivers.keys() == Plugins(Config()).drivers.keys()


def test_the_arguments_of_hooks_have_no_defaults() -> None:
    for hook in HOOKS:
        for parameter in inspect.signature(getattr(hookspecs, hook)).parameters.values():
            assert parameter.default is parameter.empty, hook
