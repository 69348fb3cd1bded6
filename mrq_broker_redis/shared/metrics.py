"""Metrics, added up by minute and by hour: a hash for each name and slot, see metrics_record.lua."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from mrq_broker_redis.jobs.records import binary
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.drivers import rollups
from mrq_core.drivers.rollups import Cell
from mrq_core.errors import BrokerCorrupt

RECORDED, READ = 200, 3000
"""The most cells that one script adds up, and about the most that one script reads. They bound the time for
which the server serves no other client."""
LETTERS = {resolution: resolution.value[0] for resolution in Resolution}
"""The names of the resolutions in keys."""


class _Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A cell: the index of its hash among those that were asked for, its tags, and the cell."""

    index: int
    tags: str
    cell: Cell


_decode = msgspec.msgpack.Decoder(list[_Row]).decode


def record(connection: Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`. One script for each 200 cells; a metric has two."""
    cells = list(rollups.cells_of(metrics).items())
    for start in range(0, len(cells), RECORDED):
        values: list[object] = []
        for (resolution, slot, name, tags), cell in cells[start : start + RECORDED]:
            values += [LETTERS[resolution], slot, name, tags, binary(rollups.pack(cell))]
        connection.run("metrics_record", values)


def read(
    connection: Connection, names: Sequence[str], since: datetime, until: datetime, resolution: Resolution
) -> list[Metric]:
    """See `Broker.read_metrics`. Finds the hashes of the span first, with one step for each; then reads
    about READ cells with each script."""
    wanted = set(names)
    first, end = rollups.slots_between(since, until, resolution)
    key = connection.key(f"metrics:{LETTERS[resolution]}")
    found = _members(connection, key, first, end) if wanted and first < end else []
    hashes = [(name, int(slot)) for slot, _, name in (member.decode().partition(":") for member in found)]
    hashes = sorted(one for one in hashes if one[0] in wanted)
    its_names: list[str] = []
    slots: list[int] = []
    tags: list[str] = []
    cells: list[Cell] = []
    for hashes_read, rows in _parts(connection, hashes, resolution):
        its_names += [hashes_read[row.index][0] for row in rows]
        slots += [hashes_read[row.index][1] for row in rows]
        tags += [row.tags for row in rows]
        cells += [row.cell for row in rows]
    return rollups.metrics_of(its_names, slots, tags, cells, resolution)


def _members(connection: Connection, key: str, first: int, end: int) -> list[bytes]:
    """The names and slots of the span. No members while the key has another type: the next new slot sets it
    aside."""
    try:
        members: list[bytes] = connection.execute("ZRANGEBYSCORE", key, first, f"({end}")
    except BrokerCorrupt:
        return []
    return members


def _parts(
    connection: Connection, hashes: Sequence[tuple[str, int]], resolution: Resolution
) -> Iterator[tuple[Sequence[tuple[str, int]], list[_Row]]]:
    """The cells of these hashes, about READ at a time, with the hashes that their indexes mean.

    HSCAN may answer a cell twice while its hash grows, in two calls: the first counts.
    """
    cursor = b"0"
    seen: set[str] = set()
    while hashes:
        members = [f"{slot}:{name}" for name, slot in hashes[:READ]]
        number, cursor, data = connection.run(
            "metrics_read", [LETTERS[resolution], members, cursor.decode(), READ], repeatable=True
        )
        rows = _decoded(data)
        if seen:  # an earlier call has read a part of the first hash
            rows = [row for row in rows if row.index or row.tags not in seen]
        yield hashes, rows
        if number:
            seen = set()
        if cursor != b"0":
            seen |= {row.tags for row in rows if row.index == number}
        hashes = hashes[int(number) :]


def _decoded(data: bytes) -> list[_Row]:
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise BrokerCorrupt(
            f"a stored metric cannot be read ({error}): it was changed by hand, or the data is damaged"
        ) from error
