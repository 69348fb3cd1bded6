"""Where there is no server, its tests are skipped, and where servers are required, that is a failure."""

from __future__ import annotations

import pytest

from tests.mongo.servers import Server
from tests.mongo.services import replica_set
from tests.servers import Program


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "find", lambda program: None)
    monkeypatch.delenv("MRQ_TEST_REQUIRE_SERVERS", raising=False)


def test_without_a_server_tests_are_skipped_with_a_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="no mongod on the PATH"):
        Server()
    with pytest.raises(pytest.skip.Exception, match="no mongod on the PATH"), replica_set():
        pass


def test_where_servers_are_required_that_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRQ_TEST_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="no mongod on the PATH"):
        Server()
