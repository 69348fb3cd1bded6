"""The collections of a prefix with their indexes, and the version and arrangement of the data.

| collection | documents | `_id` |
|---|---|---|
| jobs | one for each job, see `jobs.records` | the job's id |
| totals | numbers of jobs by queue, path, error group, type of exception, see `jobs.totals` | kind and name |
| keys | unique keys, each with the job that holds it, see `jobs.uniques` | the key |
| limits | the slots and the rate of a limit key, see `jobs.limits` | the limit key |
| logs | log lines, and a head for each log, see `shared.logs` | job, attempt and number |
| metrics | roll-ups of metrics, see `shared.metrics` | resolution, name, page and tags |
| state | shared state, see `shared.state` | namespace and name |
| raw | parameters of raw queues, see `raw.parameters` | an ObjectId |
| wake | hints that wake waiting workers; capped | an ObjectId |
| meta | the layout, counters, the version of the rules, signals to workers | a word |

The document `layout` in `meta` holds the two numbers of `mrq_core.drivers.versions`, and the mark of the
arrangement. A store of a pair has no keys, limits, raw and wake, and only the indexes in `STORE_INDEXES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from mrq_broker_mongo.server import upgrades
from mrq_broker_mongo.server.arrangement import ARRANGEMENTS
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.failures import NAMESPACE_EXISTS
from mrq_broker_mongo.server.location import Doc
from mrq_core.drivers.versions import DataVersion, Upgrade, Upgrades, missing_upgrades, read_version
from mrq_core.errors import ConfigError

VERSION = 2
"""The version of the data that this driver writes."""
OLDEST = 2
"""The oldest version of the driver that may work on these data."""
UPGRADES: Upgrades[Connection] = {2: Upgrade(upgrades.add_terms, oldest=2)}
"""Workers of version 1 have to be stopped before the upgrade to version 2."""
WAKE_BYTES, WAKE_NUMBER = 64 * 1024, 100
_SLACK_SECONDS = 7 * 86_400
"""The delay after which the server deletes expired jobs that `prune` has not deleted."""


class Index(NamedTuple):
    """An index, named for its purpose."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    present: tuple[str, ...] = ()
    """The index contains only documents that have these fields."""
    unique: bool = False
    expires_after: int | None = None
    only: tuple[str, str] | None = None
    """The index contains only documents with this value of a field."""

    def model(self) -> IndexModel:
        """The index as pymongo creates it."""
        more: dict[str, object] = {}
        if self.present:
            more["partialFilterExpression"] = {field: {"$exists": True} for field in self.present}
        if self.only is not None:
            more["partialFilterExpression"] = dict([self.only])
        if self.unique:
            more["unique"] = True
        if self.expires_after is not None:
            more["expireAfterSeconds"] = self.expires_after
        return IndexModel(list(self.keys), name=self.name, **more)


DUE = Index("jobs", "due", (("queue", 1), ("rank", 1), ("due_at", 1), ("_id", 1)), ("due_at",))
LEASES = Index("jobs", "leases", (("queue", 1), ("lease_until", 1), ("_id", 1)), ("lease_until",))
TREES = Index("jobs", "trees", (("root", 1), ("due_at", 1), ("queue", 1)), ("root", "due_at"))
TREE_LEASES = Index(
    "jobs",
    "tree_leases",
    (("root", 1), ("lease_until", 1), ("_id", 1), ("queue", 1)),
    ("root", "lease_until"),
)
PARKED = Index(
    "jobs", "parked",
    (("parked.key", 1), ("rank", 1), ("parked.since", 1), ("parked.due", 1), ("_id", 1)), ("parked.key",),
)  # fmt: skip
RECORD_KEYS = Index(
    "jobs", "record_keys", (("unique_key", 1),), unique=True, only=("unique_until", "record")
)  # fmt: skip
STORE_INDEXES = (
    Index("jobs", "status", (("status", 1), ("_id", 1))),
    Index("jobs", "queue", (("queue", 1), ("_id", 1))),
    Index("jobs", "path", (("path", 1), ("_id", 1))),
    Index("jobs", "schedule", (("schedule", 1), ("_id", 1)), ("schedule",)),
    Index("jobs", "terms", (("terms", 1), ("_id", 1)), ("terms",)),
    RECORD_KEYS,
    Index("jobs", "followups", (("followups", 1),), ("followups",)),
    Index("jobs", "expiry", (("expires_at", 1),), ("expires_at",), expires_after=_SLACK_SECONDS),
    Index("state", "expiry", (("expires_at", 1),), ("expires_at",), expires_after=0),
    Index("metrics", "age", (("old_at", 1),), ("old_at",)),
)
QUEUE_INDEXES = (
    DUE,
    LEASES,
    TREES,
    TREE_LEASES,
    PARKED,
    Index("keys", "expiry", (("until", 1),), ("until",), expires_after=0),
    Index("raw", "params", (("h", 1),), ("h",), unique=True),
    Index("raw", "waiting", (("queue", 1), ("score", 1), ("_id", 1)), ("score",)),
    Index("raw", "leases", (("queue", 1), ("until", 1)), ("until",)),
    Index("raw", "jobs", (("job", 1),), ("job",)),
    Index("raw", "expiry", (("settled_at", 1),), ("settled_at",), expires_after=3600),
)
INDEXES = (*QUEUE_INDEXES, *STORE_INDEXES)


class Layout(NamedTuple):
    """The version of the data under a prefix, and the mark of their arrangement."""

    version: DataVersion
    mark: str | None


