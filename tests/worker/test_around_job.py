"""The hook `mrq_around_job`: a real worker, and plugins at their best and at their worst."""

from __future__ import annotations

import json

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

pytestmark = pytest.mark.parametrize("project", ["sqlite"], indirect=True)

AROUND = """
import contextvars
from gevent import GreenletExit
from mrq_core import get_current_job, hookimpl, log, retry_current_job
from tasks import note

span = contextvars.ContextVar("span", default="none")


class Unwell(BaseException):
    pass


BEFORE = {"raises": LookupError, "raises_base": Unwell, "exits": SystemExit, "is_killed": GreenletExit}


@hookimpl(wrapper=True)
def mrq_around_job(context):
    how = context.job.params.get("how", "well")
    when, _, what = how.partition(":")
    if when == "before":
        if what == "retries" and context.attempt == 1:
            retry_current_job(delay=0)
        if what == "ends":
            return None
        if what in BEFORE:
            raise BEFORE[what]("before")
    if "how" in context.job.params:
        span.set(how)
    try:
        outcome = yield
        assert outcome == context.outcome
    except BaseException as error:
        note(f"{how}={type(error).__name__}/{context.outcome.status}")
        if what == "swallows":
            return {"other": "result"}
        if what == "replaces":
            raise LookupError("instead") from error
        if what == "retries":
            retry_current_job()
        raise
    note(f"{how}={outcome.status}/{get_current_job().id == context.job.id}/{context.path}")
    if what == "changes" and outcome.result:
        outcome.result["changed"] = True
        return {"other": "result"}
    if what == "yields":
        yield
    if what == "yields_forever":
        try:
            yield
        finally:
            yield
    if when == "after" and what in BEFORE:
        raise BEFORE[what]("after")
    return outcome


def wrapped_task(how, ends):
    note(f"{how}=ran")
    if ends == "raises":
        raise ValueError("it does not work")
    if ends == "stops":
        raise StopIteration("unusual")
    return {"span": span.get()}
"""

WRAPPED = """
from around import wrapped_task
from mrq_core import task


@task
def run(how: str, ends: str = "returns"):
    return wrapped_task(how, ends)
"""

RETURNED = {
    "well": ("success", None, True),
    "before:raises": ("failed", "LookupError", False),
    "before:raises_base": ("failed", "around.Unwell", False),
    "before:exits": ("failed", "SystemExit", False),
    "before:is_killed": ("failed", "greenlet.GreenletExit", False),
    "before:ends": ("failed", "mrq_core.errors.MrqError", False),
    "before:retries": ("success", None, True),
    "after:raises": ("success", None, True),
    "after:raises_base": ("success", None, True),
    "after:exits": ("success", None, True),
    "after:is_killed": ("success", None, True),
    "after:yields": ("success", None, True),
    "after:yields_forever": ("success", None, True),
    "after:changes": ("success", None, True),
}
"""By what the wrapper does: the status of the job, its exception, and whether its code ran."""

RAISED = ("well", "after:swallows", "after:replaces", "after:retries")

LOGGED = {
    "after:raises": "LookupError: after",
    "after:raises_base": "around.Unwell: after",
    "after:exits": "SystemExit: after",
    "after:is_killed": "greenlet.GreenletExit: after",
    "after:yields": "yielded a second time",
    "after:yields_forever": "generator ignored GeneratorExit",
    "after:replaces": "LookupError: instead",
    "after:retries": "RetryInterrupt",
}
"""What is logged with the job. Nothing for all other wrappers."""


@pytest.fixture
def around(project: Project) -> Project:
    project.write("around.py", AROUND)
    project.write("wrapped.py", WRAPPED)
    return project


def logged_for(project: Project, job: str) -> list[str]:
    """The lines of the job's log that report a failed plugin."""
    return [line for line in project.log_of(job) if line.startswith("plugin.failed hook=mrq_around_job")]


def test_whatever_a_wrapper_does_a_job_that_returns_ends_clearly_and_the_worker_goes_on(
    around: Project,
) -> None:
    jobs = {how: around.queue("wrapped.run", {"how": how}) for how in RETURNED}
    last = around.queue("tasks.Add", {"a": 20, "b": 22})
    worker = around.work_off("--plugins", "around", "--greenlets", "3")
    found = {how: around.ended(job) for how, job in jobs.items()}
    ran = {word.removesuffix("=ran") for word in around.ledger() if word.endswith("=ran")}
    assert {how: (r.status, r.exception_type, how in ran) for how, r in found.items()} == RETURNED
    assert {how: r.claims for how, r in found.items()} == {
        how: 2 if how == "before:retries" else 1 for how in RETURNED
    }
    for how, record in found.items():
        if record.status == Status.SUCCESS:
            assert record.result == {"span": how}
            assert f"{how}=success/True/wrapped.run" in around.ledger()
    for how, job in jobs.items():
        lines = logged_for(around, job)
        assert len(lines) == (how in LOGGED), how
        if lines:
            assert f"plugin=around id={job}" in lines[0]
            assert lines[0].splitlines()[-1].endswith(LOGGED[how])
            assert f"id={job}: the outcome of the code is stored" in worker.output
    assert around.ended(last).result == 42


def test_whatever_a_wrapper_does_a_job_that_raises_keeps_its_exception(around: Project) -> None:
    jobs = {how: around.queue("wrapped.run", {"how": how, "ends": "raises"}) for how in RAISED}
    around.work_off("--plugins", "around", "--greenlets", "3")
    for how, job in jobs.items():
        record = around.ended(job)
        assert (record.status, record.exception_type, record.claims) == (Status.FAILED, "ValueError", 1), how
        assert (record.traceback or "").endswith("ValueError: it does not work\n")
        assert f"{how}=ValueError/failed" in around.ledger()
        assert len(logged_for(around, job)) == (how in LOGGED), how


