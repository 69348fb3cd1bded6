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
_decode = msgspec.msgpack.Decoder(list[tuple[int, str, Cell]]).decode


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
    found = connection.execute("ZRANGEBYSCORE", key, first, f"({end}") if wanted and first < end else []
    hashes = [(name, int(slot)) for slot, _, name in (member.decode().partition(":") for member in found)]
    hashes = sorted(one for one in hashes if one[0] in wanted)
    return rollups.metrics_of(_cells(connection, hashes, resolution), resolution)


def _cells(
    connection: Connection, hashes: Sequence[tuple[str, int]], resolution: Resolution
) -> Iterator[tuple[str, int, str, Cell]]:
    """The cells of these hashes. HSCAN may answer a cell twice while its hash grows: the first counts."""
    members = [f"{slot}:{name}" for name, slot in hashes]
    done, cursor = 0, b"0"
    last, seen = -1, set[str]()
    while done < len(members):
        arguments = [LETTERS[resolution], members[done : done + READ], cursor.decode(), READ]
        number, cursor, data = connection.run("metrics_read", arguments, repeatable=True)
        for offset, tags, cell in _decoded(data):
            if done + offset != last:
                last, seen = done + offset, set()
            if tags not in seen:
                seen.add(tags)
                name, slot = hashes[last]
                yield name, slot, tags, cell
        done += int(number)


def _decoded(data: bytes) -> list[tuple[int, str, Cell]]:
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise BrokerCorrupt(
            f"a stored metric cannot be read ({error}): it was changed by hand, or the data is damaged"
        ) from error
