"""Modules that a client needs and cannot import: hidden, blocked or replaced, or a hook fails."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core.config import hidden
from mrq_core.errors import TaskNotFound
from mrq_core.tasks.loading import find_task
from tests import brokers
from tests.support import PATIENCE

CALL = """
import sys, types
import mrq_core

{change}
try:
    mrq_core.configure(broker=sys.argv[1], store=sys.argv[2])
    print(mrq_core.queue_job("tasks.x"))
except mrq_core.MrqError as error:
    cause = error.__cause__
    while isinstance(cause, mrq_core.MrqError):
        cause = cause.__cause__
    print(type(error).__name__, type(cause).__name__, error, sep="|")
"""
REPLACE = """
for part in [part for part in sys.modules if (part + ".").startswith("NAME.")]:
    del sys.modules[part]
sys.modules["NAME"] = WITH
"""
HOOK = """
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "NAME":
            raise LookupError("no such thing")

sys.modules.pop("NAME", None)
sys.meta_path.insert(0, Hook())
"""
LIBRARIES = {"sqlite": "sqlite3", "redis": "redis", "mongo": "pymongo", "redis+mongo": "pymongo"}


@pytest.fixture(params=brokers.PARAMS)
def broker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def said(change: str, broker: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CALL.format(change=change), *brokers.address_of(broker, folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["secrets", "msgspec", "the library"])
def test_a_client_names_the_file_that_hides_a_module(broker: str, name: str, tmp_path: Path) -> None:
    name = name if name != "the library" else LIBRARIES[broker]
    owner = "of a library of mrq" if name not in sys.stdlib_module_names else "of Python's standard library"
    (tmp_path / f"{name}.py").write_text("")
    kind, cause, text = said("", broker, tmp_path).split("|")
    assert kind in ("ImportFailed", "ConfigError")
    assert cause in ("AttributeError", "ImportError", "ModuleNotFoundError")
    assert text.endswith(f"; the file {tmp_path}/{name}.py hides the module {name} {owner}: rename the file")


@pytest.mark.parametrize(("value", "state"), [("None", "blocked"), ("types.ModuleType('NAME')", "replaced")])
@pytest.mark.parametrize("name", ["hmac", "msgspec", "the library"])
def test_a_client_names_the_module_that_other_code_has_taken_away(
    broker: str, name: str, value: str, state: str, tmp_path: Path
) -> None:
    name = name if name != "the library" else LIBRARIES[broker]
    kind, cause, text = said(REPLACE.replace("WITH", value).replace("NAME", name), broker, tmp_path).split(
        "|"
    )
    assert kind in ("ImportFailed", "ConfigError")
    assert cause in ("AttributeError", "ImportError", "ModuleNotFoundError")
    assert f"the module {name} of" in text
    assert f" is {state}: other code has set sys.modules['{name}'] to " in text


@pytest.mark.parametrize("name", ["hmac", "mrq_core.client.client", "the library"])
def test_a_client_passes_on_what_an_import_hook_raises(broker: str, name: str, tmp_path: Path) -> None:
    name = name if name != "the library" else LIBRARIES[broker]
    kind, cause, text = said(HOOK.replace("NAME", name), broker, tmp_path).split("|")
    assert kind in ("ImportFailed", "ConfigError")
    assert cause == "LookupError"
    assert text.endswith(" LookupError: no such thing")


def test_the_list_of_plugins_cannot_be_read(tmp_path: Path) -> None:
    change = "from importlib import metadata\nmrq_core.configure\ndel metadata.entry_points"
    assert said(change, "sqlite", tmp_path) == (
        "ConfigError|AttributeError|the installed plugins cannot be listed: AttributeError: module "
        "'importlib.metadata' has no attribute 'entry_points'"
    )


def test_a_folder_that_stands_for_a_library_which_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "LIBRARIES", {"notinstalled"})
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "notinstalled").mkdir()
    with pytest.raises(ImportError) as caught:
        exec("from notinstalled import exceptions")
    assert hidden.hiding(caught.value) == (
        f"the folder {tmp_path}/notinstalled was imported as the module notinstalled of a library of mrq, "
        "which is not installed: install it"
    )
    del sys.modules["notinstalled"]


def test_the_dashboard_names_the_file_that_hides_a_module(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import mrq_dashboard"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].startswith("mrq_core.errors.ImportFailed: the dashboard cannot be")
    assert f"the file {tmp_path}/starlette.py hides the module starlette of" in done.stderr


def test_mrq_itself_cannot_be_imported_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "weakref.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.path.append(sys.argv[1]); import mrq_core", *_home()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: mrq cannot be imported: the file {tmp_path}/weakref.py hides the module weakref of "
        "Python's standard library: rename the file"
    )


def _home() -> list[str]:
    return [str(Path(__file__).parents[2])]


def test_a_library_without_an_init_at_its_top_hides_nothing() -> None:
    import gevent  # imports parts of zope

    assert "zope" in sys.modules, gevent
    assert hidden.hiding(ValueError("another error"), anywhere=True) is None


AGAIN = """
import sys
from mrq_core import Client, task
from mrq_core.config.sources import load_config

@task
def x():
    pass

config = load_config({"broker": "sqlite"})
client = Client(config)
for name in [name for name in sys.modules if name.partition(".")[0] in sys.argv[1:]]:
    del sys.modules[name]

from mrq_core import Client, MrqError, Queue, queue_job, run_task
try:
    CALL
except MrqError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("call", "beginning"),
    [
        ("queue_job('a.x')", "mrq_driver of the plugin redis returned a Driver: expected a Driver; "),
        ("run_task('__main__.x', {})", "__main__.x is not a task but a TaskFunction: expected a subclass"),
        ("run_task(x, {})", "task is <task __main__.x>: expected a path"),
        ("run_task(x.task_class, {})", "task is "),
        ("Client(config)", "config is Config("),
        ("Queue('x', client=client).size()", "client is <mrq_core.client.client.Client"),
    ],
)
def test_an_object_of_an_earlier_import_of_mrq_is_told_apart(
    call: str, beginning: str, tmp_path: Path
) -> None:
    """Notebooks, and tests that isolate imports, remove modules and import them again."""
    removed = (
        ["mrq_core"] if call.startswith("queue_job") else ["mrq_core", "mrq_broker_redis", "mrq_broker_mongo"]
    )
    done = subprocess.run(
        [sys.executable, "-c", AGAIN.replace("CALL", call), *removed],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(beginning), done.stdout
    assert "; it belongs to another copy of mrq_core" in done.stdout
    assert done.stdout.endswith("or start a new process\n")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To Python, a folder that may be searched but not read has no modules."""
    (tmp_path / "unlisted_tasks.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    tmp_path.chmod(0o300)
    user = os.geteuid()
    try:
        if user == 0:  # which may read any folder
            os.chown(tmp_path, 65534, -1)
            os.seteuid(65534)
        importlib.invalidate_caches()
        with pytest.raises(TaskNotFound, match="may not read the folder") as found:
            find_task("unlisted_tasks.run")
        assert str(found.value).endswith(f"'{tmp_path}'")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    importlib.invalidate_caches()
    with pytest.raises(TaskNotFound, match="has no"):
        find_task("unlisted_tasks.run")
