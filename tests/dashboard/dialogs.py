"""Each dialog of the dashboard: how a person comes to it, what fills it, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from msgspec.structs import replace

from mrq_core.client.client import Client
from mrq_core.clock import after
from mrq_core.contract.messages import RawItem, Requeue
from mrq_core.operations.bulk.bulk_actions import BULK_NAMESPACE, Bulk, BulkStatus, StoredChange
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queries.saved_views import save_view
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.schedules import add_schedule
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.scheduler.definitions import Definition
from mrq_core.tasks.describing import ArgumentDescription, TaskDescription
from tests.dashboard import scenes
from tests.dashboard.browsing import Tab, dialog_of, fill


class Names(NamedTuple):
    """The names of things in a scene."""

    queue: str
    tree: str
    task: str
    schedule: str
    limit: str
    worker: str
    view: str
    text: str


PLAIN = Names(
    queue="mail", tree="reports/", task="shop.mail.SendReceipt", schedule="nightly", limit="partner",
    worker="worker-a.web-1.4120", view="mails that fail", text="451 too many connections from this host",
)  # fmt: skip
_ODD = "ارسال 🦄 <b>bold</b> \u202e "
HOSTILE = Names(
    queue=(_ODD + "a-queue-whose-name-has-no-end-" * 7)[:200],
    tree="بريد/" + "deep/" * 38,
    task=("shop.مهام." + "ATaskWhoseNameHasNoEnd" * 10)[:200],
    schedule=("ليلي 🦄 <b>" + "each_night_" * 20)[:100],
    limit=("شريك 🦄 <b>" + "partner-" * 30)[:100],
    worker=("worker-" + "w" * 200)[:190] + ".web-1.4120",
    view=("طلبات 🦄 <b>" + "a view " * 20)[:99] + "x",
    text=(_ODD + "an error that goes on and on " * 12)[:300],
)  # fmt: skip


class Scene(NamedTuple):
    """A client of the broker, and the names of the things that dialogs are about."""

    client: Client
    names: Names


class Dialog(NamedTuple):
    """A dialog. `make` prepares the broker, and returns the page; `link` selects its button there. `fields`
    fill it, and `wrong` fill it so that it is refused. `before` is done on the page first."""

    name: str
    endpoint: str
    make: Callable[[Scene], str]
    link: str = ""
    fields: Mapping[str, str] = {}
    wrong: Mapping[str, str] = {}
    before: Callable[[Tab], None] = lambda tab: None
    is_possible: bool = True

    def open(self, tab: Tab, scene: Scene) -> Any:
        """Opens the page and the dialog, which it returns."""
        tab.open(self.make(scene))
        self.before(tab)
        tab.page.locator(self.link or f'main a[data-dialog][href*="{self.endpoint}"]').first.click()
        return dialog_of(tab)

    def fill(self, tab: Tab, fields: Mapping[str, str]) -> Any:
        return fill(tab, **fields)


# --- what dialogs are about -----------------------------------------------------------------------------


def _page(path: str, **query: str) -> str:
    return f"{quote(path)}?{urlencode(query)}" if query else quote(path)


def _job(scene: Scene, *, status: str = "waiting") -> str:
    broker, names = scene.client.broker, scene.names
    queue = names.queue if status == "waiting" else f"{names.queue[:190].strip()}/{status}"
    params = {"to": "anna@example.com", names.text[:40]: names.text, "api_key": "s3cret", "n": 2**63 - 1}
    job_id = scenes.put(broker, queue, names.task, params=params)
    if status != "waiting":
        taken = [one for one in scenes.take(broker, queue, 1000, worker=names.worker) if one.id == job_id]
        if status == "failed":
            scenes.fail(broker, taken, exception_message=names.text)
    return job_id


def _of_job(status: str, scene: Scene) -> str:
    return f"/jobs/{_job(scene, status=status)}"


def _jobs(query: str, scene: Scene) -> str:
    for status in ("failed", "failed", "waiting"):
        _job(scene, status=status)
    return _page("/jobs", q=query)


def _queue(scene: Scene) -> str:
    _job(scene)
    return _page("/queues", name=scene.names.queue)


def _paused_queue(scene: Scene) -> str:
    pause_queues(scene.client.broker, [scene.names.queue])
    return _queue(scene)


def _raw_queue(scene: Scene) -> str:
    name = f"{scene.names.queue.replace('/', '|')[:190]}_raw"
    scene.client.broker.raw(name).push([RawItem(param="2026-01-02.csv")])
    return _page("/queues", name=name)


def _task(scene: Scene) -> str:
    arguments = (
        ArgumentDescription(name="user_id", type="int", schema={"type": "integer"}, required=True),
        ArgumentDescription(
            name="mode", type='"fast" | "slow"', schema={"enum": ["fast", "slow"]}, default="slow"
        ),
        ArgumentDescription(name="note", type="str", default=scene.names.text),
    )
    described = TaskDescription(
        path=scene.names.task, file="/srv/shop/mail.py", line=12, version="1", arguments=arguments,
        doc="Sends a receipt.",
    )  # fmt: skip
    publish_task(scene.client.broker, described)
    return f"/tasks/{quote(scene.names.task)}"


def _schedule(scene: Scene) -> str:
    names = scene.names
    one = Definition(name=names.schedule, path=names.task, interval=5400.0, params={"note": names.text})
    add_schedule(scene.client.broker, one, replaces=True)
    return _page("/schedules", name=names.schedule)


def _worker(scene: Scene) -> str:
    scenes.report(scene.client.broker, scene.names.worker)
    return f"/workers/{quote(scene.names.worker, safe='')}"


def _limits(scene: Scene) -> str:
    set_limit(scene.client.broker, scene.names.limit, concurrency=2, rate=1.5, per=90.0)
    return "/limits"


def _exceptions(scene: Scene) -> str:
    _job(scene, status="failed")
    return "/exceptions"


def _view(scene: Scene) -> str:
    save_view(scene.client.broker, scene.names.view, "status:failed")
    return _page("/jobs", q="status:failed")


def bulks(scene: Scene) -> str:
    """The page of bulk actions: one that runs, and some that have ended in each way."""
    broker = scene.client.broker
    now = broker.now()
    base = Bulk(
        id="", who=scene.names.view, change=StoredChange.of(Requeue()),
        text=f"status:failed {scene.names.text}", begun_at=after(now, -95.0), updated_at=now,
        expected=1_000_000, lease_until=after(now, 3600.0), owner="x",
        changes={"done": 412_000, "refused": 31},
    )  # fmt: skip
    ended = after(now, -5.0)
    made = (
        base,
        replace(base, stop_by=scene.names.view),
        replace(base, status=BulkStatus.DONE, ended_at=ended, change=replace(base.change, verb="cancel")),
        replace(base, status=BulkStatus.STOPPED, ended_at=ended, stop_by="ben", unsure=400),
        replace(base, status=BulkStatus.FAILED, ended_at=ended, error=scene.names.text, is_counted=False),
    )
    for number, one in enumerate(made):
        stored = replace(one, id=f"{number:024x}")
        broker.state.put(BULK_NAMESPACE, stored.id, msgspec.json.decode(msgspec.json.encode(stored)))
    return "/jobs/bulk"


def _pick_two(tab: Tab) -> None:
    for index in range(2):
        tab.page.locator('input[name="ids"][form="bulk"]').nth(index).check()


def _pick_all(tab: Tab) -> None:
    tab.page.locator("input[data-all]").check()


def _verb(verb: str) -> str:
    return f'.bulk-bar button[value="{verb}"]'


_BULK = "/jobs/bulk/new"
_failed_jobs, _waiting_jobs = partial(_jobs, "status:failed"), partial(_jobs, "status:queued")
_failed, _waiting, _running = (partial(_of_job, one) for one in ("failed", "waiting", "running"))
RAW = "import_raw"
DIALOGS = (
    Dialog(
        "job-requeue",
        "/jobs/{id}/requeue",
        _failed,
        'main .head a[href$="/requeue"]',
        {"queue": "again"},
        {"queue": RAW},
    ),
    Dialog("job-cancel", "/jobs/{id}/cancel", _waiting, 'main .head a[href$="/cancel"]'),
    Dialog(
        "job-cancel-running",
        "/jobs/{id}/cancel",
        _running,
        'main .head a[href$="/cancel"]',
        {"interrupt": "true"},
    ),
    Dialog(
        "job-move",
        "/jobs/{id}/move",
        _waiting,
        'main .head a[href$="/move"]',
        {"queue": "again"},
        {"queue": RAW},
    ),
    Dialog(
        "job-priority", "/jobs/{id}/priority", _waiting, 'main .head a[href$="/priority"]', {"priority": "3"}
    ),
    Dialog(
        "job-edit",
        "/jobs/{id}/edit",
        _waiting,
        'main .head a[href$="/edit"]',
        {"params": '{"n": 1}', "delay": "15m"},
        {"params": '{"n": '},
    ),
    Dialog(
        "job-rerun",
        "/jobs/{id}/rerun",
        _failed,
        'main .head a[href$="/rerun"]',
        {"params": '{"n": 1}'},
        {"params": "[1]"},
    ),
    Dialog("job-remove", "/jobs/{id}/remove", _failed, 'main .head a[href$="/remove"]'),
    Dialog(
        "bulk-requeue", _BULK, _failed_jobs, _verb("requeue"), {"queue": "again"}, {"queue": RAW}, _pick_all
    ),
    Dialog("bulk-requeue-selected", _BULK, _failed_jobs, _verb("requeue"), before=_pick_two),
    Dialog("bulk-cancel", _BULK, partial(_jobs, "queue:*"), _verb("cancel"), before=_pick_all),
    Dialog("bulk-move", _BULK, _waiting_jobs, _verb("move"), {"queue": "again"}, {"queue": RAW}, _pick_all),
    Dialog("bulk-priority", _BULK, _waiting_jobs, _verb("priority"), {"priority": "-2"}, {}, _pick_all),
    Dialog("bulk-remove", _BULK, _failed_jobs, _verb("remove"), before=_pick_all),
    Dialog("bulk-nothing-selected", _BULK, _failed_jobs, _verb("requeue"), is_possible=False),
    Dialog("bulk-nothing-possible", _BULK, _failed_jobs, _verb("move"), before=_pick_all, is_possible=False),
    Dialog("exceptions-requeue", _BULK, _exceptions, 'main td a[href*="action=requeue"]'),
    Dialog("exceptions-remove", _BULK, _exceptions, 'main td a[href*="action=remove"]'),
    Dialog("queue-pause", "/queue/pause", _queue, fields={"duration": "15m"}, wrong={"duration": "soon"}),
    Dialog(
        "queue-pause-until",
        "/queue/pause",
        _queue,
        fields={"until": "2040-01-31T12:00"},
        wrong={"until": "2020-01-31T12:00"},
    ),
    Dialog(
        "queue-pause-change",
        "/queue/pause",
        _paused_queue,
        fields={"duration": "2h"},
        wrong={"duration": "1h", "until": "2040-01-31T12:00"},
    ),
    Dialog("queue-move", "/queue/move", _queue, fields={"to": "again"}, wrong={"to": RAW}),
    Dialog("queue-purge", "/queue/purge", _queue),
    Dialog("queue-purge-raw", "/queue/purge", _raw_queue),
    Dialog("task-pause", "/task/pause", _task, fields={"duration": "15m"}, wrong={"duration": "soon"}),
    Dialog(
        "task-queue",
        "/task/queue",
        _task,
        fields={"argument.user_id": "7", "argument.mode": '"fast"'},
        wrong={"argument.user_id": "seven"},
    ),
    Dialog(
        "schedule-add",
        "/schedule/add",
        lambda scene: "/schedules",
        fields={"path": "a.B", "interval": "15m"},
        wrong={"path": "a.B", "cron": "* * *"},
    ),
    Dialog("schedule-edit", "/schedule/edit", _schedule, fields={"interval": "2h"}, wrong={"params": "{"}),
    Dialog("schedule-pause", "/schedule/pause", _schedule, fields={"why": "stock-taking"}),
    Dialog(
        "schedule-backfill", "/schedule/backfill", _schedule, fields={"start": "5h"}, wrong={"start": "never"}
    ),
    Dialog("schedule-delete", "/schedule/delete", _schedule),
    Dialog("worker-profile", "/worker/profile", _worker, fields={"task": "a.B"}, wrong={"task": "a b"}),
    Dialog("worker-drain", "/worker/drain", _worker),
    Dialog("worker-stop", "/worker/stop", _worker, fields={"now": "true"}),
    Dialog(
        "limit-set",
        "/limit/set",
        lambda scene: "/limits",
        fields={"name": "api", "concurrency": "5"},
        wrong={"name": "api"},
    ),
    Dialog(
        "limit-change",
        "/limit/set",
        _limits,
        'main td a[href*="/limit/set"]',
        {"rate": "2"},
        {"rate": "fast"},
    ),
    Dialog("limit-remove", "/limit/remove", _limits),
)


class Place(NamedTuple):
    """A form or part that is no dialog: its page, and what opens it."""

    name: str
    make: Callable[[Scene], str]
    open: Callable[[Tab], None] = lambda tab: None


def _open_details(tab: Tab) -> None:
    tab.page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")


def _suggest(tab: Tab) -> None:
    tab.page.locator("#query").fill("")
    tab.page.locator("#query").type("sta")
    tab.page.locator(".suggestions li").first.wait_for()
    tab.page.keyboard.press("ArrowDown")


PLACES = (
    Place("view-save", partial(_jobs, "status:failed queue:*"), _open_details),
    Place("view-saved", _view),
    Place("suggestions", _failed_jobs, _suggest),
    Place("bulk-progress", bulks),
    Place("job-command", _failed, _open_details),
    Place("exceptions", _exceptions),
    Place("queue-paused", _paused_queue),
    Place("keys", lambda scene: "/", lambda tab: tab.page.keyboard.press("?")),
)
