"""A process that is killed between any two calls of either server loses nothing; repeating work does no harm.

Each operation writes to two servers. It is cut off before and after each of its calls, at every place that
there is; and each reply in turn gets lost. What is left of it, `RequeueLostJobs` mends.
"""

from __future__ import annotations

import pytest
from pymongo.errors import AutoReconnect
from redis.exceptions import ConnectionError as ConnectionLost

from mrq_broker_mongo.jobs import recounting
from mrq_broker_mongo.store import MongoStore
from mrq_core.composed import ComposedBroker
from mrq_core.operations.actions import repair_all
from tests.composed.recount import check_halves
from tests.crashes.contract import CrashContract
from tests.crashes.scene import Scene
from tests.mongo.recount import differences

_COLLECTIONS = {"jobs", "totals", "logs", "metrics", "state", "meta"}
pytestmark = pytest.mark.timeout(600)  # a story is told up to a hundred times


class PairScene(Scene):
    """Both servers with jobs."""

    def lose(self, point: str) -> None:
        name = point.partition(".")[0]
        if name == "composed":
            return
        if name in _COLLECTIONS:
            raise AutoReconnect("the connection was lost before the reply came")
        raise ConnectionLost("the connection was lost before the reply came")

    @property
    def store(self) -> MongoStore:
        assert isinstance(self.broker, ComposedBroker)
        assert isinstance(self.broker._store, MongoStore)
        return self.broker._store

    def check_numbers(self) -> None:
        assert differences(self.store._connection) == {}

    def check_everything(self) -> None:
        """Everything is in order once the places that were lost are given back."""
        assert isinstance(self.broker, ComposedBroker)
        for _ in repair_all(self.broker):
            pass
        check_halves(self.broker)

    def check_end(self) -> None:
        """Nothing is left in the queue that starts nothing: the claims have met it."""
        assert isinstance(self.broker, ComposedBroker)
        assert check_halves(self.broker) == set()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recount waits for other processes to finish their calls. Here, none runs beside it."""
    monkeypatch.setattr(recounting, "_BETWEEN", 0.0)


class TestPair(CrashContract):
    scene = PairScene
    thirds = (2, 0)
