"""The story of golden data: jobs in every state, written by one version and read by all later versions.

`fill` writes it, `observed` is what a reader sees of it, and `work_on` goes on with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.lifecycle import make_token
from mrq_core.contract.messages import (
    Cancel,
    ChangeResult,
    ClaimRequest,
    Limit,
    NewJob,
    Note,
    Outcome,
    RawItem,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.metrics import Metric, Resolution, buckets_of
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.contract.terms import words_of
from mrq_core.testing.clock import ManualClock

LEASE = 600.0
LIMITS = {"one": Limit(concurrency=1), "slow": Limit(rate=1.0, per=100.0)}
QUEUES = ["default", "failing", "lost", "limited", "rated", "tree/a", "tree/b", "next", "running", "raw"]
RAW = ("items_raw", "items_set", "items_sorted_set", "items_timed_set")
KEYS: JsonObject = {"user": 6, "name": "größe"}
ERROR: dict[str, Any] = {
    "exception_type": "golden.Error",
    "exception_message": "Größe 7 is missing",
    "error_group": "golden.Task golden.Error golden:Task.run",
}
TTL = 1e9
"""Seconds. The servers' own clocks must not reach the end of it, whatever the injected clock says."""


GONE = ("alone", "lost_alone")
"""Fields of records that earlier versions wrote. `alone`: the claim of a suspect, alone in its worker."""


def _id(number: int) -> str:
    return f"68517d8000000000{number:08x}"


def _job(clock: ManualClock, number: int, queue: str = "default", **more: Any) -> NewJob:
    fields = {name: more.pop(name) for name in list(more) if name not in ("unique", "delay")}
    record = JobRecord(
        id=_id(number),
        path=fields.pop("path", "golden.Task"),
        params=fields.pop("params", {"n": number, "text": "größe", "$ref": {"a.b": [1, 2.5, None, True]}}),
        queue=queue,
        queued_at=clock.now(),
        updated_at=clock.now(),
        **fields,
    )
    return NewJob(record=record, **more)


def claimed_from(broker: Broker, queue: str, limit: int = 1, worker: str = "golden.1") -> list[JobRecord]:
    """Claims due jobs of a queue."""
    request = ClaimRequest(
        worker=worker,
        wanted=(Wanted(name=queue),),
        limit=limit,
        lease=LEASE,
        limits=LIMITS,
    )
    return list(broker.claim(request).records)


def _settle(broker: Broker, record: JobRecord, status: Status, **more: Any) -> None:
    ends = {"ttl": TTL, "cancel_ttl": TTL, "total_time": 1.5, **more}
    outcome = Outcome(status=status, **ends)
    assert broker.settle([Settlement(id=record.id, token=record.token or "", outcome=outcome)]) == [True]


