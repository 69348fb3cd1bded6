"""Metrics, added up by minute and by hour: a document for each series and page.

A page is 60 minutes, or 24 hours. The document has the cell of each slot (see `mrq_core.drivers.rollups`)
in `cells`, by the number of the slot in its page. The server cannot add up cells, so a write compares `v` and
sets: counters in fields, which the server could add to, take ten times as long to read.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby, repeat
from typing import Any

from bson.binary import Binary
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import from_ms
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.drivers import rollups
from mrq_core.drivers.rollups import Cell, CellKey
from mrq_core.errors import BrokerUnavailable

PAGES = {Resolution.MINUTE: 60, Resolution.HOUR: 24}
"""The number of slots in a page."""
BATCH = 500
_ATTEMPTS = 50
_PAUSE = 0.02


def record(connection: Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`. Reads and writes the documents again that another process has changed
    meanwhile. Raises BrokerUnavailable if that goes on."""
    cells = list(rollups.cells_of(metrics).items())
    for start in range(0, len(cells), BATCH):
        left = dict(cells[start : start + BATCH])
        for attempt in range(_ATTEMPTS):
            left = _add(connection, left)
            if not left:
                break
            time.sleep(random.uniform(0, _PAUSE * min(attempt + 1, 10)))
        else:
            raise BrokerUnavailable(
                f"{len(left)} metrics were changed by other processes in each of {_ATTEMPTS} attempts: "
                "they are not recorded"
            )


def _add(connection: Connection, cells: Mapping[CellKey, Cell]) -> dict[CellKey, Cell]:
    """Adds each cell to its document; returns the cells whose documents have changed meanwhile."""
    pages: dict[tuple[object, ...], dict[CellKey, Cell]] = {}
    for key, cell in cells.items():
        pages.setdefault(tuple(_id(key).values()), {})[key] = cell
    ids = [_id(next(iter(its_cells))) for its_cells in pages.values()]
    fields = {_field(key): 1 for key in cells}
    wanted = {"_id": {"$in": ids}}
    found = connection.run("metrics", lambda all_pages: list(all_pages.find(wanted, {"v": 1, **fields})))
    docs = {tuple(doc["_id"].values()): doc for doc in found}
    changes, changed = [], []
    for its_cells in pages.values():
        page_id = _id(next(iter(its_cells)))
        changes.append(_change(page_id, docs.get(tuple(page_id.values())), its_cells))
        changed.append(its_cells)
    try:
        connection.run_soft("metrics", lambda all_pages: all_pages.bulk_write(changes, ordered=False))
    except BulkWriteError as error:  # only of documents that are there in another version
        lost = [changed[one["index"]] for one in error.details["writeErrors"]]
        return {key: cell for its_cells in lost for key, cell in its_cells.items()}
    return {}


def _change(page_id: Doc, doc: Doc | None, cells: Mapping[CellKey, Cell]) -> UpdateOne:
    """The write of a document in the version that was read. In another version, the upsert inserts a second
    document of the id, which the server refuses: a bulk write does not tell otherwise which guard failed."""
    stored = {} if doc is None else doc.get("cells", {})
    values = {}
    for key, cell in cells.items():
        before = stored.get(str(key.slot % PAGES[key.resolution]))
        values[_field(key)] = Binary(rollups.pack(cell if before is None else rollups.unpack(before) + cell))
    key = next(iter(cells))
    last = (key.slot // PAGES[key.resolution] + 1) * PAGES[key.resolution] - 1
    return UpdateOne(
        {"_id": page_id, "v": 0 if doc is None else doc["v"]},
        {
            "$set": values,
            "$inc": {"v": 1},
            "$setOnInsert": {"old_at": from_ms(rollups.expiry_ms(key.resolution, last))},
        },
        upsert=True,
    )


def _id(key: CellKey) -> Doc:
    """The id of the page, with its fields in the order in which the server compares them."""
    page = key.slot // PAGES[key.resolution]
    return {"resolution": key.resolution.value, "name": key.name, "page": page, "tags": key.tags}


def _field(key: CellKey) -> str:
    return f"cells.{key.slot % PAGES[key.resolution]}"


def read(
    connection: Connection, names: Sequence[str], since: datetime, until: datetime, resolution: Resolution
) -> list[Metric]:
    """See `Broker.read_metrics`. A range of ids for each name."""
    first, end = rollups.slots_between(since, until, resolution)
    found: list[Metric] = []
    for name in sorted(set(names)) if first < end else ():
        slots, tags, stored = _columns(connection, name, first, end, resolution)
        found += rollups.metrics_of(repeat(name), slots, tags, rollups.unpack_all(stored), resolution)
    return found


def _columns(
    connection: Connection, name: str, first: int, end: int, resolution: Resolution
) -> tuple[list[int], list[str], list[bytes]]:
    """The slots, the tags and the packed cells of a name, oldest first."""
    size = PAGES[resolution]
    bounds = [
        {"resolution": resolution.value, "name": name, "page": page}
        for page in (first // size, (end - 1) // size + 1)
    ]
    wanted: dict[str, Any] = {"_id": {"$gte": bounds[0], "$lt": bounds[1]}}
    fields = ["cells"] if end - first >= size else [f"cells.{slot % size}" for slot in range(first, end)]
    docs = connection.run(
        "metrics", lambda pages: list(pages.find(wanted, dict.fromkeys(fields, 1)).sort("_id", 1))
    )
    slots: list[int] = []
    tags: list[str] = []
    stored: list[bytes] = []
    for page, its_docs in groupby(docs, lambda doc: doc["_id"]["page"]):
        series = [(doc["_id"]["tags"], doc.get("cells", {})) for doc in its_docs]
        for slot in range(max(first, page * size), min(end, page * size + size)):
            field = str(slot % size)
            tags += [its_tags for its_tags, cells in series if field in cells]
            stored += [cells[field] for _, cells in series if field in cells]
            slots += [slot] * (len(stored) - len(slots))
    return slots, tags, stored


def prune(connection: Connection, now: datetime, limit: int) -> None:
    """Deletes up to `limit` pages in which the time of all slots is over."""
    if limit <= 0:
        return
    wanted = {"old_at": {"$lte": now}}
    old = connection.run("metrics", lambda pages: list(pages.find(wanted, {"_id": 1}).limit(limit)))
    if old:
        connection.run_soft(
            "metrics", lambda pages: pages.delete_many({"_id": {"$in": [doc["_id"] for doc in old]}})
        )
