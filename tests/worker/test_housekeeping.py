"""What a worker does beside its jobs, without any configuration of schedules."""

from __future__ import annotations

import signal

from mrq_core.contract.record import Status
from mrq_core.operations import schedules
from tests.support import PATIENCE, Project, until

CONFIG = """
from mrq_core.worker import housekeeping

housekeeping._PRUNE_INTERVAL = 0.2
DEFAULT_JOB_RESULT_TTL = 0.5
"""


def test_expired_jobs_go_without_a_schedule(project: Project) -> None:
    """Totals count expired jobs until they are deleted."""
    project.write("mrq-config.py", CONFIG)
    kept = project.queue("tasks.fail")
    worker = project.worker()
    project.until_status(kept, "failed")
    for _ in range(2):
        gone = [project.queue("tasks.noted", {"word": str(number)}) for number in range(5)]
        until(lambda: project.client.broker.get(gone) == [None] * 5)  # noqa: B023
        until(lambda: Status.SUCCESS not in project.client.broker.totals().by_status(), patience=30.0)
    assert project.client.broker.totals().by_status() == {Status.FAILED: 1}
    assert project.client.fetch(kept).status is Status.FAILED
    assert schedules.list_schedules(project.client.broker) == []
    assert schedules.schedulers(project.client.broker) == []
    worker.send(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0, worker.output
