"""The tables, and the data version of a file.

A file with the application id of mrq belongs to mrq. mrq never writes to a file with tables and another id.

`jobs.rank` orders the entries of a queue and is NULL for a job without an entry: minus the priority
of a waiting job, 9 for a claimed job. `due_ms` is the time from which a waiting job may be
claimed, or at which the lease of a claimed job ends. The index over (queue, rank, due_ms, id)
therefore holds entries only, and the due entries of each (queue, rank) come first:
a claim seeks to them and never passes a job that is not due. A parked job has no rank; `parked`
has its limit key and its former due time. `allowed_ms` is the time at which a rate allows
a waiting job.

`record` is the job as it was last written in full. The two most frequent changes, the claim of a waiting job
and a success, are written into separate columns: `token`, `worker`
and `started_ms`, then `outcome` and `settled_ms`. Reading a row applies these to the record, see `rows`.
`is_plain` says that a success of this job changes only its row: the job has no limit key, no unique key and
no cancel request.

`terms` is the index of `mrq_core.contract.terms`, see `jobs.terms`. `uniques` has the holders of unique keys,
and `record_keys` the holders of keys until `record`, see `jobs.uniques`. `metrics` has the roll-ups of
`mrq_core.drivers.rollups`.

`subqueues` has the earliest due times of every queue in a tree, so that a tree of any size shows its due
subqueues at once; see `jobs.trees`.
"""

from __future__ import annotations

import sqlite3

from mrq_core.contract.terms import error_terms_of
from mrq_core.drivers import encoding
from mrq_core.drivers.versions import DataVersion, Upgrade, Upgrades, missing_upgrades, read_version
from mrq_core.errors import BrokerError

APPLICATION_ID = 0x6D727131  # "mrq1"
VERSION = 2
"""The version of the layout that this driver writes."""
OLDEST = 2
"""The oldest version of the driver that may work on this layout."""

_TERMS = """CREATE TABLE terms (
        name TEXT NOT NULL, value TEXT NOT NULL, job_id TEXT NOT NULL, PRIMARY KEY (name, value, job_id)
    ) WITHOUT ROWID"""
