"""Hostile plugins: neither a job nor its worker is harmed."""

from __future__ import annotations

import re
import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import PATIENCE, Project, until
from tests.worker.hostile import RAISED, RAISING

OBSERVING = (
    RAISING
    + """
@hookimpl
def mrq_jobs_started(records):
    gevent.Timeout(0.01).start()
    fail()


@hookimpl
def mrq_jobs_settled(settled):
    gevent.Timeout(0.01).start()
    fail()


@hookimpl
def mrq_worker_event(worker, event):
    gevent.Timeout(0.01).start()
    fail()
"""
)


def work(project: Project, *arguments: str, jobs: int = 3) -> str:
    """Runs jobs one after the other in one worker, which then stops as asked. Returns its output."""
    worker = project.worker(*arguments)
    for number in range(jobs):
        job = project.queue("tasks.noted", {"word": f"w{number}", "seconds": 0.02})
        record = project.ended(job)
        assert (record.status, record.result, record.claims) == (Status.SUCCESS, f"w{number}", 1)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    return worker.output


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_an_observer_raises_or_leaves_behind_the_worker_goes_on(
    project: Project, raised: str
) -> None:
    project.write("observing.py", OBSERVING)
    project.env["RAISED"] = raised
    output = work(project, "--plugins", "observing")
    for hook in ("mrq_jobs_started", "mrq_jobs_settled", "mrq_worker_event"):
        assert f"plugin.failed hook={hook} plugin=observing\n" in output
    assert re.search(rf"^    (\S+\.)*{raised}(:|$)", output, re.MULTILINE | re.IGNORECASE), output
    assert "a log handler" not in output


@pytest.mark.parametrize("raised", ["Own", "Denying", "bodiless"])
@pytest.mark.parametrize("hook", ["mrq_before_enqueue(record)", "mrq_encode(value)"])
def test_a_hook_that_raises_a_hostile_exception_in_the_scheduler_is_named_and_the_scheduler_goes_on(
    project: Project, hook: str, raised: str
) -> None:
    project.write("refusing.py", f"{RAISING}\n\n@hookimpl\ndef {hook}:\n    fail()\n")
    project.env["RAISED"] = raised
    project.write(
        "mrq-config.py",
        'SCHEDULER_TASKS = [{"path": "tasks.noted", "params": {"word": "a"}, "interval": 1}]\n',
    )
    worker = project.worker("--scheduler", "--plugins", "refusing")
    until(lambda: worker.output.count("schedule.refused") > 1, what="two fires")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    name = hook.partition("(")[0]
    assert f"raised by {name} of the plugin refusing" in worker.output
    assert "greenlet.ended" not in worker.output
    assert "a log handler" not in worker.output


@pytest.mark.parametrize("way", ["main", "greenlet", "solo"])
def test_a_hostile_exception_of_a_callback_or_in_a_log_is_named(project: Project, way: str) -> None:
    project.write(
        "straying.py",
        RAISING
        + """
from mrq_core import log, task

def leaves():
    gevent.get_hub().loop.run_callback(fail)
    time.sleep(0.05)
    try:
        fail()
    except BaseException:
        log.exception("caught")
    return "its result"

@task
def greenlet():
    return leaves()

@task(isolate=True)
def solo():
    return leaves()

@task
def main():
    import greenlet
    hub = gevent.get_hub()
    hub.loop.run_callback(greenlet.getcurrent().parent.parent.throw, Denying())
    time.sleep(0.05)
    return leaves()
""",
    )
    project.env["RAISED"] = "Denying"
    job = project.queue(f"straying.{way}")
    worker = project.worker()
    assert project.ended(job).result == "its result"
    assert any(line.startswith("caught") and "Denying: " in line for line in project.log_of(job))
    until(lambda: "failed with straying.Denying" in worker.output, what="the callback")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output
    assert "a log handler" not in worker.output
    assert ("worker.disturbed" in worker.output) == (way == "main")


def test_an_observer_that_hangs_keeps_no_job_from_its_outcome(project: Project) -> None:
    project.write(
        "hanging.py",
        """
        import time
        from mrq_core import hookimpl

        @hookimpl
        def mrq_jobs_settled(settled):
            time.sleep(1000)
        """,
    )
    work(project, "--plugins", "hanging", jobs=5)


def test_what_a_plugin_does_when_the_worker_stops_does_not_change_how_it_ends(project: Project) -> None:
    project.write(
        "stopping.py",
        """
        import os
        import sys
        import gevent
        from mrq_core import hookimpl
        from tasks import note

        def interrupt():
            raise KeyboardInterrupt

        @hookimpl
        def mrq_worker_event(worker, event):
            if event == "stop":
                gevent.spawn(sys.exit, 4)
                gevent.spawn(interrupt)
                gevent.kill(gevent.get_hub().parent, SystemExit(5))
                if os.fork() == 0:
                    note("child")
        """,
    )
    job = project.queue("tasks.noted", {"word": "a"})
    worker = project.work_off("--plugins", "stopping")
    assert project.ended(job).status == Status.SUCCESS
    assert worker.output.count("worker.stopped") == 1
    assert worker.output.count("greenlet.ended") == 2
    until(lambda: "child" in project.ledger(), what="the child to run")


