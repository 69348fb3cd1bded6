"""Commands that a program starts with blocked signals, as one that waits for them by sigwait may do."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from mrq_core.contract.record import Status
from tests.support import Project

BLOCKED = {signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@pytest.fixture(autouse=True)
def blocked(project: Project) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("scheduler",), "scheduler.started", 0),
        (("dashboard", "--port", "0"), "The dashboard is at", 0),
        (("worker",), "worker.started", 0),
        (("worker", "-p", "1"), "worker.started", 0),
    ],
)
def test_sigterm_ends_it(project: Project, arguments: tuple[str, ...], said: str, code: int) -> None:
    process = project.start(*arguments)
    process.until_output(said)
    process.send(signal.SIGTERM)
    assert process.wait() == code


def test_a_job_that_computes_is_interrupted(project: Project) -> None:
    project.write(
        "spinning.py",
        """
        from mrq_core import task

        @task(timeout=0.3)
        def spins():
            while True:
                pass
        """,
    )
    jobs = [project.queue("spinning.spins") for _ in range(2)]
    project.work_off()
    assert [project.client.fetch(job).status for job in jobs] == [Status.TIMEOUT] * 2
