"""Totals of jobs, counts of queues, and the names of queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.naming import is_covered
from mrq_core.contract.queries import JobFilter, QueueCounts, Totals
from mrq_core.contract.record import Status
from mrq_core.contract.terms import Term, type_terms, wanted_terms
from mrq_core.errors import BrokerCorrupt

BATCH = 100
_KINDS = {"queue": "q", "path": "h", "exception_type": "g", "error_group": "e"}
"""The totals by what they count."""
_MOST_JOBS = 10**15
"""A total that is not below it was changed by hand."""
_MOST_EXPIRED = 1000
"""The most expired jobs that a count subtracts from the totals."""


def totals(connection: Connection) -> Totals:
    """See `Broker.totals`. Three hashes, which grow with the number of queues, paths and error groups."""
    found = []
    for key in ("n:q", "n:h", "n:e"):
        table: dict[str, dict[Status, int]] = {}
        for field, number in _numbers(connection, key):
            status, _, name = field.partition(" ")
            table.setdefault(name, {})[Status(status)] = number
        found.append(table)
    return Totals(by_queue=found[0], by_path=found[1], by_error_group=found[2])


def _numbers(connection: Connection, key: str) -> list[tuple[str, int]]:
    """The fields and numbers of a hash. One that was changed by hand is counted anew."""
    try:
        flat = connection.execute("HGETALL", connection.key(key))
        numbers = [(field.decode(), int(number)) for field, number in _pairs(flat)]
        if all(-_MOST_JOBS < number < _MOST_JOBS for _, number in numbers):
            return numbers
    except (BrokerCorrupt, ValueError):
        pass
    flat = connection.run("read_totals", [key.removeprefix("n:")])
    return [(field.decode(), int(number)) for field, number in _pairs(flat)]


def counted(connection: Connection, wanted: JobFilter, group_by: str | None) -> dict[str, int] | None:
    """The numbers of `Broker.count`, from the totals. None: totals do not have them, or many jobs have
    expired."""
    kinds = {
        kind
        for kind, names in (
            ("queue", wanted.queues),
            ("path", wanted.paths),
            ("exception_type", wanted.exception_types),
            ("error_group", wanted.error_groups),
            (group_by, group_by in _KINDS),
        )
        if names
    }
    others = replace(wanted, statuses=(), queues=(), paths=(), exception_types=(), error_groups=())
    if len(kinds) > 1 or not others.is_empty or group_by not in (None, "status", *_KINDS):
        return None
    kind = kinds.pop() if kinds else "queue"
    found = connection.run("unexpired", [_KINDS[kind or ""], _MOST_EXPIRED], repeatable=True)
    if found is None:
        return None
    terms = wanted_terms(wanted)
    numbers: dict[str, int] = {} if group_by else {"": 0}
    for field, number in _pairs(found):
        status, _, name = field.decode().partition(" ")
        is_wanted = (
            (not wanted.statuses or status in wanted.statuses)
            and (not wanted.queues or is_covered(name, wanted.queues))
            and (not wanted.paths or name in wanted.paths)
            and (not terms or terms[0] & _terms_of(kind, name))
        )
        if is_wanted and int(number):
            group = {None: "", "status": status}.get(group_by, name)
            numbers[group] = numbers.get(group, 0) + int(number)
    return numbers


def error_groups(connection: Connection) -> list[str]:
    """The error groups that have jobs, by name."""
    return sorted({field.partition(" ")[2] for field, _ in _numbers(connection, "n:e")})


def _terms_of(kind: str | None, name: str) -> frozenset[Term]:
    """The terms of an exception type or error group."""
    return type_terms(name) if kind == "exception_type" else wanted_terms(JobFilter(error_groups=(name,)))[0]


def _pairs(found: Any) -> list[tuple[bytes, bytes]]:
    """Fields and values, from either form that the client returns."""
    if isinstance(found, dict):
        return list(found.items())
    return list(zip(found[::2], found[1::2], strict=True))


def counts(connection: Connection, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`. Costs a few look-ups for each queue, whatever its length."""
    answers: list[QueueCounts] = []
    for start in range(0, len(queues), BATCH):
        part = list(queues[start : start + BATCH])
        for queue, found in zip(part, connection.run("counts", part, repeatable=True), strict=True):
            waiting, due, claimed, oldest = found
            answers.append(
                QueueCounts(
                    queue=queue,
                    waiting=waiting,
                    due=due,
                    claimed=claimed,
                    oldest_due=moment(oldest),
                )
            )
    return answers


def queue_names(connection: Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    low = f"({after}" if after >= prefix and after else f"[{prefix}" if prefix else "-"
    high = b"(" + prefix.encode() + b"\xff" if prefix else b"+"
    found = connection.execute("ZRANGEBYLEX", connection.key("queues"), low, high, "LIMIT", 0, limit)
    return [name.decode() for name in found]