def found(connection: Connection) -> Layout | None:
    """The layout of the prefix. None: nothing was stored yet. Raises BrokerCorrupt."""
    doc = connection.run("meta", lambda meta: meta.find_one({"_id": "layout"}))
    if doc is None:
        return None
    where = f"the document layout in the collection {connection.name('meta')}"
    version = read_version(doc.get("version"), doc.get("oldest"), where=where)
    return Layout(version, doc.get("arrangement"))


def missing_versions(connection: Connection, layout: Layout) -> range:
    """The upgrades that the data lack. Raises SchemaTooNew."""
    return missing_upgrades(layout.version, VERSION, where=_where(connection))


def indexes(connection: Connection) -> tuple[Index, ...]:
    """The indexes of the arrangement."""
    return INDEXES if connection.arrangement.has_queue else STORE_INDEXES


def other_use(connection: Connection, layout: Layout | None) -> str | None:
    """A message that names the owner of data of another arrangement. None: the connection may use the
    data."""
    if layout is None or layout.mark == connection.arrangement.mark:
        return None
    other = ARRANGEMENTS.get(layout.mark)
    message = other.message if other else f"are marked {layout.mark!r}, by a newer mrq or by hand"
    return f"{_where(connection)} {message}"


def _where(connection: Connection) -> str:
    return f"the collections {connection.name('*')} at {connection.location.shown}"


def prepare(connection: Connection) -> None:
    """Creates missing collections and indexes, and upgrades the data. Safe in several processes at once.

    Raises SchemaTooNew, and ConfigError where the prefix holds data of the other arrangement.
    """
    layout = found(connection)
    _refuse(connection, layout)
    if layout is not None:
        missing_versions(connection, layout)
    if connection.arrangement.has_queue:
        _create_wake(connection)
    wanted = indexes(connection)
    for collection in dict.fromkeys(index.collection for index in wanted):
        models = [index.model() for index in wanted if index.collection == collection]
        connection.run(collection, _creator(models))
    mark = connection.arrangement.mark
    same: Doc = {"_id": "layout", "arrangement": {"$exists": False} if mark is None else mark}
    first = {"$setOnInsert": {"version": VERSION, "oldest": OLDEST}}
    try:
        connection.run("meta", lambda meta: meta.update_one(same, first, upsert=True))
    except DuplicateKeyError:  # another process was quicker, perhaps with the other arrangement
        _refuse(connection, found(connection))
    _upgrade(connection)
    connection.is_prepared = True


def _upgrade(connection: Connection) -> None:
    """Applies the missing upgrades, in order. Reads the layout before each, because a process of an earlier
    version may have written the layout, and a process of a later version may have raised the numbers."""
    while (layout := found(connection)) is not None:
        versions = missing_versions(connection, layout)
        if not versions:
            return
        upgrade = UPGRADES[versions[0]]
        upgrade.apply(connection)
        _raise_version(connection, versions[0], upgrade.oldest)


def _raise_version(connection: Connection, version: int, oldest: int) -> None:
    """Writes the two numbers after an upgrade. They never go back."""
    numbers = {"$max": {"version": version, "oldest": oldest}}
    connection.run("meta", lambda meta: meta.update_one({"_id": "layout"}, numbers))


def _refuse(connection: Connection, layout: Layout | None) -> None:
    wrong = other_use(connection, layout)
    if wrong is not None:
        raise ConfigError(f"{wrong}; set MONGODB_PREFIX to another name")


def ensure(connection: Connection) -> None:
    """Prepares an empty prefix, and upgrades data of an earlier version, before the first write of a broker.

    A broker asks the server once. Raises what `prepare` raises."""
    recognize(connection)
    if not connection.is_prepared:
        prepare(connection)


def recognize(connection: Connection) -> None:
    """Checks the arrangement and the version of the prefix, and creates nothing. Asks until data are stored.

    Raises SchemaTooNew, and ConfigError for the other arrangement."""
    if not connection.is_prepared:
        layout = found(connection)
        _refuse(connection, layout)
        connection.is_prepared = layout is not None and not missing_versions(connection, layout)


def missing_indexes(connection: Connection) -> list[str]:
    """The names of missing indexes, and of the missing collection of hints."""
    absent = []
    wanted = indexes(connection)
    for collection in dict.fromkeys(index.collection for index in wanted):
        there = connection.run(collection, lambda one: set(one.index_information()))
        absent += [
            f"{connection.name(collection)}.{index.name}"
            for index in wanted
            if index.collection == collection and index.name not in there
        ]
    if connection.arrangement.has_queue and not _is_wake_capped(connection):
        absent.append(connection.name("wake"))
    return absent


def _creator(models: list[IndexModel]) -> Callable[[Jobs], list[str]]:
    return lambda collection: collection.create_indexes(models)


def _create_wake(connection: Connection) -> None:
    """Creates the capped collection of hints with one document, because a cursor on an empty collection does
    not wait. A collection that is not capped, for example after a restore, is replaced."""
    if not _is_wake_capped(connection):
        _create_capped(connection)
        if not _is_wake_capped(connection):
            connection.run("wake", lambda wake: wake.drop())
            _create_capped(connection)
    if connection.run("wake", lambda wake: wake.find_one()) is None:
        connection.run_soft("wake", lambda wake: wake.insert_one({"root": ""}))


def _is_wake_capped(connection: Connection) -> bool:
    return bool(connection.run("wake", lambda wake: wake.options()).get("capped"))


def _create_capped(connection: Connection) -> None:
    name = connection.name("wake")

    def create(database: Database[Doc]) -> None:
        try:
            database.create_collection(
                name, check_exists=False, capped=True, size=WAKE_BYTES, max=WAKE_NUMBER
            )
        except CollectionInvalid:
            return
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise

    connection.on_database(create)
