"""What is cut off: something that is prepared, a call, and what holds after it was made once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    Cancel,
    ChangeResult,
    ClaimRef,
    Edit,
    Limit,
    Move,
    NewJob,
    RawItem,
    Requeue,
    Unique,
)
from mrq_core.contract.metrics import Resolution, measured
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Pause, Rules, Versions
from tests.crashes.scene import LEASE, QUEUES, Scene, ended, scene_request, succeeded

MOST_PLACES = 200
STEPS = [13, pytest.param(1, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
"""The distance of the places at which a process dies: the usual run takes every thirteenth place."""


@dataclass
class Story:
    """Something that is prepared, a call that is cut off, and what holds after it was made once more."""

    scene: Scene
    ids: list[str] = field(default_factory=list)

    def call(self, broker: Broker) -> object:
        raise NotImplementedError

    def check(self) -> None:
        """Makes the call again, and looks."""
        raise NotImplementedError

    def check_answer(self, answer: Any) -> None:
        """Looks at what the call answers when no more than a reply was lost."""


class Enqueue(Story):
    """Plain, limited, and unique jobs in all ways."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        untils = (("queued", None), ("done", None), ("period", 500.0), ("record", None))
        uniques = [Unique(key=until, until=until, period=period) for until, period in untils]
        self.jobs = [scene.new_job("q", unique=unique) for unique in uniques]
        self.jobs += [scene.new_job("t/a"), scene.new_job("t/b", ("k",))]
        self.ids = [job.record.id for job in self.jobs]

    def call(self, broker: Broker) -> object:
        return broker.enqueue(self.jobs)

    def check_answer(self, answer: Any) -> None:
        assert [one.id for one in answer] == self.ids
        if self.scene.recognizes_its_own_jobs:
            assert all(one.created for one in answer)

    def check(self) -> None:
        assert [answer.id for answer in self.scene.broker.enqueue(self.jobs)] == self.ids
        again = [
            NewJob(record=self.scene.new_job("q").record, unique=job.unique)
            for job in self.jobs
            if job.unique is not None
        ]
        assert [answer.id for answer in self.scene.broker.enqueue(again)] == self.ids[:4]
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class EnqueueOverExpired(Story):
    """The ids of jobs that have expired."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        records = [record for record in scene.broker.get(self.ids) if record is not None]
        scene.run_all()
        scene.clock.advance(2e6)
        self.jobs = [NewJob(record=record) for record in records]

    def call(self, broker: Broker) -> object:
        return broker.enqueue(self.jobs)

    def check(self) -> None:
        assert [answer.id for answer in self.scene.broker.enqueue(self.jobs)] == self.ids
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class EnqueueAfterALostOne(Enqueue):
    """The call is not repeated: after a minute others can have the keys."""

    def check(self) -> None:
        self.scene.clock.advance(61.0)
        others = [
            NewJob(record=self.scene.new_job("q").record, unique=job.unique)
            for job in self.jobs
            if job.unique is not None
        ]
        there = {record.id for record in self.scene.broker.get(self.ids) if record is not None}
        for other, own, answer in zip(others, self.ids, self.scene.broker.enqueue(others), strict=False):
            assert answer.id == (own if own in there else other.record.id)
        assert set(self.scene.run_all().values()) <= {Status.SUCCESS}


class Claim(Story):
    """Waiting jobs, some under limits, one that ran before."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        [first, *_] = scene.claim(scene.broker, limit=1).records
        assert scene.broker.settle([ended(first, Status.RETRY)]) == [True]
        scene.clock.advance(5.0)

    def call(self, broker: Broker) -> object:
        return self.scene.claim(broker)

    def check(self) -> None:
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class ClaimOne(Claim):
    def call(self, broker: Broker) -> object:
        return [self.scene.claim(broker, limit=1) for _ in range(3)]


class ParkUnderARate(Story):
    """Jobs that a rate lets start far ahead, some over the concurrency of another limit."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.began = scene.now
        jobs = [scene.new_job(queue, ("k", "s")) for queue in ("q", "q", "t/a", "q")]
        self.ids = [answer.id for answer in scene.broker.enqueue(jobs)]

    def call(self, broker: Broker) -> object:
        return self.scene.claim(broker)

    def check(self) -> None:
        for _ in range(3):  # after a lost charge the next start may be further away than run_all waits
            statuses = self.scene.run_all()
        assert statuses == dict.fromkeys(self.ids, Status.SUCCESS)
        records = [record for record in self.scene.broker.get(self.ids) if record is not None]
        starts = sorted(
            start
            for record in records
            if (start := record.history[0].started_at if record.history else record.started_at) is not None
        )
        assert len(starts) == 4
        for number, start in enumerate(starts):  # a late claim starts a job after its time
            assert start >= after(self.began, 100.0 * number)


class LetGoUnderARate(ParkUnderARate):
    """The time comes for the first of the parked jobs."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        [first] = scene.claim(scene.broker).records
        assert scene.broker.settle([succeeded(first)]) == [True]
        scene.clock.advance(50.0)


