"""A module of tasks may be odd once it is imported: the client then goes on without its code, and the
load of the task names the fault."""

from __future__ import annotations

import builtins
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
RAISED = ("SystemExit", "ValueError", "KeyboardInterrupt", "GeneratorExit")
DENYING = "    def __getattribute__(self, name):\n        raise {raised}(name)\n"
DENIES = {
    "exception": f"class Odd(Exception):\n{DENYING}raise Odd\n",
    "missing": f"class Odd(ModuleNotFoundError):\n{DENYING}raise Odd\n",
    "class": (
        f"class Kind(type):\n{DENYING}class Odd(BaseException, metaclass=Kind):\n"
        "    def __str__(self):\n        raise {raised}\nraise Odd\n"
    ),
    "object": f"import sys\nclass Odd:\n{DENYING}sys.modules[__name__] = Odd()\n",
    "module": (
        f"import sys, types\nclass Odd(types.ModuleType):\n{DENYING}sys.modules[__name__] = Odd('odd')\n"
    ),
    "names": "def __getattr__(name):\n    raise {raised}(name)\n",
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


@pytest.mark.parametrize("raised", RAISED)
@pytest.mark.parametrize("kind", DENIES)
def test_a_job_is_queued_whatever_the_objects_of_its_module_raise(
    kind: str, raised: str, each_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "denies.py").write_text(DENIES[kind].format(raised=raised))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        jobs = [queue_job("denies.run") for _ in range(2)]  # the second time, the module may be there
        assert [each_client.fetch(job).path for job in jobs] == ["denies.run"] * 2
    finally:
        sys.modules.pop("denies", None)


@pytest.mark.parametrize("raised", RAISED)
def test_a_task_whose_module_has_become_hostile_is_refused(
    raised: str, each_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task
    def run() -> None:
        pass

    class Odd:
        def __getattribute__(self, name: str) -> object:
            raise vars(builtins)[raised]

    monkeypatch.setitem(sys.modules, __name__, Odd())
    with pytest.raises(InvalidValue, match="does not lead to this task"):
        queue_job(run)
