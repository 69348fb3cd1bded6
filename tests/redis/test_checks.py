"""What `mrq check` says of a server."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_broker_redis.server import layout
from mrq_core.contract.messages import NewJob, RawItem
from mrq_core.contract.queries import Finding
from mrq_core.contract.record import JobRecord
from mrq_core.errors import BrokerError
from mrq_core.ids import new_id
from tests.proxy import Proxy
from tests.redis.kit import Place, open_broker
from tests.redis.servers import Server
from tests.servers import free_port
from tests.support import open_project, until


@pytest.fixture
def own_server() -> Iterator[Server]:
    server = Server("--appendonly", "yes")
    yield server
    server.stop()


def findings(server: Server) -> dict[str, Finding]:
    broker = open_broker(Place(server.url, "mrq"))
    found = {finding.subject: finding for finding in broker.check()}
    broker.close()
    return found


def test_a_server_that_is_set_up_well_has_no_findings(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    broker.prepare()
    found = findings(own_server)
    assert {finding.level for finding in found.values()} == {"ok"}
    assert f"version {layout.VERSION}" in found["layout"].message
    assert str(own_server.port) in found["version"].message
    broker.close()


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        *((name, "keys") for name in ("layout", "queues", "i:s:queued", "slots", "w:0:q", "c:q", "i:q:q")),
        ("n:q", "derived keys"),
    ],
)
def test_a_key_of_another_type_is_named(own_server: Server, name: str, subject: str) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    now = broker.now()
    record = JobRecord(id=new_id(), path="some.Task", params={}, queue="q", queued_at=now, updated_at=now)
    broker.enqueue([NewJob(record=record)])
    key = broker._connection.key(name)
    broker._connection.execute("DEL", key)
    broker._connection.execute("RPUSH", key, "x")
    finding = {one.subject: one for one in broker.check()}[subject]
    broker.close()
    assert finding.level == "error"
    assert f"{key} is a list, expected a " in finding.message


def test_a_damaged_lease_of_a_parameter_is_kept_and_named(own_server: Server) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    raw = broker.raw("urls_set")
    raw.push([RawItem(param=param) for param in "ab"])
    lost, other = raw.claim(2, 0.01, "w")
    broker._connection.execute("HSET", broker._connection.key("raw-lease:urls_set"), lost.job_id, "\xc1")
    until(lambda: [one.param for one in raw.claim(2, 60.0, "w")] == [other.param], what="the other parameter")
    finding = {one.subject: one for one in broker.check()}["damaged keys"]
    kept = broker._connection.key("damaged:raw-lease:urls_set")
    assert kept in finding.message
    broker._connection.execute("DEL", kept)
    assert "damaged keys" not in {one.subject for one in broker.check()}
    broker.close()


def test_a_server_that_is_too_old_is_found(own_server: Server) -> None:
    with Proxy(own_server.port) as proxy:
        proxy.show_instead(rb"redis_version:\d\.\d", b"redis_version:6.0")
        broker = open_broker(Place(f"redis://127.0.0.1:{proxy.port}/0", "mrq"))
        [finding] = [one for one in broker.check() if one.level == "error"]
        broker.close()
    assert finding.subject == "version"
    assert "Redis 6.0" in finding.message
    assert "6.2" in finding.message
    assert "upgrade" in finding.advice


def test_a_server_that_is_older_still_is_found_and_named_by_each_call() -> None:
    server = Server("--rename-command", "HELLO", "")
    try:
        [finding] = findings(server).values()
        assert finding.level == "error"
        assert "older than 6.2" in finding.message
        broker = open_broker(Place(server.url, "mrq"))
        with pytest.raises(BrokerError, match=f"{server.port}/0 does not know .* older than 6.2"):
            broker.counts(["q"])
        broker.close()
    finally:
        server.stop()


@pytest.mark.parametrize(("maxmemory", "level"), [("0", "warning"), ("1gb", "error")])
def test_a_server_that_evicts_keys_is_found(own_server: Server, maxmemory: str, level: str) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", maxmemory)
    finding = findings(own_server)["eviction"]
    assert finding.level == level
    assert "noeviction" in finding.advice


def test_a_server_without_an_append_only_file_is_found(own_server: Server) -> None:
    with own_server.client() as client:
        client.config_set("appendonly", "no")
    finding = findings(own_server)["persistence"]
    assert finding.level == "warning"
    assert "appendonly yes" in finding.advice


def test_a_server_that_cannot_write_its_append_only_file_is_found(own_server: Server) -> None:
    """Here its files may not grow any more, as on a full disk."""
    with own_server.client() as client:
        client.set("key", "x" * 10_000)
        resource.prlimit(own_server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        client.set("key", "y" * 10_000)

        def is_failing() -> bool:
            return bool(dict(client.info("persistence"))["aof_last_write_status"] != "ok")

        until(is_failing, what="the server to fail to write its file")
    finding = findings(own_server)["persistence"]
    assert finding.level == "error"
    assert "disk" in finding.advice
    resource.prlimit(own_server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_server_that_is_nearly_full_is_found(own_server: Server) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory", int(dict(client.info("memory"))["used_memory"] * 1.05))
    assert findings(own_server)["memory"].level == "warning"


@pytest.mark.parametrize(("setting", "value"), [("min-replicas-to-write", 1), ("maxmemory", 1)])
def test_a_server_that_refuses_changes_is_found(own_server: Server, setting: str, value: int) -> None:
    with own_server.client() as client:
        client.config_set(setting, value)
        finding = findings(own_server)["writes"]
        assert finding.level == "error"
        assert "refused a call, because it has" in finding.message
        client.config_set(setting, 0)
        assert findings(own_server)["writes"].level == "ok"
        assert client.dbsize() == 0


def test_a_server_with_as_many_clients_as_it_takes_says_what_to_do(own_server: Server) -> None:
    with own_server.client() as client:
        client.config_set("maxclients", 1)
        assert "raise its maxclients" in findings(own_server)["server"].message


def test_a_replica_is_found(own_server: Server) -> None:
    with own_server.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
    finding = findings(own_server)["role"]
    assert finding.level == "error"
    assert "primary" in finding.advice


def test_a_newer_layout_is_found(own_server: Server) -> None:
    with own_server.client() as client:
        client.set("{mrq}:layout", 99)
    assert findings(own_server)["layout"].level == "error"


def test_a_server_that_is_away_is_a_finding_and_the_command_exits_with_1(tmp_path: Path) -> None:
    url = f"redis://:geheim@127.0.0.1:{free_port()}"
    with open_project(tmp_path, url) as project:
        process = project.start("check")
        assert process.wait() == 1
        assert "cannot be reached" in process.output
        assert "Traceback" not in process.output
        assert "geheim" not in process.output


def test_the_command_exits_with_0_where_there_are_only_warnings_and_says_what_to_set(
    own_server: Server, tmp_path: Path
) -> None:
    with own_server.client() as client:
        client.config_set("appendonly", "no")
    with open_project(tmp_path, own_server.url) as project:
        printed = project.mrq("check")
        assert "CONFIG SET appendonly yes" in printed
        with own_server.client() as client:
            client.config_set("maxmemory-policy", "volatile-ttl")
            client.config_set("maxmemory", "1gb")
        process = project.start("check")
        assert process.wait() == 1
        assert "CONFIG SET maxmemory-policy noeviction" in process.output


@pytest.mark.parametrize(
    ("rights", "unknown"),
    [
        (("+@read", "+@connection"), {"server", "writes"}),
        (("+@read", "+@connection", "+info"), {"writes"}),
        (("+@all", "-@dangerous", "-@write"), {"server", "writes"}),
        (("+@all", "-@write"), {"writes"}),
        (("+@all", "-@scripting"), {"writes"}),
        (("+@all", "-zadd"), {"writes"}),
        (("+@all", "-del"), {"writes"}),
        (("+@all", "-hgetall", "-rename"), {"writes"}),
        (("+@all", "-blpop"), {"writes"}),
        (("+@all", "-@admin", "-@dangerous", "+info"), set()),
        (("+@connection", "+info"), {"layout", "writes"}),
    ],
)
def test_what_the_user_may_not_do_is_a_finding_beside_the_others(
    own_server: Server, rights: tuple[str, ...], unknown: set[str]
) -> None:
    broker = open_broker(Place(own_server.url, "mrq"))
    broker.prepare()
    broker.close()
    with own_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", *rights)
    broker = open_broker(Place(own_server.url.replace("//", "//reader:pass@"), "mrq"))
    found = {finding.subject: finding for finding in broker.check()}
    broker.close()
    assert {subject for subject, finding in found.items() if finding.level != "ok"} == unknown
    assert all("extend its ACL" in found[subject].message for subject in unknown)
    assert {"layout", "writes"} <= found.keys()
    with own_server.client() as client:
        assert not client.exists("{mrq}:none")
    assert ("server" in unknown) != ({"version", "role", "eviction", "persistence", "memory"} <= found.keys())