def fill(broker: Broker, clock: ManualClock) -> None:
    """Writes the story into an empty broker."""
    broker.prepare()
    broker.enqueue([_job(clock, n) for n in range(4)])
    broker.enqueue(
        [
            _job(clock, 4, priority=3),
            _job(clock, 5, delay=1e6),
            _job(clock, 6, schedule="daily", search_keys=KEYS),
        ]
    )
    broker.enqueue(
        [
            _job(clock, 10, unique=Unique(key="until queued", until="queued")),
            _job(clock, 11, unique=Unique(key="until done")),
            _job(clock, 12, unique=Unique(key="a period", until="period", period=1e6)),
        ]
    )
    for number, status in enumerate((Status.FAILED, Status.TIMEOUT, Status.ABORT, Status.MAXRETRIES), 20):
        broker.enqueue([_job(clock, number, "failing")])
        [record] = claimed_from(broker, "failing")
        _settle(broker, record, status, **ERROR, traceback=f"Traceback: {status}\n")
    broker.enqueue([_job(clock, 24, "failing")])
    for _ in range(2):
        [record] = claimed_from(broker, "failing")
        _settle(broker, record, Status.RETRY, delay=10.0, is_retry=True, **ERROR)
        clock.advance(10.0)
    broker.enqueue([_job(clock, 25, "failing", priority=1)])
    [record] = claimed_from(broker, "failing")
    _settle(broker, record, Status.SUCCESS, result={"sum": [1, "größe"]})
    broker.cancel([_id(3)], Cancel(ttl=TTL))
    broker.enqueue([_job(clock, 26, "failing", at_most_once=True, priority=2)])
    [record] = claimed_from(broker, "failing")
    _settle(broker, record, Status.INTERRUPT)
    # A lost claim, and the attempt that runs after it.
    broker.enqueue([_job(clock, 30, "lost")])
    claimed_from(broker, "lost")
    clock.advance(LEASE)
    claimed_from(broker, "lost", worker="golden.2")
    broker.append_logs(
        [
            LogLine(job_id=_id(30), attempt=2, seq=n, at=clock.now(), level="INFO", message=f"line {n} größe")
            for n in range(1, 4)
        ],
        max_size=10_000,
    )
    # Limits: one runs and one is parked; one had its turn and one waits for it.
    broker.enqueue([_job(clock, n, "limited", limit_keys=("one:x",)) for n in (40, 41)])
    claimed_from(broker, "limited", limit=2)
    broker.enqueue([_job(clock, n, "rated", limit_keys=("slow",)) for n in (42, 43)])
    claimed_from(broker, "rated", limit=2)
    broker.enqueue([_job(clock, n, f"tree/{name}") for n, name in ((50, "a"), (51, "a"), (52, "b"))])
    # Follow-ups, a cancel request, progress.
    broker.enqueue([_job(clock, n, "running") for n in (60, 61)])
    first, second = claimed_from(broker, "running", limit=2)
    followup = _job(clock, 62, "next", parents=(first.id,), delay=5.0, unique=Unique(key="followed"))
    _settle(broker, first, Status.SUCCESS, followups=(followup,))
    assert broker.annotate([Note(id=second.id, token=second.token or "", progress=0.25)]) == [True]
    assert broker.cancel([second.id], Cancel(interrupt=True, ttl=TTL)) == [ChangeResult.REQUESTED]
    # Raw queues: of each kind one parameter under a lease, one that became a job, and two that wait.
    for number, name in enumerate(RAW):
        raw = broker.raw(name)
        score = clock.now_ms() / 1000 - 10
        raw.push([RawItem(param=f"p{n}", score=score + n if "sorted" in name or "timed" in name else None)
                  for n in range(4)])  # fmt: skip
        raw.claim(1, LEASE, "golden.1")
        [claim] = raw.claim(1, LEASE, "golden.1")
        record = _job(clock, 70 + number, "raw", raw_queue=name).record
        assert raw.admit([(claim, record)], LEASE) == [True]
    state = broker.state
    state.put("golden", "text", {"value": ["größe", 1]})
    state.put("golden", "later", 2, ttl=TTL)
    assert state.compare_and_set("golden", "text", "new", version=state.put("golden", "text", 1).version)
    assert state.add("golden", "count", 5) == 5
    broker.pause(["failing", "tree/"])
    tags = (("queue", "größe"), ("task", "golden.Task"))
    values = [2.5, 0.25]
    broker.record_metrics(
        [
            Metric(name="jobs", at=clock.now(), tags=tags, count=2, total=2.75, buckets=buckets_of(values)),
            Metric(name="lost", at=clock.now(), count=3),
        ]
    )


def observed(broker: Broker, clock: ManualClock) -> dict[str, Any]:
    """Everything that a reader sees, as JSON values. Ids and tokens that the broker made are left out."""
    numbers = [*range(7), *range(10, 13), *range(20, 27), 30, *range(40, 44), *range(50, 53), *range(60, 63)]
    ids = [_id(n) for n in numbers]
    page = broker.find(JobFilter(), limit=200)
    return {
        "jobs": {job_id: _shown(record) for job_id, record in zip(ids, broker.get(ids), strict=True)},
        "raw jobs": sorted(str(record.raw_queue) for record in page.records if record.raw_queue),
        "found": len(page.records),
        "by status": {str(status): n for status, n in sorted(broker.totals().by_status().items()) if n},
        "by group": broker.count(JobFilter(), "error_group").numbers,
        "by word": broker.count(JobFilter(error_words=tuple(words_of("GRÖSSE 7")))).numbers,
        "by key": [one.id for one in broker.find(JobFilter(search_keys=KEYS)).records],
        "by exception": broker.count(JobFilter(), "exception_type").numbers,
        "scheduled": [one.id for one in broker.find(JobFilter(schedules=("daily",))).records],
        "counts": [msgspec.to_builtins(counts) for counts in broker.counts(QUEUES)],
        "queue names": [name for name in broker.queue_names() if "items" not in name],
        "log": [(line.attempt, line.seq, line.message) for line in broker.read_logs(_id(30)).lines],
        "state": {item.name: item.value for item in broker.state.list("golden")},
        "paused": sorted(broker.paused()),
        "interrupts": list(broker.poll("golden.1", Versions()).interrupts),
        "metrics": [_measured(broker, clock, resolution) for resolution in Resolution],
        "raw": {name: (broker.raw(name).size(), len(broker.raw(name).peek(10))) for name in RAW},
    }


