"""A module of tasks may be odd once it is imported: the client then goes on without its code, and the
load of the task names the fault."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mrq_core import Client, queue_job
from mrq_core.errors import InvalidValue, NotATask, TaskError, TaskImportFailed, TaskNotFound
from mrq_core.tasks.loading import load_task
from mrq_core.tasks.task import task

LAZY = "class Odd{base}:\n    def __getattribute__(self, name):\n        1 / 0\n"
MODULES: dict[str, tuple[str, type[TaskError]]] = {
    "gone": ("import sys\nsys.modules[__name__] = None\n", TaskNotFound),
    "proxy": (LAZY.format(base="") + "run = Odd()\n", NotATask),
    "metaclass": (LAZY.format(base="(type)") + "class run(metaclass=Odd):\n    pass\n", NotATask),
    "liar": ("class Odd:\n    __class__ = property(lambda self: 1 / 0)\nrun = Odd()\n", NotATask),
    "option": (
        "from mrq_core import Task\n"
        "class Odd(type):\n"
        "    def __getattribute__(self, name):\n"
        "        return 1 / 0 if name == 'queue' else type.__getattribute__(self, name)\n"
        "class run(Task, metaclass=Odd):\n"
        "    pass\n",
        TaskImportFailed,
    ),
    "module": (
        "import sys, types\n"
        + LAZY.format(base="(types.ModuleType)")
        + "sys.modules[__name__] = Odd(__name__)\n",
        TaskImportFailed,
    ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_job_is_queued_without_the_code_of_an_odd_module(
    kind: str,
    each_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    text, error = MODULES[kind]
    name = f"odd_{kind}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop(name, None))
    job = queue_job(f"{name}.run")
    assert each_client.fetch(job).path == f"{name}.run"
    sys.modules.pop(name, None)
    with pytest.raises(error, match=f"^{name}.run "):
        load_task(f"{name}.run", each_client.config)


def test_a_task_whose_module_has_become_odd_is_refused(
    each_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task
    def run() -> None:
        pass

    class Odd:
        def __getattribute__(self, name: str) -> object:
            raise ZeroDivisionError

    monkeypatch.setitem(sys.modules, __name__, Odd())
    with pytest.raises(InvalidValue, match="does not lead to this task"):
        queue_job(run)
