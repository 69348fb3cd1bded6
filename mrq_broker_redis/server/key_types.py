"""Keys of the prefix that have another type than mrq gives them: made by another program, or by hand.

A command on such a key fails, and with it each call that needs the key. Keys of single jobs are not examined
here: `jobs/damaged` sets their jobs aside. The set `damaged` has the names of the keys with damaged values.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrq_broker_redis.server.connection import Connection
from mrq_core.contract import rules
from mrq_core.contract.queries import Finding
from mrq_core.contract.record import Status

MOST_QUEUES = 1000
"""The number of queues whose keys are examined."""
_SHOWN = 5
NAMESPACES = (
    *(*rules.NAMESPACES, rules.REQUESTS, "answers", "audit", "audit_counters", "bulk", "receipts"),
    *("schedules", "schedule_changes", "schedulers", "search-keys", "tasks", "views", "workers"),
)
"""The namespaces of shared state."""
_KEYS = {
    "hash": (
        *(f"state:{namespace}" for namespace in NAMESPACES),
        *("running", "parked", "parked-in", "u", "u:at", "u:r", "spacings", "n:q", "n:h", "n:e", "n:g"),
    ),
    "zset": (
        *("x", "queues", "slots", "parked-keys", "u:x", "rates", "states:x", "raw-names", "raw-settled"),
        *("metrics:m", "metrics:h"),
        *(f"i:s:{status}" for status in Status),
    ),
    "set": ("ranks", "damaged"),
    "string": ("layout", "signals", "queues-walk", "states:n", "rules:n"),
}
NUMBERS = ("n:q", "n:h", "n:e", "n:g", "parked-in", "running")
REMADE = (*NUMBERS, "x", "parked-keys", "metrics:m", "metrics:h")
"""The keys that `lua/jobs/recounting.lua` makes anew."""
_OF_QUEUE = ("i:q:{}", "c:{}", "w:0:{}", "ready:{}", "later:{}")
"""The sorted sets of a queue, or of a tree."""


def findings(connection: Connection) -> Iterator[Finding]:
    """An error that names keys of another type, and a warning that names damaged values that were kept."""
    wanted = {connection.key(name): kind for kind, names in _KEYS.items() for name in names}
    wrong = _wrong(connection, wanted)
    if connection.key("queues") not in wrong:
        wrong |= _wrong(connection, dict.fromkeys(_keys_of_queues(connection), "zset"))
    remade = {key: wrong.pop(key) for key in map(connection.key, REMADE) if key in wrong}
    remade |= dict.fromkeys(_without_numbers(connection), ("hash with values that are no numbers", "hash"))
    if remade:
        named = [f"{key} is a {found}, expected a {kind}" for key, (found, kind) in remade.items()]
        yield Finding(
            level="error",
            subject="derived keys",
            message=f"keys that follow from the jobs, or from metrics, were changed: {'; '.join(named)}",
            advice="the next call that needs them makes them anew, metrics without the earlier ones; "
            "`mrq check --repair` makes totals anew now",
        )
    if wrong:
        named = [f"{key} is a {found}, expected a {kind}" for key, (found, kind) in wrong.items()]
        more = f"; and {len(wrong) - _SHOWN} others" if len(wrong) > _SHOWN else ""
        yield Finding(
            level="error",
            subject="keys",
            message=f"keys have another type than mrq gives them: {'; '.join(named[:_SHOWN])}{more}",
            advice="set REDIS_PREFIX to an unused name if another program has made them; else keep a copy of "
            "their values, delete the keys, and compare with `mrq check --repair`",
        )
    kept = [] if connection.key("damaged") in wrong else _kept(connection)
    if kept:
        import shlex  # here: each worker imports this file, and a file of a project may hide the module

        more = f"; and {len(kept) - _SHOWN} others" if len(kept) > _SHOWN else ""
        yield Finding(
            level="warning",
            subject="damaged keys",
            message=f"damaged values were found and are kept under {'; '.join(kept[:_SHOWN])}{more}",
            advice="read them, put right what they concern, and delete these keys: redis-cli DEL "
            + " ".join(shlex.quote(key) for key in kept),
        )


def _without_numbers(connection: Connection) -> Iterator[str]:
    """The hashes of numbers that have another value."""
    for name in NUMBERS:
        key = connection.key(name)
        if connection.execute("TYPE", key) == b"hash":
            values = connection.execute("HVALS", key)
            if not all(value.removeprefix(b"-").isdigit() for value in values):
                yield key


def _kept(connection: Connection) -> list[str]:
    """The keys with damaged values that are not deleted yet."""
    names = [name.decode() for name in connection.execute("SMEMBERS", connection.key("damaged"))]
    keys = [connection.key(name) for name in sorted(names)]
    return [key for key in keys if connection.execute("EXISTS", key)]


def _wrong(connection: Connection, wanted: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The found and the expected type of the keys that have another one."""
    names = list(wanted)

    def types(client: object) -> list[bytes]:
        pipeline = client.pipeline(transaction=False)  # type: ignore[attr-defined]
        for name in names:
            pipeline.type(name)
        answers: list[bytes] = pipeline.execute()
        return answers

    found = [one.decode() for one in connection.use(types)]
    return {
        name: (kind, wanted[name])
        for name, kind in zip(names, found, strict=True)
        if kind not in ("none", wanted[name])
    }


def _keys_of_queues(connection: Connection) -> Iterator[str]:
    found = connection.execute("ZRANGE", connection.key("queues"), "0", str(MOST_QUEUES - 1))
    names = dict.fromkeys(name.decode() for name in found)
    names |= dict.fromkeys(f"{name.partition('/')[0]}/" for name in names if "/" in name)
    for name in names:
        yield from (connection.key(pattern.format(name)) for pattern in _OF_QUEUE)
