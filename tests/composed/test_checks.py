"""What `mrq check` says of a pair, and what it mends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest

from tests import brokers
from tests.redis.servers import Server
from tests.support import Project, open_project


@pytest.fixture
def redis_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def checked(project: Project, *flags: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    process = project.start("check", *flags)
    return process.wait(), process.output


def test_a_pair_that_is_well_set_has_nothing_to_mend(tmp_path: Path) -> None:
    with open_project(tmp_path, *brokers.address_of("redis+mongo", tmp_path)) as project:
        code, printed = checked(project, "--fix")
        assert (code, printed.count("✗ error"), printed.count("! warning")) == (0, 0, 0)
        for subject in ("redis version", "redis persistence", "mongo durability", "mongo indexes"):
            assert f"✓ ok       {subject}: " in printed


def test_a_badly_set_pair_is_told_what_to_set_on_which_server(tmp_path: Path, redis_server: Server) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    store = brokers.address_of("mongo", tmp_path).broker + "&w=1&journal=false"
    with open_project(tmp_path, redis_server.url, store) as project:
        code, printed = checked(project)
        assert code == 1
        assert "✗ error    redis eviction: maxmemory-policy is allkeys-lru" in printed
        assert "CONFIG SET maxmemory-policy noeviction" in printed
        assert "! warning  redis persistence: no append-only file" in printed
        assert "`mrq check --repair` puts jobs back into their queues" in printed
        assert "! warning  mongo durability: writes wait for w=1, journal=false" in printed
        assert "Traceback" not in printed


def test_an_index_that_is_missing_is_named_and_made(tmp_path: Path) -> None:
    with open_project(tmp_path, *brokers.address_of("redis+mongo", tmp_path)) as project:
        checked(project, "--fix")
        prefix = project.address.store.rpartition("prefix=")[2]
        with pymongo.MongoClient[dict[str, object]](project.address.store.partition("?")[0]) as client:
            client.get_default_database()[f"{prefix}_jobs"].drop_index("status")
        code, printed = checked(project)
        assert code == 1
        assert f"mongo indexes: missing: {prefix}_jobs.status" in printed
        assert "mrq check --fix" in printed
        assert checked(project, "--fix")[0] == 0


def test_a_user_of_redis_who_may_not_write_is_a_finding_beside_those_of_both_servers(
    tmp_path: Path, redis_server: Server
) -> None:
    store = brokers.address_of("mongo", tmp_path).broker
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+@connection")
    with open_project(tmp_path, redis_server.url, store) as project:
        project.client.broker.prepare()
        url = redis_server.url.replace("//", "//reader:pass@")
        for flags in ((), ("--fix", "--repair")):
            code, printed = checked(project, *flags, "--broker", url)
            assert code == 1
            for start in ("✗ error    redis writes", "✓ ok       redis layout", "✓ ok       mongo indexes"):
                assert f"{start}: " in printed
            assert "✗ error    fix: " not in printed, "nothing has to be created"