class ClaimSuspects(Story):
    """Lost claims, one to be cancelled, one at_most_once, one under a limit."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.jobs = [scene.new_job("q"), scene.new_job("q", ("k",)), scene.new_job("q", at_most_once=True)]
        self.jobs += [scene.new_job("q", unique=Unique(key="u"))]
        self.ids = [answer.id for answer in scene.broker.enqueue(self.jobs)]
        assert len(scene.claim(scene.broker).records) == 4
        scene.broker.cancel([self.ids[0]], Cancel())
        scene.clock.advance(LEASE + 1)

    def call(self, broker: Broker) -> object:
        return self.scene.claim(broker)

    def check(self) -> None:
        expected = [Status.CANCEL, Status.SUCCESS, Status.FAILED, Status.SUCCESS]
        assert self.scene.run_all() == dict(zip(self.ids, expected, strict=True))


class ClaimManySuspects(Story):
    """Suspects of several queues, some under limits, that one call claims before and after waiting jobs."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = [answer.id for answer in scene.broker.enqueue(self._jobs(2))]
        lost = scene.claim(scene.broker).records
        assert len(lost) == 6
        [fresh] = scene.broker.enqueue([scene.new_job("q")])
        self.ids.append(fresh.id)
        scene.clock.advance(LEASE + 1)

    def _jobs(self, number: int) -> list[NewJob]:
        new_job = self.scene.new_job
        plain = [new_job(queue) for queue in ("q", "t/a") for _ in range(number)]
        return [*plain, *(new_job("q", ("k",)) for _ in range(number))]

    def call(self, broker: Broker) -> object:
        return self.scene.claim(broker)

    def check_answer(self, answer: Any) -> None:
        ids = [record.id for record in answer.records]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(self.ids)

    def check(self) -> None:
        self.scene.claim(self.scene.broker)  # gets nothing that runs
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)
        records = [record for record in self.scene.broker.get(self.ids) if record is not None]
        assert max(record.claims for record in records) <= 4
        assert {record.lost_claims for record in records} == {0}


class Renew(Story):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        self.records = scene.claim(scene.broker).records
        scene.clock.advance(LEASE - 10)

    def call(self, broker: Broker) -> object:
        return broker.renew([ClaimRef(id=one.id, token=one.token or "") for one in self.records], LEASE)

    def check(self) -> None:
        self.scene.claim(self.scene.broker)  # which gets nothing that runs
        assert self.call(self.scene.broker) == [True] * len(self.records)
        self.scene.clock.advance(LEASE - 1)
        self.scene.claim(self.scene.broker)
        assert self.scene.broker.settle(list(map(succeeded, self.records))) == [True] * len(self.records)
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class Settle(Story):
    """Ends of all kinds in one call."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        records = scene.claim(scene.broker).records
        statuses = [Status.SUCCESS, Status.FAILED, Status.RETRY]
        self.statuses = {
            record.id: statuses[number // 3 % 3] if record.limit_keys else statuses[number % 3]
            for number, record in enumerate(records)
        }
        self.settlements = [
            succeeded(record)
            if self.statuses[record.id] is Status.SUCCESS
            else ended(record, self.statuses[record.id])
            for record in records
        ]

    def call(self, broker: Broker) -> object:
        return broker.settle(self.settlements)

    def check_answer(self, answer: Any) -> None:
        assert answer == [True] * len(self.settlements)

    def check(self) -> None:
        assert self.call(self.scene.broker) == [True] * len(self.settlements)
        found = self.scene.broker.get(list(self.statuses))
        assert [record and record.status for record in found] == list(self.statuses.values())
        assert {record.claims for record in found if record} == {1}
        failed = {one for one, status in self.statuses.items() if status is Status.FAILED}
        expected = {one: Status.FAILED if one in failed else Status.SUCCESS for one in self.ids}
        assert self.scene.run_all() == expected


class SettleOnce(Settle):
    """The call is not repeated: the worker has died."""

    def check(self) -> None:
        assert set(self.scene.run_all()) == set(self.ids)


class FollowUps(Story):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = [answer.id for answer in scene.broker.enqueue([scene.new_job("q")])]
        [self.parent] = scene.claim(scene.broker).records
        self.children = tuple(scene.new_job("t/a") for _ in range(3))

    def call(self, broker: Broker) -> object:
        return broker.settle([succeeded(self.parent, self.children)])

    def check(self) -> None:
        [parent] = self.scene.broker.get(self.ids)
        if parent is not None and parent.status is Status.STARTED:
            assert self.scene.broker.get([child.record.id for child in self.children]) == [None] * 3
        else:  # what was written of the parent is finished by housekeeping, without the worker
            self.scene.repair()
            assert None not in self.scene.broker.get([child.record.id for child in self.children])
        assert self.call(self.scene.broker) == [True]
        ids = [*self.ids, *(child.record.id for child in self.children)]
        assert self.scene.run_all() == dict.fromkeys(ids, Status.SUCCESS)


class CancelAndRequeue(Story):
    """Waiting, parked and running jobs; then all of them again."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        self.running = {record.id for record in scene.claim(scene.broker, limit=4).records}

    def call(self, broker: Broker) -> object:
        broker.cancel(self.ids, Cancel(interrupt=True))
        return broker.requeue(self.ids, Requeue())

    def check(self) -> None:
        changes = self.scene.broker.cancel(self.ids, Cancel(interrupt=True))
        for job, change in zip(self.ids, changes, strict=True):
            assert (change is ChangeResult.REQUESTED) == (job in self.running)
        waiting = [job for job in self.ids if job not in self.running]
        again = self.scene.broker.requeue(waiting, Requeue())
        # a key that the first call has let go and not taken again is free for its own job
        assert again == [ChangeResult.DONE] * len(waiting)
        ends = self.scene.run_all()
        assert {ends[job] for job in waiting} == {Status.SUCCESS}
        assert {ends[job] for job in self.running} == {Status.CANCEL}