def test_a_greenlet_of_a_config_file_ends_no_worker_that_starts(project: Project) -> None:
    project.write("mrq-config.py", "import gevent, sys\ngevent.spawn(sys.exit, 4)\n")
    job = project.queue("tasks.noted", {"word": "a"})
    worker = project.work_off()
    assert project.ended(job).status == Status.SUCCESS
    assert "greenlet.ended by SystemExit(4)" in worker.output


DECIDING = (
    RAISING
    + """
@hookimpl
def mrq_retry_decision(job, exception):
    fail()
"""
)


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_a_retry_decision_raises_the_job_fails_with_its_own_exception(
    project: Project, raised: str
) -> None:
    project.write("deciding.py", DECIDING)
    project.env["RAISED"] = raised
    job = project.queue("tasks.fail")
    last = project.queue("tasks.unreachable")
    project.work_off("--plugins", "deciding")
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "ValueError")
    assert "ValueError: it does not work\nmrq_retry_decision of the plugin deciding raised " in (
        record.traceback or ""
    )
    assert project.client.fetch(last).retry_count == 1  # the options of the task decide


@pytest.mark.parametrize(
    "answer",
    ["'soon'", "object()", "True", "RetryDecision(retry=True, delay='soon')",
     "RetryDecision(retry=True, delay=-1)", "RetryDecision(retry=True, delay=float('nan'))"],
)  # fmt: skip
def test_a_retry_decision_that_makes_no_sense_is_named_and_the_options_decide(
    project: Project, answer: str
) -> None:
    project.write(
        "answering.py",
        f"""
        from mrq_core import RetryDecision, hookimpl

        @hookimpl
        def mrq_retry_decision(job, exception):
            return {answer}
        """,
    )
    job = project.queue("tasks.fail")
    project.work_off("--plugins", "answering")
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "ValueError")
    assert "mrq_retry_decision of the plugin answering raised " in (record.traceback or "")


def test_a_retry_decision_with_a_hostile_number_is_carried_out(project: Project) -> None:
    project.write(
        "hostile_number.py",
        """
        from mrq_core import RetryDecision, hookimpl

        def exits(*values):
            raise SystemExit(3)

        names = ["add", "radd", "mul", "rmul", "lt", "gt", "le", "ge", "eq", "float", "bool", "round"]
        Number = type("Number", (float,), {f"__{name}__": exits for name in names})

        @hookimpl
        def mrq_retry_decision(job, exception):
            return RetryDecision(retry=job.retry_count < 2, delay=Number(0.01))
        """,
    )
    job = project.queue("tasks.fail")
    project.worker("--plugins", "hostile_number")
    record = project.until_status(job, "failed")
    assert (record.exception_type, record.retry_count) == ("ValueError", 2)


AROUND = (
    RAISING
    + """
@hookimpl(wrapper=True)
def mrq_around_job(context):
    if context.job.params["when"] == "before":
        fail()
    try:
        yield
    finally:
        if context.job.params["when"] == "after":
            fail()
"""
)

WRAPPED = """
from around import Own, fail
from mrq_core import task


@task
def returns(when: str):
    return "done"


@task
def raises(when: str):
    fail()
"""

NAMES = {"GreenletExit": "greenlet.GreenletExit", "Timeout": "gevent.timeout.Timeout"}


def name_of(raised: str, module: str) -> str:
    """The name of an exception that this module raises."""
    own = {"Own": "Own", "Denying": "Denying", "bodiless": "bodiless.<locals>.Bodiless"}
    return f"{module}.{own[raised]}" if raised in own else NAMES.get(raised, raised)


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_a_wrapper_and_the_code_in_it_raise_the_job_has_a_clear_outcome(
    project: Project, raised: str
) -> None:
    project.write("around.py", AROUND)
    project.write("wrapped.py", WRAPPED)
    project.env["RAISED"] = raised
    before, after = (project.queue("wrapped.returns", {"when": when}) for when in ("before", "after"))
    raising = [project.queue("wrapped.raises", {"when": when}) for when in ("never", "after")]
    project.work_off("--plugins", "around")
    name = name_of(raised, "around")
    assert (project.ended(before).status, project.ended(before).exception_type) == (Status.FAILED, name)
    assert (project.ended(after).status, project.ended(after).result) == (Status.SUCCESS, "done")
    assert [project.ended(job).exception_type for job in raising] == [name, name]
    assert any("plugin.failed hook=mrq_around_job" in line for line in project.log_of(after))


