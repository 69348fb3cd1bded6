"""Counts anew what the Redis broker keeps counted, straight from the hashes of the jobs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
import redis

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import error_terms_of, key_terms_of, terms_of

Row = dict[bytes, bytes]


def check_keys(broker: RedisBroker) -> None:
    """Lines, indexes, totals, slots and parked jobs are what the hashes say; so are the records."""
    connection: Connection = broker._connection
    client: redis.Redis = connection.use(lambda client: client)
    prefix = (connection.prefix + ":").encode()
    jobs = _jobs(client, prefix)
    sets: dict[bytes, set[bytes]] = defaultdict(set)
    ranks = {row[b"k"] for row in jobs.values()} - {b"0"}
    assert ranks <= _set(client, prefix + b"ranks")
    totals: dict[bytes, Counter[bytes]] = {b"n:q": Counter(), b"n:h": Counter()}
    slots, parked = set(), set()
    for job_id, row in jobs.items():
        for kind in (b"s", b"q", b"h", b"y"):
            if row.get(kind):
                sets[b"i:" + kind + b":" + row[kind]].add(job_id)
        if row[b"z"] == b"w":
            sets[b"w:" + row[b"k"] + b":" + row[b"q"]].add(job_id)
        if row[b"z"] == b"c":
            sets[b"c:" + row[b"q"]].add(job_id)
        if row.get(b"x"):
            sets[b"x"].add(job_id)
        for key, field in ((b"n:q", b"q"), (b"n:h", b"h")):
            totals[key][row[b"s"] + b" " + row[field]] += 1
        keys: list[str] = msgspec.msgpack.decode(row[b"l"]) if b"l" in row else []
        if row[b"z"] == b"c":
            slots |= {job_id + b" " + key.encode() for key in keys}
        if row[b"z"] == b"p":
            parked.add(job_id)
    records = _records(connection, jobs)
    for job_id, record in records.items():
        for name, value in terms_of(record):
            sets[b"i:t:" + name.encode()].add(value.encode() + b"\0" + job_id)
    _check_exceptions(client, prefix, jobs, records)
    found = {
        key: set(members_of(client, prefix + key))
        for key in names_under(client, prefix)
        if key.startswith((b"i:", b"w:", b"c:")) or key == b"x"
    }
    assert found == sets
    for key, numbers in totals.items():
        assert hash_of(client, prefix + key) == {field: str(n).encode() for field, n in numbers.items()}
    held = set(members_of(client, prefix + b"slots"))
    assert held <= slots
    running = Counter(member.partition(b" ")[2] for member in held)
    assert hash_of(client, prefix + b"running") == {key: str(n).encode() for key, n in running.items()}
    assert set(hash_of(client, prefix + b"parked")) == parked
    in_queues = Counter(jobs[job_id][b"q"] for job_id in parked)
    assert hash_of(client, prefix + b"parked-in") == {key: str(n).encode() for key, n in in_queues.items()}
    check_parked(client, prefix)
    check_trees(client, prefix, jobs)
    _check_unique_keys(client, prefix, jobs)
    _check_names(client, prefix, jobs)
    _check_records(broker, jobs)


def check_parked(client: redis.Redis, prefix: bytes) -> None:
    """The lines of the parked jobs are what the jobs' places say."""
    lines: dict[bytes, set[bytes]] = defaultdict(set)
    for place in hash_of(client, prefix + b"parked").values():
        member, _, key = place.partition(b" ")
        lines[key].add(member)
    for key, members in lines.items():
        assert set(members_of(client, prefix + b"park:" + key)) == members
    assert set(members_of(client, prefix + b"parked-keys")) == lines.keys()
    assert {name for name in names_under(client, prefix) if name.startswith(b"park:")} == {
        b"park:" + key for key in lines
    }


def check_trees(client: redis.Redis, prefix: bytes, jobs: dict[bytes, Row]) -> None:
    """Each subqueue with an entry is among the ready or the later ones of its tree, there with its time."""
    due: dict[bytes, int] = {}
    for row in jobs.values():
        if b"/" in row[b"q"] and row[b"z"] in (b"w", b"c"):
            due[row[b"q"]] = min(int(row[b"d"]), due.get(row[b"q"], int(row[b"d"])))
    ready: set[bytes] = set()
    later: dict[bytes, float] = {}
    for name in names_under(client, prefix):
        if name.startswith(b"ready:"):
            ready |= set(members_of(client, prefix + name))
        elif name.startswith(b"later:"):
            found: Any = client.zrange(prefix + name, 0, -1, withscores=True)
            later |= dict(found)
    assert not ready & later.keys()
    assert ready | later.keys() == due.keys()
    assert later == {name: due[name] for name in later}


