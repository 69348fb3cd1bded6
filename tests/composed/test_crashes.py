"""A process that is killed between any two calls of either server loses nothing; repeating work does no harm.

Each operation writes to two servers. It is cut off before and after each of its calls, at every place that
there is; and each reply in turn gets lost. What is left of it, `RequeueLostJobs` mends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pymongo.errors import AutoReconnect
from redis.exceptions import ConnectionError as ConnectionLost

from mrq_broker_mongo import totals
from mrq_broker_mongo.store import MongoStore
from mrq_core.composed import ComposedBroker
from mrq_core.operations.mending import mend_all
from tests.composed.kit import Place
from tests.composed.recount import check_halves
from tests.crashes.scene import Scene
from tests.crashes.stories import STEPS, STORIES, Story, kill_at_places, lose_replies

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
        assert totals._differences(self.store._connection) == {}

    def check_everything(self) -> None:
        """Everything is in order once the places that were lost are given back."""
        assert isinstance(self.broker, ComposedBroker)
        for _ in mend_all(self.broker):
            pass
        check_halves(self.broker)

    def check_end(self) -> None:
        """Nothing is left in the queue that starts nothing: the claims have met it."""
        assert isinstance(self.broker, ComposedBroker)
        assert check_halves(self.broker) == set()


@pytest.fixture
def begin(place: Place) -> Iterator[Callable[[], Scene]]:
    opened: list[Scene] = []

    def begin() -> Scene:
        opened.append(PairScene(place))
        return opened[-1]

    yield begin
    for scene in opened:
        scene.broker.close()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_whoever_is_killed_between_any_two_calls_loses_nothing(
    begin: Callable[[], Scene], story: type[Story], step: int
) -> None:
    kill_at_places(begin, story, step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_whichever_reply_is_lost_nothing_else_is(
    begin: Callable[[], Scene], story: type[Story], step: int
) -> None:
    lose_replies(begin, story, step)
