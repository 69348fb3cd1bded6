"""Text from jobs, queues, workers and schedules is shown, and never obeyed by a browser."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.clock import to_ms
from mrq_core.contract.messages import RawItem
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import Status
from mrq_core.contract.rules import LIMITS
from mrq_core.ids import new_id
from mrq_core.operations.auditing import audit
from mrq_core.operations.queries.saved_views import save_view
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.schedules import SCHEDULES, Fire, add_schedule, stored_value
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.operations.workers import IoCall, IoState, IoTotal, RunningJob
from mrq_core.scheduler.definitions import Definition
from mrq_core.tasks.describing import ArgumentDescription, TaskDescription
from mrq_dashboard.rendering import MENU
from tests.dashboard import scenes
from tests.dashboard.html_reading import PageReader

CANARIES = [
    "<script>canary()</script>",
    '"><img src=x onerror=canary()>',
    "javascript:canary()",
    "' onmouseover=canary() x='",
    "</bdi></td></table><style>*{display:none}</style>",
    "{{ canary }}{% raw %}",
]
_MOST_PAGES = 400


def put_everywhere(client: Client, canary: str) -> None:
    """Writes the text into each field that a job, worker, schedule, limit, raw queue or task can fill."""
    broker = client.broker
    hostile: dict[str, Any] = {
        "params": {canary: canary, "list": [canary]},
        "meta": {canary: canary},
        "search_keys": {canary: canary},
        "unique_key": None,
        "limit_keys": (canary[:90],),
        "schedule": canary,
    }
    job_id = scenes.put(broker, canary, f"a.{canary}", **hostile)
    child = scenes.put(broker, canary, f"a.{canary}", parents=(job_id,), children=(job_id,), raw_queue=canary)
    for status in (Status.FAILED, Status.SUCCESS):
        [taken] = scenes.take(broker, canary, worker=canary)
        line = LogLine(job_id=taken.id, attempt=1, seq=0, at=broker.now(), level=canary, message=canary)
        broker.append_logs([line], 100_000)
        scenes.fail(
            broker,
            [taken],
            status,
            exception_type=canary,
            exception_message=canary,
            error_group=f"a.{canary} {canary} {canary}",
            traceback=canary,
            original_traceback=canary,
            result={canary: [canary]},
        )
    scenes.put(broker, canary, f"a.{canary}", **hostile)
    running = scenes.put(broker, f"x/{canary}", f"a.{canary}", **hostile)
    scenes.take(broker, f"x/{canary}", worker=canary)
    now = datetime.now(UTC)
    io = IoState(
        calls=(IoCall(kind=canary, text=canary, seconds=1.0),),
        totals={canary: IoTotal(calls=1, seconds=1.0)},
    )
    stack = RunningJob(id=running, path=canary, started_at=now, stack=(canary, canary), io=io)
    texts: dict[str, Any] = dict.fromkeys(("host", "ip", "status", "version"), canary)
    scenes.report(broker, canary, queues=(canary, "x/"), running=(stack,), jobs={canary: 3}, **texts)
    broker.raw(f"{canary[:40].replace('/', '|')}_timed_set").push(
        [RawItem(param=canary, score=now.timestamp() + 60)]
    )
    pause_queues(broker, [canary, f"{canary}/"])
    broker.pause_tasks([f"a.{canary}"])
    broker.state.put(LIMITS, canary[:90], {"concurrency": 1, "rate": None, "per": 1.0, "source": canary})
    made = add_schedule(
        broker, Definition(name=canary, path=f"a.{canary}", params={canary: canary}, interval=60.0)
    )
    fires = (Fire(at=to_ms(now), job=child), Fire(at=to_ms(now), job=new_id()))
    stored = replace(made, recent=fires, error=canary, pause_reason=canary, paused_at=to_ms(now))
    broker.state.put(SCHEDULES, canary, stored_value(stored))
    audit(broker, canary, canary, canary, {canary: 1})
    save_view(broker, canary, "status:failed")
    argument = ArgumentDescription(name=canary, type=canary, default=canary, default_text=canary)
    publish_task(
        broker,
        TaskDescription(
            path=f"a.{canary}",
            doc=canary,
            arguments=(argument,),
            options={canary: canary},
            file=canary,
            version=canary,
            notices=(canary,),
        ),
    )


@pytest.mark.parametrize("canary", CANARIES)
def test_hostile_text_is_shown_as_text(site: TestClient, client: Client, canary: str) -> None:
    client.broker.prepare()
    put_everywhere(client, canary)
    waiting = [path for path, _, _ in MENU]
    seen: set[str] = set()
    shown: dict[str, int] = {}
    while waiting:
        link = waiting.pop()
        path = urlsplit(link).path
        if link in seen or path.startswith("/api"):
            continue
        seen.add(link)
        assert len(seen) < _MOST_PAGES
        response = site.get(link)
        assert response.status_code in (200, 400, 404), (link, response.status_code)
        page = PageReader(response.text)
        assert page.dangers() == [], link
        kind = path.split("/")[1]
        shown[kind] = shown.get(kind, 0) + " ".join(page.texts).count(canary)
        waiting += [one for one in page.links if one.startswith("/")]
    asking = {"queue", "task", "schedule", "worker", "limit"}  # forms show the name of their thing
    assert all(number > (0 if kind in asking else 2) for kind, number in shown.items() if kind), shown


@pytest.mark.parametrize("canary", CANARIES)
def test_hostile_addresses_are_answered_with_text(site: TestClient, client: Client, canary: str) -> None:
    client.broker.prepare()
    for path, query in (
        ("/jobs", {"q": canary}),
        ("/jobs", {"q": f"{canary}:x"}),
        ("/jobs", {"cursor": canary}),
        ("/queues", {"find": canary}),
        ("/queues", {"name": canary}),
        ("/queues", {canary: "x"}),
        ("/exceptions", {"find": canary}),
        ("/exceptions", {"group": canary}),
        ("/tasks", {"find": canary}),
        ("/schedules", {"name": canary}),
        ("/limits", {"name": canary}),
        (f"/jobs/{canary}", {}),
        (f"/workers/{canary}", {}),
        (f"/tasks/{canary}", {}),
        (f"/nothing/{canary}", {}),
    ):
        response = site.get(path, params=query)
        assert response.status_code < 500
        assert PageReader(response.text).dangers() == [], path
