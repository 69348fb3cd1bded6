"""Examples of the actions on queues, tasks, schedules, workers and limits, for the tests of all actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mrq_core.client.client import Client
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queues import pause_queues, pause_tasks
from mrq_core.operations.schedules import add_schedule, pause_schedules
from mrq_core.scheduler.definitions import definition_from
from tests.dashboard import scenes

ODD = "a/pause <b>/é 🦄"
PATH = "shop.mail.Send"
SCHEDULE = "nightly/<i>"
WORKER = "web.host.1"

Make = Callable[[Client], dict[str, str]]


def a_queue(client: Client) -> dict[str, str]:
    client.queue_job("a.B", queue=ODD)
    return {"name": ODD}


def a_paused_queue(client: Client) -> dict[str, str]:
    pause_queues(client.broker, [ODD])
    return a_queue(client)


def a_task(client: Client) -> dict[str, str]:
    return {"path": PATH}


def a_paused_task(client: Client) -> dict[str, str]:
    pause_tasks(client.broker, [PATH])
    return {"path": PATH}


def a_schedule(client: Client) -> dict[str, str]:
    definition = definition_from({"path": PATH, "name": SCHEDULE, "interval": 3600})
    add_schedule(client.broker, definition, replaces=True)
    return {"name": SCHEDULE}


def a_paused_schedule(client: Client) -> dict[str, str]:
    found = a_schedule(client)
    pause_schedules(client.broker, [SCHEDULE])
    return found


def a_worker(client: Client) -> dict[str, str]:
    scenes.report(client.broker, WORKER)
    return {"name": WORKER}


def a_limit(client: Client) -> dict[str, str]:
    set_limit(client.broker, "api", concurrency=2)
    return {}


def nothing(client: Client) -> dict[str, str]:
    return {}


_QUEUE, _TASK, _SCHEDULE, _WORKER = {"name": ODD}, {"path": PATH}, {"name": SCHEDULE}, {"name": WORKER}
ROOMS: dict[str, tuple[dict[str, Any], Make]] = {
    "/queue/pause": ({**_QUEUE, "duration": "15m"}, a_queue),
    "/queue/resume": (_QUEUE, a_paused_queue),
    "/queue/move": ({**_QUEUE, "to": "elsewhere"}, a_queue),
    "/queue/purge": (_QUEUE, a_queue),
    "/task/pause": ({**_TASK, "until": "2040-01-31T12:00"}, a_task),
    "/task/resume": (_TASK, a_paused_task),
    "/task/queue": ({**_TASK, "params": '{"to": "<b>"}'}, a_task),
    "/schedule/run": (_SCHEDULE, a_schedule),
    "/schedule/pause": ({**_SCHEDULE, "why": "<b>stock</b>"}, a_schedule),
    "/schedule/resume": (_SCHEDULE, a_paused_schedule),
    "/schedule/backfill": ({**_SCHEDULE, "start": "5h"}, a_schedule),
    "/schedule/edit": ({**_SCHEDULE, "path": PATH, "dailytime": "08:30"}, a_schedule),
    "/schedule/delete": (_SCHEDULE, a_schedule),
    "/schedule/add": ({"path": PATH, "cron": "*/5 * * * *", "params": '{"a": 1}'}, nothing),
    "/worker/stop": (_WORKER, a_worker),
    "/worker/drain": (_WORKER, a_worker),
    "/worker/profile": ({**_WORKER, "task": PATH}, a_worker),
    "/limit/set": ({"name": "api", "concurrency": 3}, nothing),
    "/limit/remove": ({"name": "api"}, a_limit),
}
"""Inputs by the path of the page's endpoint; what prepares the broker and returns the parts of the path."""
