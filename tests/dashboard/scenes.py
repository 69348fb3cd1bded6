"""Data of a broker for pages: a bad day, and the same with odd text in each field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from mrq_core.client.client import Client
from mrq_core.clock import after, to_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    CHUNK,
    ClaimRequest,
    Limit,
    NewJob,
    Note,
    Outcome,
    RawItem,
    Settlement,
    Wanted,
)
from mrq_core.contract.metrics import ENDED, ERRORS, STARTED, UNFINISHED, Metric, Tags, measured
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import error_group
from mrq_core.ids import new_id
from mrq_core.operations.auditing import audit
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queries.saved_views import save_view
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.schedules import SCHEDULES, Fire, add_schedule, stored_value
from mrq_core.operations.workers import (
    REPORT_TTL,
    WORKERS_NAMESPACE,
    IoCall,
    IoState,
    IoTotal,
    RunningJob,
    WorkerReport,
    report_to_json,
)
from mrq_core.scheduler.definitions import Definition

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/mail.py", line 41, in run
    server.send(message, to=params["to"])
  File "/srv/shop/smtp.py", line 118, in send
    raise Refused(code, text)
shop.smtp.Refused: 451 too many connections from this host
"""
LIMITS = {"partner": Limit(concurrency=2)}
MAIL = "shop.mail.SendReceipt"
REFUSED = "shop.smtp.Refused"
WORKER, DEAD_WORKER = "worker-a.web-1.4120", "worker-b.web-2.977"


def put(broker: Broker, queue: str, path: str = MAIL, *, delay: float | None = None, **fields: Any) -> str:
    """Enqueues a job with these fields of its record, and returns its id."""
    now = broker.now()
    values: dict[str, Any] = {"path": path, "params": {}, "queued_at": now, "updated_at": now, **fields}
    record = JobRecord(id=new_id(), queue=queue, **values)
    return broker.enqueue([NewJob(record=record, delay=delay)])[0].id


def take(
    broker: Broker, queue: str, number: int = 1, *, worker: str = WORKER, **more: Any
) -> list[JobRecord]:
    """Claims up to `number` jobs of a queue."""
    wanted = (Wanted(name=queue),)
    request = ClaimRequest(worker=worker, wanted=wanted, limit=min(number, CHUNK), lease=600.0, **more)
    return list(broker.claim(request).records)


def end(broker: Broker, records: Sequence[JobRecord], status: Status, **outcome: Any) -> None:
    """Settles attempts."""
    ended = Outcome(status=status, ttl=None if status in (Status.RETRY,) else 86_400.0, **outcome)
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=ended) for one in records])


def fail(broker: Broker, records: Sequence[JobRecord], status: Status = Status.FAILED, **more: Any) -> None:
    """Settles attempts with an exception."""
    values: dict[str, Any] = {
        "exception_type": REFUSED,
        "exception_message": "451 too many connections from this host",
        "error_group": error_group(records[0].path, REFUSED, "shop.smtp:send") if records else None,
        "traceback": TRACEBACK,
        "total_time": 0.8,
        **more,
    }
    end(broker, records, status, **values)


def report(broker: Broker, name: str = WORKER, *, silent: float = 0.0, **fields: Any) -> None:
    """Writes the report of a worker, as it wrote it `silent` seconds ago."""
    now = datetime.now(UTC) - timedelta(seconds=silent)
    values: dict[str, Any] = {
        "host": "web-1",
        "ip": "10.0.4.17",
        "pid": 4120,
        "status": "spawn",
        "queues": ("default", "mail"),
        "greenlets": 10,
        "started_at": now - timedelta(hours=5),
        "reported_at": now,
        "jobs": {"success": 48_211, "failed": 967},
        "running": (),
        "unsettled": 0,
        "memory": 212_000_000,
        "cpu_time": 2711.0,
        "cpu": 0.43,
        "usage": 0.61,
        "version": "1.0.0",
        "interval": 10.0,
        "memory_history": tuple(180_000_000 + (index * 7919 % 23) * 2_000_000 for index in range(60)),
        "cpu_history": tuple(0.3 + (index * 31 % 17) / 50 for index in range(60)),
        **fields,
    }
    made = report_to_json(WorkerReport(name=name, **values))
    broker.state.put(WORKERS_NAMESPACE, name, made, ttl=REPORT_TTL - silent)


def bad_day(client: Client, jobs: int = 150) -> dict[str, str]:
    """Two of a hundred mails fail, a queue is paused and grows, a worker is dead, a limit is reached. Returns
    ids of jobs by what is special about them."""
    broker = client.broker
    broker.prepare()
    named = {"mail": _mail(broker, jobs), **_running(broker), **_parked(broker)}
    long_ago = after(broker.now(), -1800.0)
    for number in range(40):
        put(broker, "reports/daily", "shop.reports.Daily", params={"day": number}, due_at=long_ago)
    pause_queues(broker, ["reports/"])
    for delay in (30.0, 900.0, 86_000.0):
        named["later"] = put(broker, "default", "shop.carts.Expire", delay=delay, params={"cart": 2**63 - 1})
    named["long"] = put(broker, "x" * 200, "shop.names.Long", params={"name": "🦄" * 30})
    named["rtl"] = put(broker, "ارسال/البريد \u202e gnp.exe", "shop.names.Mirrored")
    now = broker.now().timestamp()
    items = [RawItem(param=f"https://example.com/{n}", score=now + n * n * 3.0) for n in range(120)]
    broker.raw("crawl_timed_set").push(items)
    broker.raw("import_raw").push([RawItem(param="2026-01-02.csv")])
    report(broker, WORKER, running=(_job_of(broker, named["running"]),), running_jobs=3)
    report(broker, DEAD_WORKER, silent=400.0, host="web-2", pid=977, queues=("partner",), status="full")
    report(broker, "worker-c.web-3.31", host="web-3", pid=31, queues=("carts/", "default"), status="wait")
    report(broker, "worker-d.web-3.32", host="web-3", pid=32, status="stop", queues=("mail",))
    _schedules(broker)
    _metrics(broker)
    save_view(broker, "mails that fail", "path:shop.mail.* status:failed")
    audit(broker, "anna", "pause", "queue reports/", {"done": 1})
    audit(broker, "ben", "requeue", "status:failed queue:mail", {"done": 1204, "refused": 3})
    return named


