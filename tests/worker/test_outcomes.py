"""How attempts end, seen from outside: a real worker, and the records it leaves."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.messages import NewJob
from mrq_core.contract.record import Status
from mrq_core.ids import new_id
from tests.support import Project


def test_a_job_that_returns_succeeds_with_its_result(project: Project) -> None:
    job = project.queue("tasks.Add", {"a": 1, "b": 2})
    project.work_off()
    record = project.ended(job)
    assert record.status == Status.SUCCESS
    assert record.result == 3
    assert record.claims == 1
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.started_at <= record.ended_at
    assert project.log_of(job) == ["adding 1 and 2"]


def test_an_exception_fails_a_job_and_is_not_retried(project: Project) -> None:
    job = project.queue("tasks.fail")
    project.work_off()
    record = project.ended(job)
    assert record.status == Status.FAILED
    assert record.exception_type == "ValueError"
    assert record.traceback is not None
    assert "it does not work" in record.traceback
    assert 'tasks.py", line' in record.traceback
    assert "mrq_core/worker" not in record.traceback
    assert record.retry_count == 0


def test_retry_current_job_runs_the_job_again_until_it_succeeds(project: Project) -> None:
    job = project.queue("tasks.flaky", {"failures": 2})
    project.worker()
    record = project.ended(job)
    assert (record.status, record.result, record.retry_count) == (Status.SUCCESS, "at last", 2)
    assert [attempt.status for attempt in record.attempts] == [Status.RETRY, Status.RETRY, Status.SUCCESS]
    assert [attempt.claim for attempt in record.attempts] == [1, 2, 3]


def test_retry_on_retries_until_none_is_left(project: Project) -> None:
    job = project.queue("tasks.unreachable")
    project.worker()
    record = project.ended(job)
    assert record.status == Status.MAXRETRIES
    assert record.retry_count == 2
    assert record.exception_type == "ConnectionError"
    assert len(record.attempts) == 3


def test_abort_current_job_aborts(project: Project) -> None:
    job = project.queue("tasks.abort")
    project.work_off()
    assert project.ended(job).status == Status.ABORT


def test_a_job_that_waits_too_long_times_out(project: Project) -> None:
    job = project.queue("tasks.sleep_too_long")
    project.work_off()
    record = project.ended(job)
    assert record.status == Status.TIMEOUT
    assert record.traceback is not None
    assert "timeout of 0.5 s" in record.traceback


def test_a_cpu_loop_times_out_within_a_second_of_its_limit_and_the_worker_goes_on(project: Project) -> None:
    loop = project.queue("tasks.spin")
    after = project.queue("tasks.Add", {"a": 1, "b": 1})
    project.work_off("--greenlets", "2")
    record = project.ended(loop)
    assert record.status == Status.TIMEOUT
    assert record.total_time is not None
    assert 1.0 <= record.total_time < 2.0
    assert project.ended(after).result == 2


def test_a_job_whose_code_cannot_be_ended_times_out_and_takes_only_its_worker_along(project: Project) -> None:
    deaf = project.queue("tasks.deaf")
    beside = project.queue("tasks.noted", {"word": "beside", "seconds": 1000})
    worker = project.worker("--greenlets", "2")
    assert worker.wait() == 1
    assert project.ended(deaf).status == Status.TIMEOUT
    record = project.client.fetch(beside)
    assert record.status == Status.INTERRUPT
    assert record.lost_claims == 0
    assert deaf in worker.output


BAD_TASKS = """
import sys
from mrq_core import task, Task

class Bare(BaseException):
    pass

@task
def leaves():
    sys.exit(3)

@task
def base():
    raise Bare("not an Exception")

@task
def interrupts():
    raise KeyboardInterrupt

@task
def generates():
    return (number for number in [1])

@task
def returns_object():
    return {"deep": [1, object()]}

@task
def returns_nan():
    return float("nan")

@task
def returns_much():
    return "x" * 5_000_000

@task
def prints_binary():
    sys.stdout.flush()
    sys.stdout.buffer.write(bytes(range(256)))
    print("caf\\udce9 \\x00")
    return "printed"

