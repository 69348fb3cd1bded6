"""Golden data of each arrangement: written to a file of this folder, and read back into a server."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import redis
from bson import json_util

from mrq_core.contract.broker import Broker
from mrq_core.testing.clock import ManualClock
from tests.brokers import server_url
from tests.composed.kit import Place as PairPlace
from tests.embedded.kit import open_broker
from tests.mongo.kit import Place as MongoPlace
from tests.redis.kit import Place as RedisPlace

FOLDER = Path(__file__).parent
PREFIX = "golden"
"""The prefix in the files. Data are read back under another one."""
ARRANGEMENTS = ("sqlite", "redis", "mongo", "redis+mongo")


class Store:
    """An arrangement on the servers of the tests, under a prefix."""

    def __init__(self, arrangement: str, folder: Path, prefix: str) -> None:
        self.arrangement = arrangement
        self._path = folder / "jobs.sqlite3"
        self._redis = RedisPlace(server_url("redis"), prefix) if "redis" in arrangement else None
        self._mongo = MongoPlace(server_url("mongo"), prefix) if "mongo" in arrangement else None

    def open(self, clock: ManualClock) -> Broker:
        """A broker on the data."""
        if self._redis is not None and self._mongo is not None:
            return PairPlace(self._redis, self._mongo).open(clock)
        place = self._redis or self._mongo
        return open_broker(self._path, clock=clock) if place is None else place.open(clock)

    def dump(self, file: Path) -> None:
        """Writes the data to a file."""
        if self.arrangement == "sqlite":
            with closing(sqlite3.connect(self._path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                file.unlink(missing_ok=True)
                connection.execute("VACUUM INTO ?", (str(file),))
            return
        data: dict[str, Any] = {}
        if self._redis is not None:
            data["redis"] = _dump_redis(self._redis)
        if self._mongo is not None:
            data["mongo"] = _dump_mongo(self._mongo)
        file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def load(self, file: Path) -> None:
        """Writes the data of a file to the server."""
        if self.arrangement == "sqlite":
            shutil.copy(file, self._path)
            return
        data = json.loads(file.read_text(encoding="utf-8"))
        if self._redis is not None:
            load_redis(self._redis, data["redis"])
        if self._mongo is not None:
            load_mongo(self._mongo, data["mongo"])


# --- Redis: a list of [key, type, value], all text as base64 of its bytes ----------------------------


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _dump_redis(place: RedisPlace) -> list[list[Any]]:
    dumped = []
    start = f"{{{place.prefix}}}:".encode()
    with redis.Redis.from_url(place.url) as client:
        for key in sorted(client.scan_iter(start + b"*", count=1000)):
            if key.startswith(start + b"wake:"):  # tokens for waiting workers, which expire within seconds
                continue
            kind = client.type(key).decode()
            value: Any
            if kind == "string":
                value = _text(client.get(key) or b"")
            elif kind == "hash":
                value = {_text(name): _text(item) for name, item in sorted(client.hgetall(key).items())}
            elif kind == "zset":
                value = [
                    [_text(one), repr(score)] for one, score in client.zrange(key, 0, -1, withscores=True)
                ]
            elif kind == "set":
                value = sorted(_text(one) for one in client.smembers(key))
            else:
                value = [_text(one) for one in client.lrange(key, 0, -1)]
            assert client.pttl(key) == -1, f"{key!r} expires by the server's clock"
            dumped.append([key.removeprefix(start).decode("latin-1"), kind, value])
    return dumped


def load_redis(place: RedisPlace, dumped: list[list[Any]]) -> None:
    with redis.Redis.from_url(place.url) as client:
        for name, kind, value in dumped:
            key = f"{{{place.prefix}}}:".encode() + name.encode("latin-1")
            if kind == "string":
                client.set(key, _bytes(value))
            elif kind == "hash":
                client.hset(key, mapping={_bytes(field): _bytes(item) for field, item in value.items()})
            elif kind == "zset":
                client.zadd(key, {_bytes(one): float(score) for one, score in value})
            elif kind == "set":
                client.sadd(key, *map(_bytes, value))
            else:
                client.rpush(key, *map(_bytes, value))


# --- MongoDB: the documents of each collection, as extended JSON --------------------------------------


def _dump_mongo(place: MongoPlace) -> dict[str, Any]:
    with pymongo.MongoClient[dict[str, Any]](place.url, tz_aware=True) as client:
        database = client.get_default_database()
        return {
            name.removeprefix(place.prefix + "_"): json.loads(
                json_util.dumps(list(database[name].find().sort("_id")), json_options=_OPTIONS)
            )
            for name in sorted(database.list_collection_names())
            if name.startswith(place.prefix + "_") and not name.endswith("_wake")
        }


def load_mongo(place: MongoPlace, dumped: dict[str, Any]) -> None:
    with pymongo.MongoClient[dict[str, Any]](place.url, tz_aware=True) as client:
        database = client.get_default_database()
        for name, documents in dumped.items():
            if documents:
                read = json_util.loads(json.dumps(documents), json_options=_OPTIONS)
                database[f"{place.prefix}_{name}"].insert_many(read)


_OPTIONS = json_util.CANONICAL_JSON_OPTIONS.with_options(tz_aware=True)
