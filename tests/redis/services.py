"""Several servers that make one service: a primary that sentinels watch, and a cluster."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.redis.servers import PROGRAM, Server
from tests.servers import SECONDS, free_port
from tests.support import until

NODES = 3
SAFE_NODES = ("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
"""Of a cluster whose nodes keep what they have acknowledged, and go on where another one is away."""
_SLOTS = 16384


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary, its replica, and the URL of the three sentinels that watch them."""

    primary: Server
    replica: Server
    url: str

    def until_replicated(self) -> None:
        """Waits until the replica has all that was written so far."""
        with self.primary.client() as primary, self.replica.client() as replica:
            until(
                lambda: primary.info()["master_repl_offset"] == replica.info()["master_repl_offset"],
                what="the replica to have everything",
            )

    def cut(self) -> None:
        """From now on the replica gets nothing of what is written."""
        with self.primary.client() as primary:
            primary.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            primary.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def is_linked(self) -> bool:
        """Whether the replica gets what is written from now on."""
        with self.replica.client() as client:
            return bool(client.info().get("master_link_status") == "up")

    def is_promoted(self) -> bool:
        """Whether the replica has become the primary."""
        with self.replica.client() as client:
            return bool(client.info()["role"] == "master")


@contextlib.contextmanager
def sentinels(folder: Path) -> Iterator[Watched]:
    """A service called ``jobs``, which fails over half a second after its primary has gone."""
    primary = Server("--appendonly", "yes", "--repl-diskless-sync-delay", "0")
    replica = Server("--replicaof", "127.0.0.1", str(primary.port))
    processes: list[subprocess.Popen[bytes]] = []
    ports = [free_port() for _ in range(3)]
    try:
        for port in ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor jobs 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds jobs 500\nsentinel failover-timeout jobs 3000\n"
            )
            command = [PROGRAM.require(), str(config), "--sentinel"]
            with (folder / f"sentinel-{port}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        until(lambda: all(_is_watching(port) for port in ports), what="the sentinels to find each other")
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        watched = Watched(primary, replica, f"redis+sentinel://{hosts}/jobs/0")
        until(watched.is_linked, what="the replica to be in step")
        yield watched
    finally:
        for process in processes:
            process.terminate()
            process.wait(SECONDS)
        primary.stop()
        replica.stop()


@contextlib.contextmanager
def one_sentinel(folder: Path, primary: int, *lines: str) -> Iterator[int]:
    """The port of a sentinel that watches the server at this port as ``jobs``. `lines`: its configuration."""
    port = free_port()
    config = folder / f"sentinel-{port}.conf"
    ports = (
        [f"port {port}"]
        if not any(line.startswith("tls") for line in lines)
        else [f"port 0\ntls-port {port}"]
    )
    watched = f"sentinel monitor jobs 127.0.0.1 {primary} 1"
    config.write_text("\n".join([*ports, "bind 127.0.0.1", f"dir {folder}", *lines, watched, ""]))
    with (folder / f"sentinel-{port}.log").open("wb") as log:
        process = subprocess.Popen([PROGRAM.require(), str(config), "--sentinel"], stdout=log, stderr=log)
    try:
        until(lambda: _is_listening(port), what="the sentinel to listen")
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _is_watching(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            state = dict(client.sentinel_masters()["jobs"])
            replicas = client.sentinel_slaves("jobs")
    except (redis.exceptions.RedisError, KeyError):
        return False
    return int(state["num-other-sentinels"]) == 2 and [one["flags"] for one in replicas] == ["slave"]


@contextlib.contextmanager
def cluster(*options: str, number: int = NODES) -> Iterator[list[Server]]:
    """Nodes, each with an equal part of the slots."""
    servers: list[Server] = []
    try:
        for _ in range(number):
            needed = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            servers.append(Server(*needed, *options))
        for place, server in enumerate(servers):
            first, end = _SLOTS * place // number, _SLOTS * (place + 1) // number
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
        with servers[0].client() as client:
            for server in servers[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        until_in_step(servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def cluster_url(servers: list[Server]) -> str:
    """One that names two of the nodes; the client finds the third."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[1:])


def prefix_on(servers: list[Server], node: Server) -> str:
    """A prefix whose keys that node holds."""
    with node.client() as client:
        for number in itertools.count():
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", f"{{shop-{number}}}:"))
            if servers[slot * NODES // _SLOTS] is node:
                return f"shop-{number}"
    raise AssertionError("each node holds some")


def until_in_step(servers: list[Server]) -> None:
    """Waits until all nodes are of the opinion that all slots are served."""
    until(lambda: all(_is_whole(server) for server in servers), what="the cluster to be whole")


def _is_whole(server: Server) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    text = info.decode() if isinstance(info, bytes) else str(info)
    is_ok = "cluster_state:ok" in text or "'cluster_state': 'ok'" in text
    return is_ok and re.search(rf"cluster_slots_ok\W+{_SLOTS}\b", text) is not None