def _mail(broker: Broker, jobs: int) -> str:
    for number in range(jobs):
        put(broker, "mail", params={"to": f"customer-{number}@example.com", "order": 10_000 + number})
    records = take(broker, "mail", jobs)
    failing = records[:: max(1, jobs // 4)]
    fail(broker, failing[1:])
    again = failing[:1]
    for _ in range(2):
        fail(broker, again, Status.RETRY, delay=0.0, is_retry=True)
        again = take(broker, "mail")
        lines = [
            LogLine(
                job_id=again[0].id,
                attempt=again[0].claims,
                seq=seq,
                at=broker.now(),
                level=level,
                message=text,
            )
            for seq, (level, text) in enumerate(
                (("INFO", "connecting to smtp-2"), ("WARNING", "421 try again later"), ("ERROR", "giving up"))
            )
        ]
        broker.append_logs(lines, 100_000)
    fail(broker, again, Status.MAXRETRIES)
    end(
        broker,
        [one for one in records if one not in failing],
        Status.SUCCESS,
        result={"sent": True},
        total_time=0.2,
    )
    for number in range(25):
        put(broker, "mail", params={"to": f"late-{number}@example.com"})
    return again[0].id


def _running(broker: Broker) -> dict[str, str]:
    parent = put(broker, "default", "shop.carts.Close", params={"cart": 7, "api_key": "s3cret"})
    [record] = take(broker, "default")
    child = put(broker, "default", "shop.carts.Notify", parents=(parent,))
    running = put(broker, "default", "shop.images.Resize", params={"image": "a.png"})
    end(broker, [record], Status.SUCCESS, result={"closed": 2**63 - 1})
    taken = take(broker, "default", 2)
    broker.annotate([Note(id=one.id, token=one.token or "", progress=0.42) for one in taken])
    return {"parent": parent, "child": child, "running": running}


def _parked(broker: Broker) -> dict[str, str]:
    for _ in range(2):
        put(broker, "partner", "shop.partner.Sync", limit_keys=("partner:acme",))
    holders = take(broker, "partner", 2, worker=DEAD_WORKER, limits=LIMITS)
    set_limit(broker, "partner", concurrency=2)
    earlier = after(broker.now(), -720.0)
    ids = [
        put(broker, "partner", "shop.partner.Sync", limit_keys=("partner:acme",), queued_at=earlier)
        for _ in range(5)
    ]
    assert take(broker, "partner", 5, limits=LIMITS) == []
    return {"holder": holders[0].id, "parked": ids[0]}


def _job_of(broker: Broker, job_id: str) -> RunningJob:
    stack = ('File "/srv/shop/images.py", line 12, in run', 'File "/srv/shop/images.py", line 77, in resize')
    started = broker.now() - timedelta(seconds=95)
    get = IoCall(kind="http", text="GET https://images.example.com/originals/88214.jpg", seconds=41.2)
    io = IoState(calls=(get,), totals={"http": IoTotal(calls=3, seconds=12.4)})
    return RunningJob(id=job_id, path="shop.images.Resize", started_at=started, age=95.0, stack=stack, io=io)


def _schedules(broker: Broker) -> None:
    now = to_ms(broker.now())
    add_schedule(broker, Definition(name="nightly", path="shop.reports.Daily", dailytime="02:30"))
    made = add_schedule(
        broker, Definition(name="carts", path="shop.carts.Expire", interval=900.0, pause_after=3)
    )
    job = put(broker, "default", "shop.carts.Expire", schedule="carts")
    stored = replace(
        made,
        recent=(Fire(at=now - 900_000, job=new_id()), Fire(at=now - 1000, job=job)),
        fired=412,
        missed=3,
        paused_at=now - 60_000,
        pause_reason="3 failures in a row",
    )
    broker.state.put(SCHEDULES, "carts", stored_value(stored))


def _mail_tags(**more: str) -> Tags:
    return tuple(sorted({"queue": "mail", "task": MAIL, **more}.items()))


def _metrics(broker: Broker) -> None:
    now = broker.now()
    made: list[Metric] = []
    group = error_group(MAIL, REFUSED, "shop.smtp:send")
    for minute in range(180):
        at = after(now, -60.0 * minute)
        number = 40 + (minute * 37) % 25
        made.append(measured(STARTED, at, _mail_tags(), [0.05 + minute % 7 / 10] * number))
        made.append(measured(ENDED, at, _mail_tags(status="success"), [0.1 + minute % 5 / 20] * number))
        if minute < 45:
            made.append(measured(ENDED, at, _mail_tags(status="failed"), [0.8, 1.2]))
            made.append(Metric(name=ERRORS, at=at, tags=(("group", group), ("task", MAIL)), count=2))
        for queue, size in (("mail", 25 + minute % 9), ("reports/daily", max(0, 40 - minute))):
            made.append(measured(UNFINISHED, at, (("queue", queue),), [float(size)]))
    for start in range(0, len(made), 200):
        broker.record_metrics(made[start : start + 200])