class MoveAll(Story):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()

    def call(self, broker: Broker) -> object:
        return broker.move(self.ids, Move(queue="t/c"))

    def check_answer(self, answer: Any) -> None:
        assert answer == [ChangeResult.DONE] * len(self.ids)

    def check(self) -> None:
        again = self.scene.broker.move(self.ids, Move(queue="t/c"))
        assert set(again) <= {ChangeResult.DONE, ChangeResult.UNCHANGED}
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class EditAll(Story):
    """Waiting and parked jobs, some with a new due time."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.all_ids = scene.put()
        self.running = [record.id for record in scene.claim(scene.broker, limit=4).records]
        self.ids = [job for job in self.all_ids if job not in self.running]
        self.edits = [
            Edit(
                id=job,
                claims=0,
                edits=0,
                params={"edited": True},
                search_keys={"edited": True},
                priority=number % 3,
                delay=30.0 if number % 2 else None,
            )
            for number, job in enumerate(self.ids)
        ]

    def call(self, broker: Broker) -> object:
        return broker.edit(self.edits)

    def check_answer(self, answer: Any) -> None:
        assert answer == [ChangeResult.DONE] * len(self.ids)

    def check(self) -> None:
        answers = self.scene.broker.edit(self.edits)
        assert set(answers) <= {ChangeResult.DONE, ChangeResult.REFUSED}
        for record in self.scene.broker.get(self.ids):
            assert record is not None
            assert (record.params, record.edits) == ({"edited": True}, 1)
        found = self.scene.broker.find(JobFilter(search_keys={"edited": True}))
        assert sorted(record.id for record in found.records) == sorted(self.ids)
        self.scene.repair()
        ends = self.scene.run_all()
        assert {job: ends[job] for job in self.ids} == dict.fromkeys(self.ids, Status.SUCCESS)


class Remove(Story):
    """Waiting, parked and ended jobs with logs and keys, two held for a period and until `record`."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.uniques = [Unique(key="p", until="period", period=1e5), Unique(key="r", until="record")]
        self.ids = scene.put()
        unique_jobs = [scene.new_job("q", unique=unique) for unique in self.uniques]
        self.ids += [answer.id for answer in scene.broker.enqueue(unique_jobs)]
        records = scene.claim(scene.broker, limit=5).records
        assert scene.broker.settle(list(map(succeeded, records))) == [True] * 5
        lines = [
            LogLine(job_id=job, attempt=1, seq=1, at=scene.now, level="INFO", message="m") for job in self.ids
        ]
        scene.broker.append_logs(lines, 1000)

    def call(self, broker: Broker) -> object:
        return broker.remove(self.ids)

    def check_answer(self, answer: Any) -> None:
        assert answer == [ChangeResult.DONE] * len(self.ids)

    def check(self) -> None:
        assert set(self.scene.broker.remove(self.ids)) <= {ChangeResult.DONE, ChangeResult.UNKNOWN}
        assert self.scene.broker.get(self.ids) == [None] * len(self.ids)
        self.scene.clock.advance(61.0)
        self.scene.repair()
        assert self.scene.run_all() == {}
        others = [self.scene.new_job("q", unique=unique) for unique in self.uniques]
        assert [answer.created for answer in self.scene.broker.enqueue(others)] == [True, True]