def test_changes_of_params_reach_neither_the_wrapper_nor_the_task_nor_an_observer(project: Project) -> None:
    project.write(
        "changing.py",
        """
        from mrq_core import Task, hookimpl
        from tasks import note

        @hookimpl(wrapper=True)
        def mrq_around_job(context):
            note(f"before-{context.job.params['list']}".replace(" ", ""))
            context.job.params["list"].append("wrapper")
            yield
            note(f"after-{context.job.params['list']}".replace(" ", ""))

        @hookimpl
        def mrq_jobs_settled(settled):
            note(f"settled-{settled[0][0].params['list']}".replace(" ", ""))

        class Changes(Task):
            def run(self, params):
                params["list"].append("task")
                return params["list"]
        """,
    )
    project.write(
        "other.py",
        """
        import changing
        from mrq_core import hookimpl

        @hookimpl(wrapper=True)
        def mrq_around_job(context):
            return (yield from changing.mrq_around_job(context))
        """,
    )
    job = project.queue("changing.Changes", {"list": [1]})
    project.work_off("--plugins", "changing other")
    assert project.ended(job).result == [1, "task"]
    assert project.ledger() == [
        "before-[1]", "before-[1]", "after-[1,'wrapper']", "after-[1,'wrapper']", "settled-[1]",
    ]  # fmt: skip


CODEC = (
    RAISING
    + """
@hookimpl
def mrq_encode(value):
    if value == "raises":
        fail()
    if value == "sleeps":
        time.sleep(1000)
    if isinstance(value, list):
        value.append({1})
        return value
    return {"nan": float("nan"), "bytes": b"bytes", "huge": "x" * 20_000_000}.get(value)


@hookimpl
def mrq_decode(value):
    how = value.get("decode")
    if how == "raises":
        fail()
    if how == "sleeps":
        time.sleep(1000)
    if how == "spins":
        while True:
            pass
"""
)

READS = """
from mrq_core import get_current_job, hookimpl


@hookimpl
def mrq_decode(value):
    job = get_current_job()
    return {"value": [value["value"], job.record.path, job.record.params]} if "value" in value else None
"""

CODED = """
from mrq_core import task


@task(timeout=0.5)
def returns(value: object = None, decode: str = ""):
    return value


@task(timeout=0)
def waits(decode: str = ""):
    pass
"""


@pytest.fixture
def coded(project: Project) -> Project:
    project.write("coding.py", CODEC)
    project.write("coded.py", CODED)
    return project


@pytest.mark.parametrize("raised", RAISED)
def test_whatever_a_codec_raises_the_job_fails_with_it(coded: Project, raised: str) -> None:
    coded.env["RAISED"] = raised
    jobs = [coded.queue("coded.returns", {key: "raises"}) for key in ("value", "decode")]
    last = coded.queue("coded.returns", {"value": 42})
    coded.work_off("--plugins", "coding")
    exits = dict.fromkeys(("SystemExit", "KeyboardInterrupt"), "mrq_core.errors.ConfigError")
    name = exits.get(raised, name_of(raised, "coding"))
    assert [(coded.ended(job).status, coded.ended(job).exception_type) for job in jobs] == [
        (Status.FAILED, name)
    ] * 2
    assert coded.ended(last).result == 42


def test_a_hook_that_decodes_may_read_the_record_of_its_job(coded: Project) -> None:
    coded.write("reading.py", READS)
    job = coded.queue("coded.returns", {"value": 1})
    coded.work_off("--plugins", "reading")
    assert coded.ended(job).result == [1, "coded.returns", {"value": 1}]


def test_a_result_that_a_codec_makes_unstorable_fails_its_job_and_names_the_hook(coded: Project) -> None:
    messages = {
        "nan": "the result of mrq_encode is nan",
        "bytes": "the result of mrq_encode is of type bytes",
        "huge": "the result of mrq_encode takes more than 8,388,608 bytes",
        "in place": "the result of mrq_encode[0] is of type set",
    }
    jobs = {
        value: coded.queue("coded.returns", {"value": [] if value == "in place" else value})
        for value in messages
    }
    coded.work_off("--plugins", "coding")
    for value, message in messages.items():
        record = coded.ended(jobs[value])
        assert record.status == Status.FAILED
        assert message in (record.traceback or ""), value


@pytest.mark.parametrize("params", [{"value": "sleeps"}, {"decode": "sleeps"}, {"decode": "spins"}], ids=str)
def test_a_codec_that_takes_too_long_is_interrupted_by_the_timeout(
    coded: Project, params: dict[str, object]
) -> None:
    job = coded.queue("coded.returns", params)
    last = coded.queue("coded.returns", {"value": 42})
    coded.work_off("--plugins", "coding")
    assert coded.ended(job).status == Status.TIMEOUT
    assert coded.ended(last).result == 42


def test_a_codec_that_waits_is_interrupted_by_a_cancel(coded: Project) -> None:
    job = coded.queue("coded.waits", {"decode": "sleeps"})
    worker = coded.worker("--plugins", "coding", "--paused-queues-refresh-interval", "0.05")
    coded.until_status(job, Status.STARTED)
    coded.job(job).cancel(interrupt=True)
    assert coded.job(job).wait(PATIENCE).status == Status.CANCEL
    assert worker.popen.poll() is None
