"""What becomes of jobs when their worker dies, stalls, or is too late."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from tests.support import Project, until


def test_jobs_of_a_killed_worker_all_succeed_and_the_repeat_is_in_the_record(project: Project) -> None:
    jobs = [project.queue("tasks.noted", {"word": f"w{n}", "seconds": 0.3}) for n in range(6)]
    doomed = project.worker("--greenlets", "3", "--lease", "1")
    until(
        lambda: len([w for w in project.ledger() if w.startswith("start")]) >= 3, what="three jobs to start"
    )
    doomed.send(signal.SIGKILL)
    doomed.wait()
    project.worker("--greenlets", "3", "--lease", "1")
    records = [project.ended(job) for job in jobs]
    assert [record.status for record in records] == [Status.SUCCESS] * 6
    starts = [word for word in project.ledger() if word.startswith("start")]
    for record in records:
        assert starts.count(f"start-{record.params['word']}") == record.claims
    repeated = [record for record in records if record.claims > 1]
    assert repeated
    for record in repeated:
        assert record.lost_claims == 0  # the success ended the row
        assert [attempt.lost for attempt in record.attempts] == [True] * (record.claims - 1) + [False]
        assert len({attempt.worker for attempt in record.attempts}) > 1
    assert all(record.history == () for record in records if record.claims == 1)


def test_a_busy_loop_of_three_leases_runs_once(project: Project) -> None:
    job = project.queue("tasks.busy", {"seconds": 3.0})
    project.worker("--lease", "1")
    project.worker("--lease", "1")
    record = project.ended(job)
    assert (record.status, record.claims, record.lost_claims) == (Status.SUCCESS, 1, 0)
    assert project.ledger() == ["busy"]


def test_a_late_settle_is_refused_and_the_record_shows_both_attempts(project: Project) -> None:
    job = project.queue("tasks.noted", {"word": "slow", "seconds": 0.5})
    late = project.worker("--lease", "0.6")
    until(lambda: project.ledger() == ["start-slow"], what="the job to start")
    project.freeze(late)
    punctual = project.worker("--lease", "0.6")
    record = project.ended(job)
    late.send(signal.SIGCONT)
    late.until_output("claim.lost")
    after = project.client.fetch(job)
    assert after == record
    assert after.status == Status.SUCCESS
    assert [(a.lost, a.claim) for a in after.attempts] == [(True, 1), (False, 2)]
    assert after.worker is not None
    assert after.worker.endswith(f".{punctual.pid}")
    late.send(signal.SIGTERM)
    assert late.wait() == 0


def test_a_job_that_kills_its_process_is_failed_and_its_neighbours_are_not(project: Project) -> None:
    project.write(
        "poison.py",
        """
        import os, signal, time
        from mrq_core import task

        @task
        def kill():
            os.kill(os.getpid(), signal.SIGKILL)

        @task
        def innocent():
            time.sleep(0.2)
            return "fine"
        """,
    )
    poison = project.queue("poison.kill")
    innocent = [project.queue("poison.innocent") for _ in range(3)]
    for _ in range(5):
        worker = project.start(
            "worker", "--burst", "--lease", "0.5", "--greenlets", "4", "--max-lost-claims", "2"
        )
        worker.wait()
        if project.client.fetch(poison).is_ended:
            break
        until(lambda: _nothing_is_held(project), what="leases to run out")
    record = project.ended(poison)
    assert record.status == Status.FAILED
    assert record.exception_type == "mrq_core.errors.ProcessDied"
    # Twice with its worker, and twice in a separate process.
    assert (record.claims, record.lost_claims, record.solo_deaths) == (4, 4, 2)
    project.work_off()
    assert [project.ended(job).status for job in innocent] == [Status.SUCCESS] * 3


def _nothing_is_held(project: Project) -> bool:
    """Whether every lease has run out, by the clock that the broker uses."""
    held = project.client.broker.find(JobFilter(statuses=(Status.STARTED,))).records
    return all(r.lease_until is not None and r.lease_until < datetime.now(UTC) for r in held)


def test_an_at_most_once_job_of_a_killed_worker_never_runs_again(project: Project) -> None:
    project.write(
        "once.py",
        """
        import time
        from tasks import note
        from mrq_core import task

        @task(at_most_once=True)
        def send():
            note("sent")
            time.sleep(1000)
        """,
    )
    queued = project.mrq("run", "once.send", "--async").strip()
    doomed = project.worker("--lease", "0.5")
    until(lambda: project.ledger() == ["sent"], what="the job to start")
    doomed.send(signal.SIGKILL)
    doomed.wait()
    project.worker("--lease", "0.5")
    record = project.ended(queued)
    assert record.status == Status.FAILED
    assert record.exception_type == "mrq_core.errors.ClaimLost"
    assert project.ledger() == ["sent"]