class Prune(Story):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        scene.run_all()
        lines = [
            LogLine(job_id=job, attempt=1, seq=1, at=scene.now, level="INFO", message="m") for job in self.ids
        ]
        scene.broker.append_logs(lines, 1000)
        scene.clock.advance(2e6)

    def call(self, broker: Broker) -> object:
        return broker.prune(4)

    def check(self) -> None:
        for _ in range(3):
            while self.scene.broker.prune(4):
                pass
            self.scene.clock.advance(61.0)
        self.scene.repair()
        assert self.scene.broker.totals().by_status() == {}


class ForgetQueues(Story):
    """Names of queues without jobs, beside names that hold ended jobs and parameters."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        broker = scene.broker
        gone = broker.enqueue([scene.new_job(queue) for queue in ("gone", "t/gone")])
        self.ids = [answer.id for answer in broker.enqueue([scene.new_job("t/kept")])]
        broker.raw("kept_set").push([RawItem(param="a")])
        broker.raw("gone_set").push([RawItem(param="a")])
        broker.raw("gone_set").remove(["a"])
        broker.remove([answer.id for answer in gone])
        scene.clock.advance(61.0)

    def call(self, broker: Broker) -> object:
        for _ in range(2):
            broker.prune()
            self.scene.clock.advance(61.0)
        return broker.enqueue([self.scene.new_job("t/gone", unique=Unique(key="one", until="done"))])

    def check(self) -> None:
        for _ in range(2):  # a process that died may have been about to recount
            self.call(self.scene.broker)
        names = self.scene.broker.queue_names()
        assert {"kept_set", "t/gone", "t/kept"} <= {*names}
        assert not {"gone", "gone_set"} & {*names}
        assert [one.waiting for one in self.scene.broker.counts(["t/gone", "t/kept"])] == [1, 1]


class ParkAPausedTask(Story):
    """A claim parks the jobs of a paused task."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()

    def call(self, broker: Broker) -> object:
        return broker.claim(scene_request(paused_tasks=frozenset({"t.Task"})))

    def check_answer(self, answer: Any) -> None:
        assert answer.records == ()

    def check(self) -> None:
        broker = self.scene.broker
        self.check_answer(self.call(broker))
        self.scene.clock.advance(LEASE + 1)
        self.check_answer(self.call(broker))
        self.scene.clock.advance(LEASE + 1)
        for _ in range(3):
            self.check_answer(self.call(broker))
        assert sum(counts.due for counts in broker.counts(QUEUES)) == 0
        assert {record.claims for record in broker.find(JobFilter()).records} == {0}
        self.scene.repair()
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class LetAResumedTaskGo(Story):
    """A claim after the resume lets the jobs of the task go."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ids = scene.put()
        for _ in range(3):
            scene.broker.claim(scene_request(paused_tasks=frozenset({"t.Task"})))
        assert sum(counts.due for counts in scene.broker.counts(QUEUES)) == 0

    def call(self, broker: Broker) -> object:
        return self.scene.claim(broker, limit=2)

    def check(self) -> None:
        assert self.scene.run_all() == dict.fromkeys(self.ids, Status.SUCCESS)


class ChangeRules(Story):
    """Pauses and limit rules are set and removed, and every worker is told within a minute."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        scene.broker.pause(["old"])
        self.versions = scene.broker.poll("w", Versions()).versions

    def call(self, broker: Broker) -> object:
        broker.pause(["q", "t/"])
        broker.pause_tasks(["t.Task"], self.scene.now + timedelta(seconds=500))
        broker.state.put(rules.LIMITS, "k", {"concurrency": 3})
        broker.resume(["old"])
        return None

    def check(self) -> None:
        self.scene.clock.advance(60.0)
        told = self.scene.broker.poll("w", self.versions)
        assert (told.rules or Rules(queues={"old": Pause()})).paused_queues == self.scene.broker.paused()
        self.call(self.scene.broker)
        after = self.scene.broker.poll("w", told.versions).rules
        assert after == self.scene.broker.rules()
        assert after.paused_queues == {"q", "t/"}
        assert after.paused_tasks == {"t.Task"}
        assert after.limits == {"k": Limit(concurrency=3)}


