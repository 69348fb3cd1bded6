"""How soon a worker goes on when its server is back, and what it does without one from the start."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.worker import outage
from tests.campaign import ledger
from tests.campaign.ledger import Ledger
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.services import sentinels
from tests.servers import free_port
from tests.support import Project, open_project, until

GOES_ON_WITHIN = 5.0
"""Seconds after the server's return that are promised."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, server.url) as project:
        project.write("tasks.py", ledger.TASKS)
        yield project


def test_a_worker_never_waits_longer_than_promised_before_it_tries_again(
    project: Project, server: Server
) -> None:
    assert max(outage.FIRST_MOST, outage.MOST) < GOES_ON_WITHIN
    jobs = [project.queue("tasks.work", {"seconds": 0}) for _ in range(3)]
    worker = project.worker()
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 3
    waiting = project.queue("tasks.work", {"seconds": 0}, delay=1.0)
    server.kill()
    worker.until_output("broker.away")
    away = time.monotonic()
    until(lambda: time.monotonic() > away + outage.FIRST_MOST, what="the first trial")
    server.start()
    back = time.time()
    record = project.ended(waiting)
    assert record.started_at is not None
    print(f"the worker's next claim came {record.started_at.timestamp() - back:.2f} s after the return")
    assert (worker.output.count("broker.away"), worker.output.count("broker.back")) == (1, 1)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0, worker.output


@pytest.mark.campaign
def test_a_server_that_hangs_for_a_while_costs_leases_and_no_job(project: Project, server: Server) -> None:
    jobs = [project.queue("tasks.work", {"seconds": 0.1}) for _ in range(20)]
    worker = project.worker("--broker-timeout", "0.5", "--lease", "1", "--greenlets", "3")
    until(project.ledger_path.exists, what="a job to start")
    server.signal(signal.SIGSTOP)
    worker.until_output("did not answer within 0.5 s")
    server.signal(signal.SIGCONT)
    records = [project.ended(job) for job in jobs]
    ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
    check_keys(project.client.broker)  # type: ignore[arg-type]


def test_a_worker_does_not_start_without_a_server(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with open_project(tmp_path, f"redis://:geheim@{address}/0") as project:
        worker = project.start("worker")
        assert worker.wait() == 1
        assert address in worker.output
        assert "geheim" not in worker.output
        assert "Traceback" not in worker.output


@pytest.mark.campaign
def test_workers_go_on_with_the_server_that_the_sentinels_have_promoted(tmp_path: Path) -> None:
    with sentinels(tmp_path) as service, open_project(tmp_path, service.url) as project:
        project.write("tasks.py", ledger.TASKS)
        workers = [project.worker() for _ in range(2)]
        before = [project.queue("tasks.work", {"seconds": 0}) for _ in range(10)]
        assert [project.ended(job).status for job in before] == [Status.SUCCESS] * 10
        delayed = [project.queue("tasks.work", {"seconds": 0}, delay=2.0) for _ in range(10)]
        service.until_replicated()
        service.primary.kill()
        until(lambda: _have_succeeded(project, delayed), what="the jobs to succeed")
        assert service.is_promoted()
        for worker in workers:
            worker.send(signal.SIGINT)
            assert worker.wait() == 0, worker.output


def _have_succeeded(project: Project, jobs: list[str]) -> bool:
    try:
        return all(project.client.fetch(job).status is Status.SUCCESS for job in jobs)
    except BrokerUnavailable:  # while the sentinels have not agreed
        return False