_METRICS = (
    """CREATE TABLE metrics (
        resolution TEXT NOT NULL, name TEXT NOT NULL, slot INTEGER NOT NULL, tags TEXT NOT NULL,
        cell BLOB NOT NULL, PRIMARY KEY (resolution, name, slot, tags)
    ) WITHOUT ROWID""",
    "CREATE INDEX metrics_by_slot ON metrics (resolution, slot)",
)
_RECORD_KEYS = "CREATE TABLE record_keys (key TEXT PRIMARY KEY, job_id TEXT NOT NULL) WITHOUT ROWID"
_TABLES = (
    """CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        queue TEXT NOT NULL,
        path TEXT NOT NULL,
        status TEXT NOT NULL,
        worker TEXT,
        exception_type TEXT,
        schedule TEXT,
        queued_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        rank INTEGER,
        due_ms INTEGER,
        unique_until TEXT,
        allowed_ms INTEGER,
        is_plain INTEGER NOT NULL,
        token TEXT,
        started_ms INTEGER,
        settled_ms INTEGER,
        outcome BLOB,
        record BLOB NOT NULL,
        params BLOB NOT NULL
    )""",
    "CREATE INDEX jobs_entries ON jobs (queue, rank, due_ms, id) WHERE rank IS NOT NULL",
    "CREATE INDEX jobs_by_status ON jobs (status, id)",
    "CREATE INDEX jobs_by_path ON jobs (path, id)",
    "CREATE INDEX jobs_by_queue ON jobs (queue, id)",
    "CREATE INDEX jobs_by_schedule ON jobs (schedule, id) WHERE schedule IS NOT NULL",
    "CREATE INDEX jobs_by_expiry ON jobs (expires_ms) WHERE expires_ms IS NOT NULL",
    _TERMS,
    """CREATE TABLE totals (
        kind TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (kind, name, status)
    ) WITHOUT ROWID""",
    """CREATE TABLE subqueues (
        queue TEXT PRIMARY KEY, root TEXT NOT NULL, waiting_ms INTEGER, claimed_ms INTEGER,
        due_ms INTEGER NOT NULL, is_ready INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX subqueues_ready ON subqueues (queue) WHERE is_ready",
    "CREATE INDEX subqueues_later ON subqueues (root, due_ms) WHERE NOT is_ready",
    "CREATE TABLE queues (name TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE uniques (
        key TEXT PRIMARY KEY, job_id TEXT NOT NULL, until TEXT NOT NULL, expires_ms INTEGER
    ) WITHOUT ROWID""",
    "CREATE INDEX uniques_by_job ON uniques (job_id)",
    _RECORD_KEYS,
    "CREATE INDEX uniques_by_expiry ON uniques (expires_ms) WHERE expires_ms IS NOT NULL",
    """CREATE TABLE slots (
        job_id TEXT NOT NULL, limit_key TEXT NOT NULL, until_ms INTEGER NOT NULL,
        PRIMARY KEY (job_id, limit_key)
    ) WITHOUT ROWID""",
    "CREATE INDEX slots_by_end ON slots (until_ms)",
    "CREATE TABLE running (limit_key TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE parked (
        limit_key TEXT NOT NULL, rank INTEGER NOT NULL, since_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL,
        job_id TEXT NOT NULL,
        PRIMARY KEY (limit_key, rank, since_ms, due_ms, job_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX parked_by_job ON parked (job_id)",
    "CREATE TABLE rates (limit_key TEXT PRIMARY KEY, tat_us INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX rates_by_time ON rates (tat_us)",
    """CREATE TABLE logs (
        job_id TEXT NOT NULL, attempt INTEGER NOT NULL, seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL,
        PRIMARY KEY (job_id, attempt, seq)
    ) WITHOUT ROWID""",
    """CREATE TABLE log_sizes (
        job_id TEXT PRIMARY KEY, size INTEGER NOT NULL, is_full INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE state (
        namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
        version INTEGER NOT NULL, expires_ms INTEGER,
        PRIMARY KEY (namespace, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX state_by_expiry ON state (expires_ms) WHERE expires_ms IS NOT NULL",
    """CREATE TABLE signals (
        n INTEGER PRIMARY KEY AUTOINCREMENT, worker TEXT NOT NULL, job_id TEXT NOT NULL, token TEXT NOT NULL
    )""",
    "CREATE INDEX signals_by_worker ON signals (worker, n)",
    "CREATE INDEX signals_by_job ON signals (job_id)",
    """CREATE TABLE raw_waiting (
        seq INTEGER PRIMARY KEY, queue TEXT NOT NULL, param TEXT NOT NULL, score REAL NOT NULL,
        number INTEGER NOT NULL DEFAULT 0, visit TEXT
    )""",
    "CREATE INDEX raw_order ON raw_waiting (queue, score, seq)",
    "CREATE INDEX raw_params ON raw_waiting (queue, param, seq)",
    """CREATE TABLE raw_leased (
        job_id TEXT PRIMARY KEY, queue TEXT NOT NULL, param TEXT NOT NULL, score REAL NOT NULL,
        token TEXT NOT NULL, until_ms INTEGER NOT NULL, is_over INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX raw_leases ON raw_leased (queue, until_ms, job_id)",
    "CREATE TABLE raw_settled (token TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX raw_settled_by_time ON raw_settled (at_ms)",
    *_METRICS,
    "CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO numbers VALUES ('state', 0), ('rules', 0), ('syncs', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
)


def _named(kind: str) -> dict[str, str]:
    """The statements that create objects of a kind, by the names of the objects."""
    start = f"CREATE {kind} "
    return {one.removeprefix(start).split(maxsplit=1)[0]: one for one in _TABLES if one.startswith(start)}


TABLES, INDEXES = _named("TABLE"), _named("INDEX")

_FORGET_EXCEPTIONS = """
UPDATE jobs SET exception_type = NULL WHERE exception_type IS NOT NULL AND started_ms IS NOT NULL"""
"""Early drivers of version 1 left the type of the last attempt in the row of a claimed job."""
_FAILED = "SELECT record FROM jobs WHERE exception_type IS NOT NULL"
_SUM_GROUPS = """
INSERT INTO totals SELECT 'group', value, status, count(*) FROM terms CROSS JOIN jobs ON jobs.id = job_id
WHERE name = 'group' GROUP BY value, status"""
_SUM_TYPES = """
INSERT INTO totals SELECT 'type', exception_type, status, count(*) FROM jobs
WHERE exception_type IS NOT NULL GROUP BY exception_type, status"""
_MOVE_PAUSES = """
INSERT INTO state (namespace, name, value, version)
SELECT 'pauses', queue, CAST('{}' AS BLOB), value + 1 FROM pauses JOIN numbers ON numbers.name = 'state'"""
_NEXT_STATE = "UPDATE numbers SET value = value + 1 WHERE name = 'state'"


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Adds terms, keys until `record`, metrics with tags, and pauses in shared state.

    Records of version 1 have no search keys and no such keys, and its workers recorded no metrics."""
    connection.execute("DROP TABLE metrics")
    for statement in _METRICS:
        connection.execute(statement)
    connection.execute(_RECORD_KEYS)
    connection.execute(_TERMS)
    connection.execute(_FORGET_EXCEPTIONS)
    failed = (encoding.decode(data) for (data,) in connection.execute(_FAILED))
    connection.executemany(
        "INSERT INTO terms VALUES (?, ?, ?)",
        ((*term, record.id) for record in failed for term in error_terms_of(record)),
    )
    connection.execute(_SUM_GROUPS)
    connection.execute(_SUM_TYPES)
    connection.execute("DROP INDEX jobs_by_exception")
    connection.execute(_MOVE_PAUSES)
    connection.execute(_NEXT_STATE)
    connection.execute("DROP TABLE pauses")
    connection.execute("UPDATE numbers SET name = 'rules', value = value + 1 WHERE name = 'pauses'")


UPGRADES: Upgrades[sqlite3.Connection] = {2: Upgrade(_to_version_2, oldest=2)}
"""Each upgrade runs in one transaction together with the change of the two numbers. Version 2 refuses drivers
of version 1, which would leave the terms of the jobs that they change."""


def fill_numbers(connection: sqlite3.Connection, now_ms: int) -> None:
    """Writes numbers that are larger than those of a lost table: each process reads the rules again."""
    numbers = [(name, now_ms) for name in ("state", "rules", "syncs")]
    connection.executemany("INSERT INTO numbers VALUES (?, ?)", numbers)
    _set_version(connection, DataVersion(VERSION, OLDEST))


def is_ready(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the tables exist in the version of this driver or a later one.

    Raises SchemaTooNew, and BrokerError for the database of another application. Writes nothing. Call it
    inside a transaction, because another process may be creating or upgrading the tables.
    """
    stored = version_of(connection, path)
    return stored is not None and not missing_upgrades(stored, VERSION, where=path)


def version_of(connection: sqlite3.Connection, path: str) -> DataVersion | None:
    """The version of the data. None: the file is empty. Raises BrokerError for another application's file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        row = connection.execute("SELECT value FROM numbers WHERE name = 'oldest_version'").fetchone()
        return read_version(version, None if row is None else row[0], where=path)
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if objects or application or version:
        raise BrokerError(
            f"{path} is an SQLite database of another application (application id {application:#x}, "
            f"{objects} tables and indexes): nothing was written to it; name another path in SQLITE or the "
            "URL"
        )
    return None


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Creates the tables in an empty file, or upgrades the data, one transaction for each upgrade.

    Safe in several processes at once: the first process writes, and the others find the result.
    """
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            stored = version_of(connection, path)
            if stored is None:
                for statement in _TABLES:
                    connection.execute(statement)
                _set_version(connection, DataVersion(VERSION, OLDEST))
                missing = range(0)
            else:
                missing = missing_upgrades(stored, VERSION, where=path)
            if stored is not None and missing:
                _upgrade(connection, stored, missing[0])
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        if len(missing) <= 1:
            return


def _upgrade(connection: sqlite3.Connection, stored: DataVersion, version: int) -> None:
    upgrade = UPGRADES[version]
    upgrade.apply(connection)
    _set_version(connection, DataVersion(version, max(stored.oldest, upgrade.oldest)))


def _set_version(connection: sqlite3.Connection, data: DataVersion) -> None:
    connection.execute("INSERT OR REPLACE INTO numbers VALUES ('oldest_version', ?)", (data.oldest,))
    connection.execute(f"PRAGMA user_version = {data.version}")