@task
def raises_binary():
    raise ValueError("bad \\udcff \\x00 text")

@task
def recurses():
    return recurses.function()

class NoRun(Task):
    pass

class NoInit(Task):
    def __init__(self):
        raise RuntimeError("cannot be made")

@task
def typed(n: int):
    return n

def plain():
    return 1
"""

BROKEN_TASKS = {
    "bad.leaves": ("failed", "SystemExit"),
    "bad.base": ("failed", "bad.Bare"),
    "bad.interrupts": ("failed", "KeyboardInterrupt"),
    "bad.generates": ("failed", "mrq_core.errors.InvalidValue"),
    "bad.returns_object": ("failed", "mrq_core.errors.InvalidValue"),
    "bad.returns_nan": ("failed", "mrq_core.errors.InvalidValue"),
    "bad.returns_much": ("failed", "mrq_core.errors.ValueTooLarge"),
    "bad.prints_binary": ("success", None),
    "bad.raises_binary": ("failed", "ValueError"),
    "bad.recurses": ("failed", "RecursionError"),
    "bad.NoRun": ("failed", "NotImplementedError"),
    "bad.NoInit": ("failed", "RuntimeError"),
    "bad.typed": ("failed", "mrq_core.errors.InvalidParams"),
    "bad.plain": ("failed", "mrq_core.errors.NotATask"),
    "bad.missing": ("failed", "mrq_core.errors.TaskNotFound"),
    "bad.NoRun.deeper": ("failed", "mrq_core.errors.TaskNotFound"),
    "no_such_module.Task": ("failed", "mrq_core.errors.TaskNotFound"),
    "nodots": ("failed", "mrq_core.errors.TaskNotFound"),
    "os.system": ("failed", "mrq_core.errors.NotATask"),
    "mrq_core.Task": ("failed", "mrq_core.errors.NotATask"),
    "import_raises.Task": ("failed", "mrq_core.errors.TaskImportFailed"),
    "import_exits.Task": ("failed", "mrq_core.errors.TaskImportFailed"),
    "import_misses.Task": ("failed", "mrq_core.errors.TaskImportFailed"),
    "import_garbled.Task": ("failed", "mrq_core.errors.TaskImportFailed"),
}


def test_bad_tasks_fail_by_themselves_and_the_worker_goes_on(project: Project) -> None:
    project.write("bad.py", BAD_TASKS)
    project.write("import_raises.py", "1 / 0")
    project.write("import_exits.py", "import sys\nsys.exit(1)")
    project.write("import_misses.py", "import no_such_library")
    project.write("import_garbled.py", "def (")
    jobs = {path: project.queue(path) for path in BROKEN_TASKS if path != "nodots"}
    # The client refuses this path, but another program may have queued it.
    odd = replace(project.client.fetch(jobs["bad.plain"]), id=new_id(), path="nodots")
    project.client.broker.enqueue([NewJob(record=odd)])
    jobs["nodots"] = odd.id
    last = project.queue("tasks.Add", {"a": 20, "b": 22})
    project.work_off("--greenlets", "3")
    found = {path: project.ended(job) for path, job in jobs.items()}
    assert {path: (r.status, r.exception_type) for path, r in found.items()} == BROKEN_TASKS
    assert all(record.claims == 1 for record in found.values())
    assert project.ended(last).result == 42


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bad.generates", "result is of type generator"),
        ("bad.returns_object", "result.deep[1] is of type object"),
        ("bad.returns_nan", "finite"),
        ("bad.returns_much", "more than 4,194,304 bytes as JSON"),
        ("bad.raises_binary", "bad \\udcff \\x00 text"),
        ("bad.typed", "Object missing required field `n`"),
        ("bad.plain", "not a task but a function"),
        ("bad.missing", "bad has no 'missing'"),
        ("import_misses.Task", "no_such_library"),
    ],
)
def test_the_error_of_a_bad_task_says_what_was_found(project: Project, path: str, words: str) -> None:
    project.write("bad.py", BAD_TASKS)
    project.write("import_misses.py", "import no_such_library")
    job = project.queue(path)
    project.work_off()
    record = project.ended(job)
    assert record.traceback is not None
    assert words in record.traceback
