"""Roll-ups of metrics as drivers store them.

A recorded metric is added to two cells: one of its minute, and one of its hour. A cell is the msgpack of
``[count, total, {bucket: number}]``. Tags are stored as JSON, so that they are one text without NUL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.metrics import Metric, Resolution, Tags, added, check_metrics
from mrq_core.errors import BrokerCorrupt


class CellKey(NamedTuple):
    """The cell of one series (a name and its tags) in one minute or hour.

    `slot`: the number of the minute or hour since 1970. `tags`: as JSON."""

    resolution: Resolution
    slot: int
    name: str
    tags: str


class Cell(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The sum of the measurements of one series in one slot."""

    count: int
    total: float
    buckets: dict[int, int]

    def __add__(self, other: Cell) -> Cell:
        return Cell(self.count + other.count, self.total + other.total, added((self.buckets, other.buckets)))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Cell]).decode
_tags_of = msgspec.json.Decoder(Tags).decode


def pack(cell: Cell) -> bytes:
    """The stored form of a cell."""
    return _encode(cell)


def unpack(data: bytes) -> Cell:
    """The stored cell. Raises BrokerCorrupt."""
    return unpack_all([data])[0]


def unpack_all(cells: Sequence[bytes]) -> list[Cell]:
    """The stored cells, decoded together, which takes less time. Raises BrokerCorrupt."""
    head = b"\xdd" + len(cells).to_bytes(4, "big")
    try:
        return _decode(head + b"".join(cells))
    except msgspec.DecodeError as error:
        raise BrokerCorrupt(
            f"a stored metric cannot be read ({error}): it was changed by hand, or the data is damaged"
        ) from error


def cells_of(metrics: Sequence[Metric]) -> dict[CellKey, Cell]:
    """What to add to each cell: two for each series, however often the series is in `metrics`. Raises
    InvalidValue."""
    check_metrics(metrics)
    cells: dict[CellKey, Cell] = {}
    for metric in metrics:
        tags = msgspec.json.encode(metric.tags).decode()
        cell = Cell(metric.count, float(metric.total), dict(metric.buckets))
        for resolution in Resolution:
            key = CellKey(resolution, slot_of(metric.at, resolution), metric.name, tags)
            before = cells.get(key)
            cells[key] = cell if before is None else before + cell
    return cells


def slot_of(moment: datetime, resolution: Resolution) -> int:
    """The number of the slot that contains the moment."""
    return to_ms(moment) // (resolution.seconds * 1000)


def slots_between(since: datetime, until: datetime, resolution: Resolution) -> tuple[int, int]:
    """The first slot that begins at `since` or later, and the first that begins at `until` or later."""
    length = resolution.seconds * 1000
    return -(-to_ms(since) // length), -(-to_ms(until) // length)


def expiry_ms(resolution: Resolution, slot: int) -> int:
    """The time from which `prune` deletes the roll-up of the slot, in Unix milliseconds."""
    return round(((slot + 1) * resolution.seconds + resolution.kept) * 1000)


def first_kept(resolution: Resolution, now_ms: int) -> int:
    """The first slot that `prune` keeps."""
    return math.floor((now_ms - resolution.kept * 1000) / (resolution.seconds * 1000))


def metrics_of(
    names: Iterable[str],
    slots: Sequence[int],
    tags: Sequence[str],
    cells: Iterable[Cell],
    resolution: Resolution,
) -> list[Metric]:
    """Metrics from columns of the same length, in their order. Raises BrokerCorrupt.

    A value that several rows share is converted once; apart from that, a row costs the creation of its
    metric."""
    length = resolution.seconds * 1000
    times = {slot: from_ms(slot * length) for slot in set(slots)}
    known = {text: _tags(text) for text in set(tags)}
    return [
        Metric(name=name, at=at, tags=pairs, count=cell.count, total=cell.total, buckets=cell.buckets)
        for name, at, pairs, cell in zip(
            names, map(times.__getitem__, slots), map(known.__getitem__, tags), cells, strict=False
        )
    ]


@lru_cache(maxsize=4096)
def _tags(text: str) -> Tags:
    return _tags_of(text)