def test_a_job_that_raises_stop_iteration_is_no_failure_of_the_wrapper(around: Project) -> None:
    job = around.queue("wrapped.run", {"how": "well", "ends": "stops"})
    around.work_off("--plugins", "around")
    assert around.ended(job).exception_type == "StopIteration"
    assert around.ledger() == ["well=ran", "well=StopIteration/failed"]
    assert logged_for(around, job) == []


def test_a_wrapper_sees_why_a_task_could_not_be_loaded(around: Project) -> None:
    missing = around.queue("wrapped.missing", {"how": "well"})
    retried = around.queue("wrapped.missing", {"how": "before:raises"})
    around.work_off("--plugins", "around")
    assert around.ended(missing).exception_type == "mrq_core.errors.TaskNotFound"
    assert around.ended(retried).exception_type == "LookupError"
    assert around.ledger() == ["well=TaskNotFound/failed"]


def test_an_exception_that_a_wrapper_raises_before_the_code_is_retried_by_the_rules_of_the_task(
    around: Project,
) -> None:
    around.write("mrq-config.py", "TASKS = {'wrapped.run': {'max_retries': 1, 'retry_on': LookupError}}")
    job = around.queue("wrapped.run", {"how": "before:raises"})
    around.worker("--plugins", "around")
    record = around.ended(job)
    assert (record.status, record.exception_type, record.claims) == (Status.MAXRETRIES, "LookupError", 2)


def test_tracebacks_have_the_frames_of_task_and_plugin_only(around: Project) -> None:
    before = around.queue("wrapped.run", {"how": "before:raises"})
    inside = around.queue("wrapped.run", {"how": "well", "ends": "raises"})
    around.work_off("--plugins", "around")
    for job, names in ((before, ["mrq_around_job"]), (inside, ["run", "wrapped_task"])):
        lines = (around.ended(job).traceback or "").splitlines()
        frames = [line for line in lines if line.startswith("  File ")]
        assert [line.rpartition(" in ")[2] for line in frames] == names


def test_context_variables_of_a_wrapper_do_not_reach_the_next_job(around: Project) -> None:
    around.write(
        "sees.py",
        """
        from around import span
        from mrq_core import task

        @task
        def sees():
            return span.get()
        """,
    )
    around.queue("wrapped.run", {"how": "well"})
    job = around.queue("sees.sees")
    around.work_off("--plugins", "around")
    assert around.ledger()[0] == "well=ran"
    assert around.ended(job).result == "none"


NESTED = """
from mrq_core import hookimpl
from tasks import note

@hookimpl(wrapper=True)
def mrq_around_job(context):
    note(f"enter:{__name__}")
    try:
        yield
    except LookupError as error:
        note(f"error:{__name__}:{error.args[0]}")
    else:
        note(f"leave:{__name__}")
    if __name__ == "inner":
        raise RuntimeError("on the way out")
"""


def test_wrappers_nest_in_the_order_of_their_plugins_and_each_sees_the_end_of_the_code(
    project: Project,
) -> None:
    for name in ("outer", "inner"):
        project.write(f"{name}.py", NESTED)
    project.write("mrq-config.py", NESTED)
    project.queue("tasks.noted", {"word": "job"})
    project.work_off("--plugins", "outer inner")
    enters, leaves = (
        [word.split(":")[1] for word in project.ledger() if word.startswith(edge)]
        for edge in ("enter", "leave")
    )
    assert enters[:2] == ["outer", "inner"]
    assert len(enters) == 3  # the config file is the last plugin
    assert leaves == enters[::-1]
    assert project.ledger()[3:5] == ["start-job", "end-job"]


def test_a_wrapper_outside_sees_what_a_wrapper_inside_raised_before_the_code(project: Project) -> None:
    project.write("outer.py", NESTED)
    project.write(
        "refuses.py",
        """
        from mrq_core import hookimpl

        @hookimpl(wrapper=True)
        def mrq_around_job(context):
            raise LookupError("refused")
            yield
        """,
    )
    project.write("inner.py", NESTED)
    job = project.queue("tasks.noted", {"word": "job"})
    project.work_off("--plugins", "outer refuses inner")
    assert project.ended(job).exception_type == "LookupError"
    assert project.ledger() == ["enter:outer", "error:outer:refused"]


def test_a_wrapper_runs_around_mrq_run(around: Project) -> None:
    printed = around.mrq("run", "wrapped.run", '{"how": "well"}', "--plugins", "around")
    assert json.loads(printed) == {"span": "well"}
    assert around.ledger()[0] == "well=ran"
    assert around.ledger()[1].startswith("well=success/")


@pytest.mark.parametrize("mark", ["hookimpl", "hookimpl(hookwrapper=True)"])
def test_an_implementation_that_is_no_wrapper_keeps_the_worker_from_starting(
    project: Project, mark: str
) -> None:
    project.write(
        "odd.py", f"from mrq_core import hookimpl\n\n@{mark}\ndef mrq_around_job(context):\n    yield\n"
    )
    worker = project.start("worker", "--plugins", "odd")
    assert worker.wait() == 2
    assert "the plugin odd (PLUGINS) cannot be used: mrq_around_job is " in worker.output
    assert "hookimpl(wrapper=True)" in worker.output
