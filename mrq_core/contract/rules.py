"""Rules that all workers obey, and requests to one worker, as values of shared state.

| namespace | name | value |
|---|---|---|
| `pauses` | a queue or tree | {since, until} in Unix milliseconds; the value expires with the pause |
| `paused_tasks` | the path of a task | the same |
| `limits` | a limit rule | {concurrency, rate, per, source} |
| `requests` | a worker | the requests that it has to answer: [{id, kind, args, expires}] |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import Limit
from mrq_core.contract.plain import number_of, text_of, whole_of
from mrq_core.contract.shared_state import Pause, Rules, StateItem, Versions, WorkerRequest
from mrq_core.errors import InvalidValue, shown

PAUSED_QUEUES = "pauses"
PAUSED_TASKS = "paused_tasks"
LIMITS = "limits"
REQUESTS = "requests"
NAMESPACES = (PAUSED_QUEUES, PAUSED_TASKS, LIMITS)
"""The namespaces that `poll` watches."""
TASK_RULE = "task"
"""A name that no limit rule may have. The jobs of a paused task are parked under ``task:<path>``."""
OVERLAP_RULE = "schedules"
"""A name that no limit rule may have. One job runs at a time under each key ``schedules:<name>``, whatever
rules a claim is given: overlap policies of schedules need that."""
RATE_HORIZON_MS = 60_000
"""How far ahead, in milliseconds, a claim reserves the start of a job under a rate. A job whose rate lets it
start later is parked, so that a changed rate holds for the job."""
RATE_MOST, SPACING_MOST = 1e6, 1e8
"""The largest rate of a limit, and the longest time between two starts under a limit, in seconds."""
_RESERVED = (TASK_RULE, OVERLAP_RULE)
_NAME_MAX = 100
_PER = 1.0
"""Seconds: the period of a limit that gives none."""
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999, which values that were changed by hand may exceed."""


class StoredLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit rule as a value of shared state. `source`: ``task`` where a worker has published the rule of a
    task that it loaded, and ``person`` where a person has set the rule."""

    concurrency: int | None = None
    rate: float | None = None
    per: float = 1.0
    source: str = "person"

    @property
    def limit(self) -> Limit:
        """The rule."""
        return Limit(concurrency=self.concurrency, rate=self.rate, per=self.per)


class _StoredRequest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    args: JsonObject = {}
    expires: int


def pause_value(now: datetime, until: datetime | None) -> JsonValue:
    """The value that stores a pause."""
    return {"since": to_ms(now), "until": None if until is None else to_ms(until)}


def read(items_of: Callable[[str], Iterable[StateItem]]) -> Rules:
    """The rules. `items_of` reads the values of a namespace that have not expired. Leaves out limit rules
    that this version cannot read."""
    return Rules(
        queues={item.name: _pause_of(item) for item in items_of(PAUSED_QUEUES)},
        tasks={item.name: _pause_of(item) for item in items_of(PAUSED_TASKS)},
        limits={
            item.name: stored.limit
            for item in items_of(LIMITS)
            if (stored := stored_limit(item.value)) is not None
        },
    )


def versions_after(version: int, signals: int, rules: Rules, recheck_ms: int | None = None) -> Versions:
    """The versions of an answer with these rules. `recheck_ms`: return the rules again at this time at the
    latest."""
    ends = [
        to_ms(one.until)
        for pauses in (rules.queues, rules.tasks)
        for one in pauses.values()
        if one.until is not None
    ]
    if recheck_ms is not None:
        ends.append(recheck_ms)
    return Versions(rules=version, signals=signals, rules_until_ms=min(ends, default=None))


def is_changed(known: Versions, version: int, now_ms: int) -> bool:
    """Whether a process with these versions needs the rules again."""
    return known.rules != version or (known.rules_until_ms is not None and known.rules_until_ms <= now_ms)


def stored_limit(value: JsonValue) -> StoredLimit | None:
    """The limit rule in a value. None: this version cannot read the value."""
    try:
        stored = msgspec.convert(value, StoredLimit)
    except msgspec.ValidationError:
        return None
    is_valid = (stored.concurrency or 0) >= 0 and (stored.rate is None or stored.rate > 0) and stored.per > 0
    return stored if is_valid else None


def checked_limit(name: str, limit: Limit) -> Limit:
    """Returns the limit. Raises InvalidValue for a name or a limit that no rule can have."""
    text = text_of(name)
    if not text or len(text) > _NAME_MAX or not text.isprintable() or ":" in text or text in _RESERVED:
        raise InvalidValue(
            f"the name of a limit is {shown(name)}: expected 1 to {_NAME_MAX} printable characters without a "
            f"colon, and not {TASK_RULE!r} or {OVERLAP_RULE!r}",
            path="limits",
        )
    if limit.concurrency is None and limit.rate is None:
        raise InvalidValue(
            f"the limit {text} has no concurrency and no rate: expected at least one", path=text
        )
    concurrency, rate, per = whole_of(limit.concurrency), number_of(limit.rate), number_of(limit.per)
    if limit.concurrency is not None and (concurrency is None or not 0 <= concurrency <= 10**9):
        raise InvalidValue(
            f"the concurrency of the limit {text} is {shown(limit.concurrency)}: expected 0 to "
            "1,000,000,000, a whole number",
            path=text,
        )
    if limit.rate is not None and (rate is None or not 0 < rate <= RATE_MOST):
        raise InvalidValue(
            f"the rate of the limit {text} is {shown(limit.rate)}: expected a number above 0, "
            "up to 1,000,000",
            path=text,
        )
    if per is None or not 0.001 <= per <= 1e7:
        raise InvalidValue(
            f"the limit {text} counts its rate per {shown(limit.per)} s: expected 0.001 to 10,000,000",
            path="limits",
        )
    if rate is None and per != _PER:
        raise InvalidValue(f"the limit {text} has per {per:g} s and no rate: expected a rate too", path=text)
    if rate is not None and per / rate > SPACING_MOST:
        raise InvalidValue(
            f"the limit {text} starts a job each {per / rate:.3g} s: expected at most "
            f"{SPACING_MOST:,.0f} s, about three years; a concurrency of 0 lets none start",
            path=text,
        )
    return Limit(concurrency=concurrency, rate=rate, per=per)


def requests_in(value: JsonValue, now_ms: int) -> tuple[WorkerRequest, ...]:
    """The requests in a value that have not expired."""
    try:
        stored = msgspec.convert(value, list[_StoredRequest])
    except msgspec.ValidationError:
        return ()
    return tuple(
        WorkerRequest(id=one.id, kind=one.kind, args=one.args, expires_at=from_ms(one.expires))
        for one in stored
        if now_ms < one.expires <= _LATEST_MS
    )


def requests_value(requests: Iterable[WorkerRequest]) -> JsonValue:
    """The value that stores these requests."""
    return [
        {"id": one.id, "kind": one.kind, "args": one.args, "expires": to_ms(one.expires_at)}
        for one in requests
    ]


def _pause_of(item: StateItem) -> Pause:
    since = item.value.get("since") if isinstance(item.value, dict) else None
    if not isinstance(since, int) or not 0 <= since <= _LATEST_MS:
        since = None
    return Pause(since=None if since is None else from_ms(since), until=item.expires_at)
