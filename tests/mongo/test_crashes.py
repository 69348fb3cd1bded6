"""A process that is killed between any two calls of the server loses nothing; repeating work does no harm.

A change of a job is one call, but what follows from it (numbers, keys, slots) takes others. So each operation
is cut off before and after each of its calls, at every place that there is; and each reply in turn gets lost.
"""

from __future__ import annotations

import pytest
from pymongo.errors import AutoReconnect

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import recounting
from mrq_broker_mongo.server.connection import Connection
from tests.crashes.contract import CrashContract
from tests.crashes.scene import Scene
from tests.mongo.recount import check_collections, differences

pytestmark = pytest.mark.timeout(300)  # a story is told up to a hundred times


class MongoScene(Scene):
    """Collections with jobs."""

    def lose(self, point: str) -> None:
        raise AutoReconnect("the connection was lost before the reply came")

    def check_numbers(self) -> None:
        assert isinstance(self.broker, MongoBroker)
        connection: Connection = self.broker._connection
        assert differences(connection) == {}

    def check_everything(self) -> None:
        assert isinstance(self.broker, MongoBroker)
        check_collections(self.broker)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recount waits for other processes to finish their calls. Here, none runs beside it."""
    monkeypatch.setattr(recounting, "_BETWEEN", 0.0)


class TestMongo(CrashContract):
    scene = MongoScene
    thirds = (0, 1)
