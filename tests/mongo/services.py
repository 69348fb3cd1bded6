"""Several servers that make one deployment: a replica set on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pymongo.errors import PyMongoError

from tests.mongo.servers import Server
from tests.support import until

_OPTIONS = ("--replSet", "jobs", "--oplogSize", "50")


@dataclass(frozen=True, slots=True)
class Replicas:
    """The members of a replica set, which elects another primary a second after its primary has gone."""

    servers: list[Server]

    @property
    def url(self) -> str:
        """One that names all members."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"mongodb://{hosts}/mrq?replicaSet=jobs"

    def primary(self) -> Server:
        """The member that takes writes; waits until there is one."""
        return _found(until(self._primary, what="a primary"))

    def until_whole(self) -> None:
        """Waits until there are one primary and its secondaries, none starting or rolling back."""
        until(self._is_whole, what="all members to be there")

    def step_down(self) -> Server:
        """Tells the primary to be none for a while; returns it when it is none any more."""
        old = self.primary()
        with old.client() as client:
            client.admin.command("replSetStepDown", 6, secondaryCatchUpPeriodSecs=5)
        return old

    def next_primary(self, old: Server) -> Server:
        """Another primary than that; waits until there is one."""
        return _found(until(lambda: self._primary_but(old), what="another primary"))

    def _primary_but(self, old: Server) -> Server | None:
        found = self._primary()
        return None if found is old else found

    def _primary(self) -> Server | None:
        return next((server for server in self.servers if _told(server).get("isWritablePrimary")), None)

    def _is_whole(self) -> bool:
        told = [_told(server) for server in self.servers]
        primaries = sum(bool(one.get("isWritablePrimary")) for one in told)
        secondaries = sum(bool(one.get("secondary")) for one in told)
        return primaries == 1 and secondaries == len(told) - 1


def _found(server: Server | None) -> Server:
    assert server is not None
    return server


def _told(server: Server) -> dict[str, Any]:
    if not server.is_running:
        return {}
    try:
        with server.client() as client:
            return client.admin.command("hello")
    except PyMongoError:
        return {}


@contextlib.contextmanager
def replica_set(members: int = 3) -> Iterator[Replicas]:
    """A replica set called ``jobs``."""
    with ThreadPoolExecutor(members) as pool:
        starting = [pool.submit(Server, *_OPTIONS) for _ in range(members)]
    servers = [one.result() for one in starting if one.exception() is None]
    try:
        for one in starting:
            one.result()
        hosts = [{"_id": number, "host": f"127.0.0.1:{server.port}"} for number, server in enumerate(servers)]
        quick = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 300}
        with servers[0].client() as client:
            client.admin.command("replSetInitiate", {"_id": "jobs", "members": hosts, "settings": quick})
        replicas = Replicas(servers)
        replicas.until_whole()
        yield replicas
    finally:
        for server in servers:
            server.stop()
