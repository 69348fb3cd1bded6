"""Each story, cut off at every call, on the broker of the subclass."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.crashes.scene import Scene
from tests.crashes.stories import STEPS, STORIES, Story, kill_at_places, lose_replies


class CrashContract:
    """Wherever a call is cut off, nothing is lost, and repeating it does no harm."""

    scene: Callable[[Any], Scene]
    """Makes the scene of a story from the fixture `place`."""
    has_few_calls = False
    """Whether the usual run has time for every call of a story, and not only for every thirteenth."""
    thirds: tuple[int, int] | None = None
    """The thirds of the stories that the usual run tells: those with a killed process, those with a lost
    reply. None: all of them. Brokers that tell a third each tell different ones."""

    @classmethod
    def is_told(cls, test: str, story: type[Story]) -> bool:
        """Whether the usual run tells the story in this test."""
        if cls.thirds is None:
            return True
        third = cls.thirds[test == "test_a_lost_reply_loses_nothing_else"]
        return (zlib.crc32(story.__name__.encode()) >> 8) % 3 == third

    @pytest.fixture
    def begin(self, place: Any) -> Iterator[Callable[[], Scene]]:
        opened: list[Scene] = []

        def begin() -> Scene:
            opened.append(type(self).scene(place))
            return opened[-1]

        yield begin
        for scene in opened:
            scene.broker.close()

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
    def test_a_process_that_is_killed_between_any_two_calls_loses_nothing(
        self, begin: Callable[[], Scene], story: type[Story], step: int
    ) -> None:
        kill_at_places(begin, story, 1 if self.has_few_calls else step)

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
    def test_a_lost_reply_loses_nothing_else(
        self, begin: Callable[[], Scene], story: type[Story], step: int
    ) -> None:
        lose_replies(begin, story, 1 if self.has_few_calls else step)
