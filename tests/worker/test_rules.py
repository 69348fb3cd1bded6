"""A worker obeys the rules of shared state, and answers requests."""

from __future__ import annotations

import signal
import socket
import sys
import time
from datetime import timedelta

import pytest

from mrq_core import pause_task, resume_task
from mrq_core.client.handles import Queue
from mrq_core.contract import rules
from mrq_core.contract.messages import Limit
from mrq_core.contract.record import Status
from mrq_core.errors import RequestFailed
from mrq_core.operations.explaining.explaining import explain
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.operations.limits import list_limits, remove_limits, set_limit
from mrq_core.operations.requests import ask_worker, request_worker, send_request
from mrq_core.operations.workers import list_workers
from tests.support import Project, until

QUICK = ("--paused-queues-refresh-interval", "0.1")
SELDOM = ("--paused-queues-refresh-interval", "1000")
LIMITED = """
import os, time
from mrq_core import Limit, task

@task(limits={"api": Limit(concurrency=2)})
def limited(n: int):
    from tasks import note
    note(f"start-{n}")
    while not os.path.exists("go"):
        time.sleep(0.01)
    note(f"end-{n}")
"""


@pytest.fixture
def limited(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a limited task, which this process can import, too."""
    project.write("limited.py", LIMITED)
    monkeypatch.syspath_prepend(project.path)
    monkeypatch.delitem(sys.modules, "limited", raising=False)
    return project


def most_at_once(ledger: list[str]) -> int:
    """The largest number of jobs that ran at once."""
    running = most = 0
    for line in ledger:
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    return most


def name_of_the_worker(project: Project) -> str:
    until(lambda: list_workers(project.client.broker), what="a report of the worker")
    [report] = list_workers(project.client.broker)
    return report.name


# --- limits ----------------------------------------------------------------------------------------


def test_a_worker_enforces_a_rule_of_a_task_that_it_has_not_loaded(limited: Project) -> None:
    set_limit(limited.client.broker, "api", concurrency=1)
    for number in range(4):
        limited.queue("limited.limited", {"n": number})
    limited.worker("--greenlets", "4", *QUICK)
    until(lambda: limited.ledger(), what="the first job")
    marker = limited.queue("tasks.Add", {"a": 1, "b": 1})
    assert limited.ended(marker).result == 2
    assert limited.ledger() == ["start-0"]
    limited.write("go", "")
    until(lambda: len(limited.ledger()) == 8, what="all jobs")
    assert most_at_once(limited.ledger()) == 1


def test_a_rule_that_is_changed_while_jobs_run_holds_at_once(limited: Project) -> None:
    broker = limited.client.broker
    set_limit(broker, "api", concurrency=0)
    for number in range(12):
        limited.queue("limited.limited", {"n": number})
    limited.worker("--greenlets", "12", *QUICK)
    until(lambda: broker.counts(["default"])[0].due == 0, what="all jobs to be parked")
    assert limited.ledger() == []
    set_limit(broker, "api", concurrency=5)
    until(lambda: len(limited.ledger()) == 5, what="five jobs to start")
    set_limit(broker, "api", concurrency=7)
    until(lambda: len(limited.ledger()) == 7, what="seven jobs to start")
    assert remove_limits(broker, ["api"]) == [True]
    # The rule of the task comes back, and holds for jobs that start later.
    until(lambda: [rule.source for rule in list_limits(broker)] == ["task"], what="the rule of the task")
    limited.write("go", "")
    until(lambda: len(limited.ledger()) == 24, what="all jobs")


def test_a_worker_publishes_the_rules_of_the_tasks_that_it_loads(limited: Project) -> None:
    broker = limited.client.broker
    limited.write("go", "")
    job = limited.queue("limited.limited", {"n": 1})
    assert limited.client.fetch(job).limit_keys == ("api",)
    limited.worker(*QUICK)
    until(lambda: list_limits(broker), what="the rule")
    [rule] = list_limits(broker)
    assert (rule.name, rule.limit, rule.source) == ("api", Limit(concurrency=2), "task")


def test_the_rules_of_a_task_hold_for_its_first_jobs_on_a_new_broker(limited: Project) -> None:
    for number in range(6):
        limited.queue("limited.limited", {"n": number})
    limited.worker("--greenlets", "7")
    assert limited.ended(limited.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    limited.write("go", "")
    until(lambda: len(limited.ledger()) == 12, what="all jobs")
    assert most_at_once(limited.ledger()) == 2


def test_a_worker_that_ends_at_once_has_published_the_rules_of_its_tasks(limited: Project) -> None:
    broker = limited.client.broker
    worker = limited.worker("--max-jobs", "2", *SELDOM)
    assert limited.ended(limited.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    limited.queue("limited.limited", {"n": 1})
    assert remove_limits(broker, ["api"]) == [True]
    limited.write("go", "")
    assert worker.wait() == 0
    assert [(rule.name, rule.source) for rule in list_limits(broker)] == [("api", "task")]


def test_the_rules_of_a_loaded_task_hold_for_its_worker_before_they_are_published(limited: Project) -> None:
    broker = limited.client.broker
    limited.worker("--greenlets", "5", *SELDOM)
    assert limited.ended(limited.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    limited.queue("limited.limited", {"n": 0})
    assert remove_limits(broker, ["api"]) == [True]
    until(lambda: limited.ledger(), what="the first job")
    for number in range(1, 4):
        limited.queue("limited.limited", {"n": number})
    assert limited.ended(limited.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert list_limits(broker) == []
    limited.write("go", "")
    until(lambda: len(limited.ledger()) == 8, what="all jobs")
    assert most_at_once(limited.ledger()) == 2


def test_a_rule_of_a_person_stays_when_the_task_is_loaded(limited: Project) -> None:
    broker = limited.client.broker
    set_limit(broker, "api", rate=100.0, per=2.0)
    limited.write("go", "")
    limited.worker(*QUICK)
    assert limited.ended(limited.queue("limited.limited", {"n": 1})).status == Status.SUCCESS
    marker = time.monotonic()
    until(lambda: time.monotonic() > marker + 0.5, what="some polls of the worker")
    [rule] = list_limits(broker)
    assert (rule.limit, rule.source) == (Limit(rate=100.0, per=2.0), "person")


def test_a_changed_rate_starts_jobs_that_would_wait_for_hours(limited: Project) -> None:
    broker = limited.client.broker
    set_limit(broker, "api", rate=1, per=600.0)
    limited.write("go", "")
    limited.worker("--greenlets", "4", "--max-latency", "30")
    jobs = [limited.queue("limited.limited", {"n": number}) for number in range(20)]
    until(lambda: len(limited.ledger()) == 2, what="the first job to end")
    until(lambda: broker.counts(["default"])[0].due == 0, what="the others to be parked")
    changed = time.monotonic()
    set_limit(broker, "api", rate=100, per=1.0)
    late = limited.queue("limited.limited", {"n": 20})
    assert [limited.ended(job).claims for job in (*jobs, late)] == [1] * 21
    assert time.monotonic() - changed < 3.0


def test_jobs_that_a_rate_parks_start_when_the_rule_is_removed(limited: Project) -> None:
    broker = limited.client.broker
    set_limit(broker, "api", rate=1, per=600.0)
    limited.write("go", "")
    limited.worker("--greenlets", "4")
    jobs = [limited.queue("limited.limited", {"n": number}) for number in range(20)]
    until(lambda: len(limited.ledger()) == 2, what="the first job to end")
    until(lambda: broker.counts(["default"])[0].due == 0, what="the others to be parked")
    changed = time.monotonic()
    assert remove_limits(broker, ["api"]) == [True]  # the concurrency of the task comes back
    assert [limited.ended(job).claims for job in jobs] == [1] * 20
    assert time.monotonic() - changed < 3.0


# --- pauses ----------------------------------------------------------------------------------------


def test_jobs_of_a_paused_task_wait_and_others_pass(project: Project) -> None:
    pause_task("tasks.noted", client=project.client)
    held = [project.queue("tasks.noted", {"word": f"held{number}"}) for number in range(3)]
    project.worker(*QUICK)
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert [project.client.fetch(job).claims for job in held] == [0, 0, 0]
    resume_task("tasks.noted", client=project.client)
    assert [project.ended(job).claims for job in held] == [1, 1, 1]


def test_a_pause_of_a_task_reaches_workers_within_a_second_and_spares_running_jobs(project: Project) -> None:
    running = project.queue("tasks.noted", {"word": "running", "seconds": 2.5})
    project.worker("--greenlets", "5")
    until(lambda: project.ledger(), what="the job to start")
    pause_task("tasks.noted", client=project.client)
    paused = time.monotonic()
    until(lambda: time.monotonic() > paused + 1.3, what="a second for the workers")
    held = project.queue("tasks.noted", {"word": "held"})
    assert project.ended(running).status == Status.SUCCESS
    assert project.client.fetch(held).status == Status.QUEUED
    assert project.ledger() == ["start-running", "end-running"]


def test_a_pause_until_a_time_ends_by_itself(project: Project) -> None:
    quiet = Queue("quiet", client=project.client)
    end = project.client.broker.now() + timedelta(seconds=4)
    quiet.pause(until=end)
    pause_task("tasks.noted", until=end, client=project.client)
    assert quiet.is_paused()
    in_quiet = project.queue("tasks.Add", {"a": 1, "b": 1}, queue="quiet")
    of_task = project.queue("tasks.noted", {"word": "x"})
    project.worker("quiet", "default", *QUICK)
    for job in (in_quiet, of_task):
        record = project.ended(job)
        assert record.started_at is not None
        assert record.started_at >= end
    assert not quiet.is_paused()


def test_denied_tasks_are_left_to_other_workers(project: Project) -> None:
    flags = ("--deny-tasks", "tasks.noted", *QUICK)
    if not project.client.broker.supports_denied_tasks:
        worker = project.start("worker", *flags)
        assert worker.wait() == 2
        assert "cannot leave out tasks" in worker.output
        return
    left = project.queue("tasks.noted", {"word": "left"})
    denying = project.worker(*flags)
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert project.client.fetch(left).status == Status.QUEUED
    burst = project.worker("--dequeue-strategy", "burst", *flags)
    assert burst.wait() == 0
    project.worker()
    assert project.ended(left).status == Status.SUCCESS
    denying.send(signal.SIGINT)


def test_a_worker_runs_allowed_tasks_only_and_others_take_the_rest(project: Project) -> None:
    flags = ("--allow-tasks", "tasks.Add,elsewhere.*", *QUICK)
    if not project.client.broker.supports_denied_tasks:
        worker = project.start("worker", *flags)
        assert worker.wait() == 2
        assert "ALLOW_TASKS is set" in worker.output
        return
    # More jobs of another task than one claim steps over.
    left = [project.queue("tasks.noted", {"word": str(number)}) for number in range(150)]
    mine = project.queue("tasks.Add", {"a": 1, "b": 1})
    worker = project.worker("--name", "choosy", *flags)
    other = project.worker("--greenlets", "3", "--deny-tasks", "tasks.Add", *QUICK)
    assert project.ended(mine).result == 2
    assert all(project.ended(job).status == Status.SUCCESS for job in left)
    assert project.ended(mine).worker == f"choosy.{socket.gethostname()}.{worker.pid}"
    other.send(signal.SIGTERM)
    other.wait()
    # While jobs of other tasks are due, the worker is idle, and takes what it may run.
    held = project.queue("tasks.noted", {"word": "held"})
    assert project.ended(project.queue("tasks.Add", {"a": 2, "b": 1})).result == 3
    assert project.client.fetch(held).status == Status.QUEUED
    [reason] = [r for r in explain(project.client.broker, held) if r.kind is ReasonKind.DENIED]
    assert "leaves out jobs of the task tasks.noted" in reason.sentence
    [report] = [r for r in list_workers(project.client.broker) if r.is_at_work]
    assert (report.allowed_tasks, report.denied_tasks) == (("tasks.Add", "elsewhere.*"), ())
    assert "allowed    tasks.Add, elsewhere.*" in project.mrq("workers", "show", "choosy")


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_a_list_of_tasks_with_a_bad_pattern_is_refused(project: Project) -> None:
    for flag in ("--allow-tasks", "--deny-tasks"):
        worker = project.start("worker", flag, "shop.call,sh*p.call")
        assert worker.wait() == 2
        assert "contains 'sh*p.call': expected the path of a task" in worker.output


# --- requests --------------------------------------------------------------------------------------


def test_the_stacks_of_running_jobs_are_answered_within_two_seconds(project: Project) -> None:
    project.queue("tasks.noted", {"word": "waiting", "seconds": 1000})
    project.worker("--greenlets", "2")
    until(lambda: project.ledger(), what="the job to start")
    name = name_of_the_worker(project)
    began = time.monotonic()
    text = request_worker(project.client.broker, name, "stack")
    assert time.monotonic() - began < 2.0
    assert "tasks.noted" in text
    assert "in noted\n    time.sleep(seconds)" in text


def test_a_job_that_blocks_the_hub_is_seen_in_the_stacks(project: Project) -> None:
    project.queue("tasks.busy", {"seconds": 20})
    project.worker()
    until(lambda: project.ledger(), what="the job to start")
    began = time.monotonic()
    text = request_worker(project.client.broker, name_of_the_worker(project), "stack")
    assert time.monotonic() - began < 2.5
    assert "in busy\n" in text


def test_a_worker_that_is_asked_to_drain_finishes_its_jobs(project: Project) -> None:
    running = project.queue("tasks.noted", {"word": "running", "seconds": 1.5})
    worker = project.worker()
    until(lambda: project.ledger(), what="the job to start")
    text = request_worker(project.client.broker, name_of_the_worker(project), "drain")
    assert "finishes its running jobs" in text
    later = project.queue("tasks.Add", {"a": 1, "b": 1})
    assert worker.wait() == 0
    assert project.client.fetch(running).status == Status.SUCCESS
    assert project.client.fetch(later).status == Status.QUEUED


def test_a_worker_that_is_asked_to_stop_interrupts_its_jobs(project: Project) -> None:
    running = project.queue("tasks.noted", {"word": "running", "seconds": 1000})
    worker = project.worker("--stop-grace", "0.5")
    until(lambda: project.ledger(), what="the job to start")
    request_worker(project.client.broker, name_of_the_worker(project), "stop")
    assert worker.wait() == 0
    assert project.client.fetch(running).status == Status.INTERRUPT


def test_a_worker_that_is_asked_to_stop_now_interrupts_its_jobs_at_once(project: Project) -> None:
    running = project.queue("tasks.noted", {"word": "running", "seconds": 1000})
    worker = project.worker("--stop-grace", "1000")
    until(lambda: project.ledger(), what="the job to start")
    text = request_worker(project.client.broker, name_of_the_worker(project), "stop", {"now": True})
    assert "interrupts its running jobs now" in text
    assert worker.wait() == 0
    assert project.client.fetch(running).status == Status.INTERRUPT


def test_the_log_of_a_worker_is_answered_also_while_a_job_blocks_it(project: Project) -> None:
    project.queue("tasks.noted", {"word": "logged"})
    project.queue("tasks.busy", {"seconds": 20})
    project.worker()
    until(lambda: "busy" in project.ledger(), what="the job that blocks the hub")
    name = name_of_the_worker(project)
    text = request_worker(project.client.broker, name, "log")
    assert "worker.started" in text
    assert text == project.mrq("workers", "log", name).rstrip("\n")


def test_a_caller_without_patience_is_told_that_there_is_no_answer_yet(project: Project) -> None:
    worker = project.worker()
    name = name_of_the_worker(project)
    project.freeze(worker)
    try:
        answer = ask_worker(project.client.broker, name, "drain", ttl=600.0, patience=0.2)
    finally:
        worker.send(signal.SIGCONT)
    assert answer is None
    assert worker.wait() == 0


def test_a_worker_that_is_gone_answers_nothing_and_the_caller_is_told(project: Project) -> None:
    worker = project.worker("--report-interval", "60")
    name = name_of_the_worker(project)
    worker.send(signal.SIGKILL)
    worker.wait()
    with pytest.raises(RequestFailed, match=r"not answer the request stack within 0\.5 s: its last report"):
        request_worker(project.client.broker, name, "stack", ttl=0.5)
    with pytest.raises(RequestFailed, match=r"no worker named 'größe/ü; --' has reported"):
        request_worker(project.client.broker, "größe/ü; --", "stack", ttl=0.5)


def test_a_request_that_has_expired_is_not_carried_out(project: Project) -> None:
    worker = project.worker(*QUICK)
    name = name_of_the_worker(project)
    project.freeze(worker)
    request = send_request(project.client.broker, name, "stop", ttl=0.3)
    until(lambda: project.client.broker.now() > request.expires_at, what="the request to expire")
    worker.send(signal.SIGCONT)
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert project.client.broker.state.get(rules.REQUESTS, name) is None
    assert worker.popen.poll() is None