def _check_unique_keys(client: redis.Redis, prefix: bytes, jobs: dict[bytes, Row]) -> None:
    """A key is held by the job that has it, until it is claimed, has ended, or the period is over."""
    holders = hash_of(client, prefix + b"u")
    assert {key for key, value in holders.items() if value[24:]} == set(members_of(client, prefix + b"u:x"))
    for key, value in holders.items():
        row = jobs.get(value[:24])
        if not value[24:]:
            assert row is not None
            assert (row[b"u"], row[b"z"] != b"") == (key, True)
    for job_id, row in jobs.items():
        if row.get(b"m") == b"done" and row[b"z"]:
            assert holders[row[b"u"]][:24] == job_id
    of_records = hash_of(client, prefix + b"u:r")
    for key, job_id in of_records.items():
        assert (jobs[job_id][b"u"], jobs[job_id][b"m"]) == (key, b"record")
    for job_id, row in jobs.items():
        if row.get(b"m") == b"record" and b"x" not in row:
            assert of_records[row[b"u"]] == job_id


def _records(connection: Connection, jobs: dict[bytes, Row]) -> dict[bytes, JobRecord]:
    """All records, those that have expired included."""
    _, found = Records(connection).read([job_id.decode() for job_id in jobs])
    return {job_id: one.record for job_id, one in zip(jobs, found, strict=True) if one is not None}


def _check_exceptions(
    client: redis.Redis, prefix: bytes, jobs: dict[bytes, Row], records: dict[bytes, JobRecord]
) -> None:
    """The fields, the stored exceptions and the totals of exceptions are those of the records."""
    totals: Counter[bytes] = Counter()
    types: Counter[bytes] = Counter()
    stored: dict[bytes, tuple[str | None, set[tuple[str, str]]]] = {}
    for job_id, record in records.items():
        row = jobs[job_id]
        keys = {(name.decode(), row[name].decode()) for name in row if name.startswith(b"key ")}
        assert keys == key_terms_of(record)
        assert (b"k" in row.get(b"f", b"")) == bool(keys)
        assert row.get(b"g", b"").decode() == (record.exception_type or "")
        if record.exception_type is not None:
            stored[job_id] = (record.error_group, set(error_terms_of(record)))
            types[f"{record.status} {record.exception_type}".encode()] += 1
        if record.error_group is not None:
            totals[f"{record.status} {record.error_group}".encode()] += 1
    found = {}
    for name in names_under(client, prefix):
        if name.startswith(b"e:"):
            value: Any = client.get(prefix + name)
            group, terms = msgspec.msgpack.decode(value)
            found[name[2:]] = (group, {(kind, one) for kind, values in terms.items() for one in values})
    assert found == stored
    for key, numbers in ((b"n:e", totals), (b"n:g", types)):
        assert hash_of(client, prefix + key) == {field: str(n).encode() for field, n in numbers.items()}


def _check_names(client: redis.Redis, prefix: bytes, jobs: dict[bytes, Row]) -> None:
    """Each job has its record, and no job that is gone has left one, or a log."""
    names = names_under(client, prefix)
    assert {name[2:] for name in names if name.startswith(b"r:")} == jobs.keys()
    assert {name[2:] for name in names if name.startswith(b"l:")} <= jobs.keys()


def _check_records(broker: RedisBroker, jobs: dict[bytes, Row]) -> None:
    ids = [job_id.decode() for job_id, row in jobs.items()]
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        for job_id, record in zip(part, broker.get(part), strict=True):
            if record is not None:
                row = jobs[job_id.encode()]
                assert record.status.value.encode() == row[b"s"]
                assert (record.queue.encode(), record.path.encode()) == (row[b"q"], row[b"h"])
                assert (record.token or "").encode() == row.get(b"t", b"")


def _jobs(client: redis.Redis, prefix: bytes) -> dict[bytes, Row]:
    start = prefix + b"j:"
    found = {key[len(start) :]: hash_of(client, key) for key in client.scan_iter(_pattern(start), count=1000)}
    places = {b"started": b"c", b"success": b""}
    return {
        job_id: {b"k": b"0", **row, b"z": places.get(row[b"s"], row.get(b"z", b"w"))}
        for job_id, row in found.items()
    }


def names_under(client: redis.Redis, prefix: bytes) -> list[bytes]:
    return [key[len(prefix) :] for key in client.scan_iter(_pattern(prefix), count=1000)]


def _pattern(start: bytes) -> bytes:
    return start.replace(b"[", b"\\[") + b"*"


def members_of(client: redis.Redis, key: bytes) -> list[bytes]:
    found: Any = client.zrange(key, 0, -1)
    return list(found)


def hash_of(client: redis.Redis, key: bytes) -> dict[bytes, bytes]:
    found: Any = client.hgetall(key)
    return dict(found)


def _set(client: redis.Redis, key: bytes) -> set[bytes]:
    found: Any = client.smembers(key)
    return set(found)