def _measured(broker: Broker, clock: ManualClock, resolution: Resolution) -> list[Any]:
    now = clock.now()
    return [
        [m.name, list(map(list, m.tags)), m.count, m.total, sorted(map(list, m.buckets.items()))]
        for m in broker.read_metrics(["jobs", "lost"], after(now, -7200), after(now, 60), resolution)
    ]


def without_gone_fields(observed: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version observed, without the fields of a record that this version ignores. Version 1
    had no terms, and its metrics, which no worker recorded, are deleted."""
    jobs = {
        job_id: shown and {name: value for name, value in shown.items() if name not in GONE}
        for job_id, shown in observed["jobs"].items()
    }
    now = {"by group": {}, "by word": {"": 0}, "by key": [], **observed, "jobs": jobs}
    return now if "by group" in observed else {**now, "metrics": [[], []]}


def _shown(record: JobRecord | None) -> Any:
    shown = msgspec.to_builtins(record)
    if isinstance(shown, dict):
        for attempt in (shown, *shown.get("history", ())):
            if "token" in attempt:
                attempt["token"] = attempt["token"].partition(".")[0]
    return shown


def work_on(broker: Broker, clock: ManualClock) -> None:
    """Goes on with the story: running attempts are settled, waiting jobs run, and every rule still holds."""
    # Keys are held as they were.
    held = [NewJob(record=_job(clock, 90 + n).record, unique=Unique(key=key))
            for n, key in enumerate(("until queued", "until done", "a period", "followed"))]  # fmt: skip
    holders = [answer.id for answer in broker.enqueue(held)]
    assert holders == [_id(10), _id(11), _id(12), _id(62)]
    # The claim that was lost is refused, and the running one is accepted, and answers a repetition.
    [lost] = broker.get([_id(30)])
    assert lost is not None
    assert lost.lost_claims == 1
    late = Settlement(id=lost.id, token=make_token(1, "0"), outcome=Outcome(status=Status.SUCCESS, ttl=TTL))
    assert broker.settle([late]) == [False]
    for _ in range(2):
        _settle(broker, lost, Status.SUCCESS)
    # A settle lets the parked job go; the rate still holds the other one back.
    [limited] = broker.get([_id(40)])
    assert limited is not None
    _settle(broker, limited, Status.SUCCESS)
    assert [record.id for record in claimed_from(broker, "limited", limit=5)] == [_id(41)]
    assert claimed_from(broker, "rated", limit=5) == []
    clock.advance(100.0)
    assert [record.id for record in claimed_from(broker, "rated", limit=5)] == [_id(43)]
    # A requested cancel wins; a failed job runs again; the follow-up is due.
    [asked] = broker.get([_id(61)])
    assert asked is not None
    _settle(broker, asked, Status.RETRY, delay=1.0, is_retry=True)
    assert broker.get([_id(61)])[0].status is Status.CANCEL  # type: ignore[union-attr]
    assert broker.requeue([_id(20), _id(26)], Requeue()) == [ChangeResult.DONE] * 2
    assert [record.id for record in claimed_from(broker, "failing", limit=9)] == [_id(26), _id(24), _id(20)]
    assert [record.id for record in claimed_from(broker, "next", limit=9)] == [_id(62)]
    assert {record.id for record in claimed_from(broker, "tree/", limit=9)} == {_id(50), _id(51), _id(52)}
    assert [record.id for record in claimed_from(broker, "default", limit=1)] == [_id(4)]
    # Raw parameters keep their leases, and are delivered again after them.
    for name in RAW:
        raw = broker.raw(name)
        assert raw.size() == 2
        assert len(raw.claim(9, LEASE, "golden.3")) == 2
    clock.advance(LEASE * 2)
    for name in RAW:
        assert (
            len([claim for claim in broker.raw(name).claim(9, LEASE, "golden.3") if claim.redelivered]) == 3
        )
    state = broker.state
    assert state.add("golden", "count", 1) == 6
    broker.resume(["tree/"])
    assert broker.paused() == {"failing"}
    clock.advance(TTL * 2)
    while broker.prune():
        pass
    assert broker.get([_id(1)])[0] is not None
    assert broker.get([_id(21)]) == [None]
