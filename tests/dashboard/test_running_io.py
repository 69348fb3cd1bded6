"""What a running job waits for, on its page, on that of its worker, and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.testclient import TestClient

from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.running_jobs import NOT_TRACED
from mrq_core.operations.workers import IoCall, IoState, IoTotal, RunningJob
from mrq_core.testing import MemoryBroker
from tests.dashboard import scenes
from tests.dashboard.conftest import MakeSite

GET = IoCall(kind="redis", text="GET user:42 at 127.0.0.1:6379", seconds=3.2)
TRACED = IoState(calls=(GET,), left_out=4, totals={"redis": IoTotal(calls=1200, seconds=7.5)})
SHOWN = "redis GET user:42 at 127.0.0.1:6379"


def running(broker: MemoryBroker, io: IoState | None, **report: Any) -> JobRecord:
    """A running job in the report of its worker."""
    scenes.put(broker, "default")
    [taken] = scenes.take(broker, "default")
    now = datetime.now(UTC)
    job = RunningJob(id=taken.id, path=taken.path, started_at=now, age=5.0, stack=("a.py:1 run",), io=io)
    scenes.report(broker, running=(job,), **report)
    return taken


def pages_of(site: TestClient, job: JobRecord) -> list[str]:
    return [site.get(path).text for path in (f"/jobs/{job.id}", f"/workers/{job.worker}")]


def test_the_calls_of_a_running_job_are_shown(make_site: MakeSite) -> None:
    broker = MemoryBroker()
    job = running(broker, TRACED)
    site = make_site(broker=broker)
    for page in pages_of(site, job):
        assert SHOWN in page
        assert "for 3.2 s" in page
        assert "and 4 more calls" in page
        assert "redis 1,200 in 7.5 s" in page
        assert NOT_TRACED not in page
        assert "stale" not in page
    now = site.get(f"/api/jobs/{job.id}").json()["running"]
    assert now["stack"] == ["a.py:1 run"]
    assert now["stale"] is False
    assert now["io"] == {
        "calls": [{"kind": "redis", "text": GET.text, "seconds": 3.2}],
        "left_out": 4,
        "totals": {"redis": {"calls": 1200, "seconds": 7.5}},
    }
    [of_worker] = site.get(f"/api/workers/{job.worker}").json()["running"]
    assert of_worker["io"] == now["io"]


def test_without_tracing_a_line_tells_how_to_trace(make_site: MakeSite) -> None:
    broker = MemoryBroker()
    job = running(broker, None)
    site = make_site(broker=broker)
    assert [page.count(NOT_TRACED) for page in pages_of(site, job)] == [1, 1]
    assert site.get(f"/api/jobs/{job.id}").json()["running"]["io"] is None


def test_a_job_between_two_calls_waits_for_nothing(make_site: MakeSite) -> None:
    broker = MemoryBroker()
    job = running(broker, IoState())
    for page in pages_of(make_site(broker=broker), job):
        assert "waits for no traced I/O" in page
        assert NOT_TRACED not in page


def test_the_last_calls_of_a_dead_worker_are_kept_and_stale(make_site: MakeSite) -> None:
    broker = MemoryBroker()
    job = running(broker, TRACED, silent=120.0)
    site = make_site(broker=broker)
    page, _ = pages_of(site, job)
    assert SHOWN in page
    assert "a.py:1 run" in page
    assert "(stale)" in page
    now = site.get(f"/api/jobs/{job.id}").json()["running"]
    assert now["stale"] is True
    assert now["io"]["calls"]


def test_a_job_that_does_not_run_has_no_calls(make_site: MakeSite) -> None:
    broker = MemoryBroker()
    job = running(broker, TRACED)
    waiting = scenes.put(broker, "default")
    site = make_site(broker=broker)
    assert site.get(f"/api/jobs/{waiting}").json()["running"] is None
    assert SHOWN not in site.get(f"/jobs/{waiting}").text
    scenes.end(broker, [job], Status.SUCCESS)
    assert site.get(f"/api/jobs/{job.id}").json()["running"] is None
    assert SHOWN not in site.get(f"/jobs/{job.id}").text
