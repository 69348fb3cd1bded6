"""The collections of a prefix with their indexes, and the version and arrangement that they have.

| collection | what it holds | its `_id` |
|---|---|---|
| jobs | one document a job, see `documents` | the job's id |
| totals | numbers of jobs by queue and by path, see `totals` | kind and name |
| keys | unique keys, each with the job that holds it, see `uniques` | the key |
| limits | who runs under a limit key, and its rate, see `limiting` | the limit key |
| logs | log lines, and a head for each job that has some, see `logs` | job, attempt and number |
| metrics | figures by minute | minute and name |
| state | shared state, see `state` | namespace and name |
| raw | parameters in raw queues, waiting or claimed, see `raw` | an ObjectId |
| wake | hints that something was queued; capped | an ObjectId |
| meta | versions, counters, pauses, signals to workers | a word |

Where jobs have no queue there are no keys, limits, raw and wake, and of the indexes only `STORE_INDEXES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from mrq_broker_mongo.server.arrangement import ARRANGEMENTS
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.failures import NAMESPACE_EXISTS
from mrq_broker_mongo.server.location import Doc
from mrq_core.drivers.versions import DataVersion, Upgrades, missing_upgrades, read_version
from mrq_core.errors import ConfigError

VERSION = 1
"""The version of the data that this driver writes."""
OLDEST = 1
"""The oldest version of the driver that may work on these data."""
UPGRADES: Upgrades[Connection] = {}
WAKE_BYTES, WAKE_NUMBER = 64 * 1024, 100
_SLACK_SECONDS = 7 * 86_400
"""After so long the server deletes by itself what `prune` should have deleted."""


class Index(NamedTuple):
    """An index, with a name that says what it is for."""

    collection: str
    name: str
    keys: tuple[tuple[str, int], ...]
    present: tuple[str, ...] = ()
    """Fields that a document has to have to be in it."""
    unique: bool = False
    expires_after: int | None = None

    def model(self) -> IndexModel:
        """The same for pymongo."""
        more: dict[str, object] = {}
        if self.present:
            more["partialFilterExpression"] = {field: {"$exists": True} for field in self.present}
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
STORE_INDEXES = (
    Index("jobs", "status", (("status", 1), ("_id", 1))),
    Index("jobs", "queue", (("queue", 1), ("_id", 1))),
    Index("jobs", "path", (("path", 1), ("_id", 1))),
    Index("jobs", "exception_type", (("exception_type", 1), ("_id", 1)), ("exception_type",)),
    Index("jobs", "schedule", (("schedule", 1), ("_id", 1)), ("schedule",)),
    Index("jobs", "followups", (("followups", 1),), ("followups",)),
    Index("jobs", "expiry", (("expires_at", 1),), ("expires_at",), expires_after=_SLACK_SECONDS),
    Index("state", "expiry", (("expires_at", 1),), ("expires_at",), expires_after=0),
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


class Found(NamedTuple):
    """The layout of a prefix: the version of its data, and the mark of its arrangement."""

    version: DataVersion
    mark: str | None


def look(connection: Connection) -> Found | None:
    """The layout of the prefix. None: nothing was stored yet. Raises BrokerCorrupt."""
    found = connection.run("meta", lambda meta: meta.find_one({"_id": "layout"}))
    if found is None:
        return None
    where = f"the document layout in the collection {connection.name('meta')}"
    version = read_version(found.get("version"), found.get("oldest"), where=where)
    return Found(version, found.get("arrangement"))


def missing_versions(connection: Connection, found: Found) -> range:
    """The upgrades that the data lack. Raises SchemaTooNew."""
    return missing_upgrades(found.version, VERSION, where=_where(connection))


def indexes(connection: Connection) -> tuple[Index, ...]:
    """Those that the arrangement uses."""
    return INDEXES if connection.arrangement.has_queue else STORE_INDEXES


def other_use(connection: Connection, found: Found | None) -> str | None:
    """What is wrong with the prefix, if what stands there is not of this arrangement."""
    if found is None or found.mark == connection.arrangement.mark:
        return None
    other = ARRANGEMENTS.get(found.mark)
    message = other.message if other else f"are marked {found.mark!r}, by a newer mrq or by hand"
    return f"{_where(connection)} {message}"


def _where(connection: Connection) -> str:
    return f"the collections {connection.name('*')} at {connection.location.shown}"


def prepare(connection: Connection) -> None:
    """Creates missing collections and indexes, and upgrades the data. Safe in several processes at once.

    Raises SchemaTooNew, and ConfigError where the prefix is in use for the other arrangement.
    """
    found = look(connection)
    _refuse(connection, found)
    versions = range(0) if found is None else missing_versions(connection, found)
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
        _refuse(connection, look(connection))
    for version in versions:
        upgrade = UPGRADES[version]
        upgrade.apply(connection)
        _raise_version(connection, version, upgrade.oldest)
    connection.is_prepared = True


def _raise_version(connection: Connection, version: int, oldest: int) -> None:
    """Writes the two numbers after an upgrade. They never go back."""
    numbers = {"$max": {"version": version, "oldest": oldest}}
    connection.run("meta", lambda meta: meta.update_one({"_id": "layout"}, numbers))


def _refuse(connection: Connection, found: Found | None) -> None:
    wrong = other_use(connection, found)
    if wrong is not None:
        raise ConfigError(f"{wrong}; set MONGODB_PREFIX to another name")


def ensure(connection: Connection) -> None:
    """Prepares a deployment in which nothing was stored yet: before what needs its indexes is stored. A
    broker looks once. Raises what `prepare` raises."""
    recognize(connection)
    if not connection.is_prepared:
        prepare(connection)


def recognize(connection: Connection) -> None:
    """Checks the arrangement and the version of the prefix, and creates nothing. Asks until data are stored.

    Raises SchemaTooNew, and ConfigError for the other arrangement."""
    if not connection.is_prepared:
        found = look(connection)
        _refuse(connection, found)
        connection.is_prepared = found is not None and not missing_versions(connection, found)


def missing(connection: Connection) -> list[str]:
    """Names of collections and indexes that are not there."""
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
