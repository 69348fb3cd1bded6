"""A process that is killed between any two scripts loses nothing; repeating work does no harm.

Each change of a job is one script, so a crash falls between two of them. The stories are shared with the
other brokers; this file adds the batches that are Redis's own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import exceptions

from mrq_broker_redis.broker import RedisBroker
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, Outcome, Requeue, Settlement, Unique
from mrq_core.contract.record import Status
from tests.crashes.contract import CrashContract
from tests.crashes.scene import Scene
from tests.redis.recount import check_keys

pytestmark = pytest.mark.timeout(300)  # a story is told up to a hundred times
BATCHES = 250
"""More jobs than one script stores."""


class RedisScene(Scene):
    """Keys with jobs."""

    recognizes_its_own_jobs = False  # the repeated script finds the jobs, and cannot tell who stored them

    def crash(self, call: Callable[[Broker], object], place: int) -> bool:
        """The recount holds at once, before anything is repaired or repeated."""
        is_killed = super().crash(call, place)
        self.check_everything()
        return is_killed

    def lose(self, point: str) -> None:
        raise exceptions.ConnectionError("the connection was lost before the reply came")

    def check_numbers(self) -> None:
        self.check_everything()

    def check_everything(self) -> None:
        """Jobs, entries, numbers, keys and slots agree at any moment: a change is one script."""
        assert isinstance(self.broker, RedisBroker)
        check_keys(self.broker)


class TestRedis(CrashContract):
    scene = RedisScene
    thirds = (1, 2)
    has_few_calls = True

    @pytest.mark.parametrize("point", range(4))
    @pytest.mark.parametrize("unique", [False, True], ids=["ordinary", "unique"])
    def test_an_enqueue_of_several_batches_is_repeated(
        self, begin: Callable[[], Scene], point: int, unique: bool
    ) -> None:
        scene = begin()
        jobs = [
            scene.new_job("q", unique=Unique(key=f"u{number}") if unique else None)
            for number in range(BATCHES)
        ]
        assert scene.crash(lambda broker: broker.enqueue(jobs), point)
        assert [answer.id for answer in scene.broker.enqueue(jobs)] == [job.record.id for job in jobs]
        assert scene.broker.totals().by_status() == {Status.QUEUED: BATCHES}

    @pytest.mark.parametrize("point", range(4))
    def test_follow_ups_are_there_with_their_parent_or_not_at_all(
        self, begin: Callable[[], Scene], point: int
    ) -> None:
        scene = begin()
        scene.broker.enqueue([scene.new_job("q")])
        [record] = scene.claim(scene.broker).records
        children = tuple(scene.new_job("t/a") for _ in range(3))
        outcome = Outcome(status=Status.SUCCESS, ttl=1e6, followups=children)
        settlement = Settlement(id=record.id, token=record.token or "", outcome=outcome)
        assert scene.crash(lambda broker: broker.settle([settlement]), point)
        [parent] = scene.broker.get([record.id])
        assert parent is not None
        there = [child is not None for child in scene.broker.get([child.record.id for child in children])]
        assert there == [parent.status is Status.SUCCESS] * 3
        assert scene.broker.settle([settlement]) == [True]
        assert set(scene.run_all().values()) == {Status.SUCCESS}

    @pytest.mark.parametrize("point", range(4))
    def test_changes_of_one_batch_are_made_or_not(self, begin: Callable[[], Scene], point: int) -> None:
        """One script reads the jobs and one writes them: the fourth point is behind the write."""
        is_made = point == 3
        scene = begin()
        ids = scene.put()
        assert scene.crash(lambda broker: broker.cancel(ids, Cancel()), point)
        cancelled = {record.status for record in scene.broker.get(ids) if record}
        assert cancelled == {Status.CANCEL if is_made else Status.QUEUED}
        scene.broker.cancel(ids, Cancel())
        assert scene.crash(lambda broker: broker.requeue(ids, Requeue()), point)
        requeued = {record.status for record in scene.broker.get(ids) if record}
        assert requeued == {Status.QUEUED if is_made else Status.CANCEL}
        scene.broker.requeue(ids, Requeue())
        assert scene.run_all() == dict.fromkeys(ids, Status.SUCCESS)