class RawAdmit(Story):
    """A parameter becomes a job."""

    name = "urls_set"

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        scene.broker.raw(self.name).push([RawItem(param=param) for param in "abc"])

    def call(self, broker: Broker) -> object:
        raw = broker.raw(self.name)
        claims = raw.claim(5, LEASE, "w")
        records = [self.scene.new_job("jobs", ("k",), raw_queue=self.name).record for _ in claims]
        return raw.admit(list(zip(claims, records, strict=True)), LEASE)

    def check(self) -> None:
        self.scene.clock.advance(LEASE + 1)
        self.call(self.scene.broker)
        self.scene.clock.advance(LEASE + 1)
        assert list(self.scene.run_all().values()) == [Status.SUCCESS] * 3
        self.call(self.scene.broker)
        assert len(self.scene.run_all()) == 3
        assert self.scene.broker.raw(self.name).size() == 0


class RawAdmitOfAList(RawAdmit):
    name = "urls_raw"


class RawAdmitForgotten(RawAdmit):
    """The job has run and is gone before anybody looks at the raw queue again."""

    def check(self) -> None:
        self.scene.clock.advance(LEASE + 1)
        first = self.scene.run_all()
        self.scene.clock.advance(2e6)
        self.scene.repair()
        left = self.scene.broker.raw(self.name).claim(5, LEASE, "w")
        ran = {job for job, status in first.items() if status is Status.SUCCESS}
        assert len(left) + len(ran) == 3
        assert not ran & {one.job_id for one in left}


class RawSettle(Story):
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        raw = scene.broker.raw("urls_timed_set")
        raw.push([RawItem(param=param, score=1.0) for param in "ab"])
        self.claims = raw.claim(5, LEASE, "w")

    def call(self, broker: Broker) -> object:
        return broker.raw("urls_timed_set").settle(self.claims, [None, 5.0])

    def check(self) -> None:
        assert self.call(self.scene.broker) == [True, True]
        self.scene.clock.advance(5.0)
        [again] = self.scene.broker.raw("urls_timed_set").claim(5, LEASE, "w")
        assert (again.param, again.job_id) == (self.claims[1].param, self.claims[1].job_id)


class RecordMetrics(Story):
    """Metrics in more parts than one, of which each was recorded once before."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.metrics = [
            measured("jobs", scene.now, (("task", f"t{number}"),), [1.0, 2.0]) for number in range(300)
        ]
        self.call(scene.broker)

    def call(self, broker: Broker) -> object:
        return broker.record_metrics(self.metrics)

    def check(self) -> None:
        """Each roll-up has the whole metric of the call that was cut off, or nothing of it."""
        self.call(self.scene.broker)
        now = self.scene.now
        for resolution in Resolution:
            read = self.scene.broker.read_metrics(["jobs"], after(now, -7200), after(now, 1), resolution)
            assert {metric.tags for metric in read} == {metric.tags for metric in self.metrics}
            for metric in read:
                times = metric.count // 2
                assert times in (2, 3)
                assert metric == measured("jobs", metric.at, metric.tags, [1.0, 2.0] * times)


STORIES = [
    Enqueue, EnqueueOverExpired, EnqueueAfterALostOne, Claim, ClaimOne, ParkUnderARate, LetGoUnderARate,
    ClaimSuspects, ClaimManySuspects, Renew, Settle, SettleOnce, FollowUps, CancelAndRequeue, MoveAll,
    EditAll, Remove, Prune, ForgetQueues, ParkAPausedTask, LetAResumedTaskGo, ChangeRules, RawAdmit,
    RawAdmitOfAList, RawAdmitForgotten, RawSettle, RecordMetrics,
]  # fmt: skip


def kill_at_places(begin: Callable[[], Scene], story: type[Story], step: int = 1) -> None:
    """Tells the story as often as it has places, and lets the process die at each in turn. Where time is
    short, at those that are `step` apart."""
    for number in range(0, MOST_PLACES, step):
        one = story(begin())
        is_killed = one.scene.crash(one.call, number)
        one.check()
        one.scene.check_end()
        if not is_killed:
            assert number > 1
            return
    raise AssertionError(f"{story.__name__} has more than {MOST_PLACES} places")


def lose_replies(begin: Callable[[], Scene], story: type[Story], step: int = 1) -> None:
    """The same, with replies that get lost."""
    for number in range(0, MOST_PLACES, step):
        one = story(begin())
        is_lost = one.scene.lose_reply(one.call, one.check_answer, number)
        one.check()
        one.scene.check_end()
        if not is_lost:
            assert number > 0
            return
    raise AssertionError(f"{story.__name__} has more than {MOST_PLACES} places")
