"""Purging queues and moving their jobs, on each broker."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, ClaimRequest, NewJob, RawItem, Wanted
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue
from mrq_core.ids import new_id
from mrq_core.operations.queue_contents import Emptied, move_queue, purge_queue, what_waits


def put(broker: Broker, queue: str, number: int = 1, *, delay: float | None = None) -> list[str]:
    now = broker.now()
    jobs = [
        NewJob(
            record=JobRecord(id=new_id(), path="a.B", params={}, queue=queue, queued_at=now, updated_at=now),
            delay=delay,
        )
        for _ in range(number)
    ]
    return [answer.id for answer in broker.enqueue(jobs)]


def claim(broker: Broker, queue: str) -> JobRecord:
    request = ClaimRequest(worker="w", wanted=(Wanted(name=queue),), limit=1, lease=60.0)
    return broker.claim(request).records[0]


def test_a_purge_removes_what_waits_and_leaves_what_runs(each_broker: Broker) -> None:
    put(each_broker, "mail", 3)
    put(each_broker, "mail", delay=3600.0)
    put(each_broker, "other")
    running = claim(each_broker, "mail")
    assert what_waits(each_broker, "mail").jobs == {"queued": 3}
    assert purge_queue(each_broker, "mail") == Emptied(jobs=3)
    assert what_waits(each_broker, "mail").number == 0
    assert each_broker.get([running.id])[0] is not None
    assert what_waits(each_broker, "other").number == 1
    assert purge_queue(each_broker, "mail") == Emptied()


def test_a_purge_of_a_tree(each_broker: Broker) -> None:
    for queue in ("a/", "a/b", "a/b/c", "a", "ab"):
        put(each_broker, queue)
    assert purge_queue(each_broker, "a/") == Emptied(jobs=3)
    assert each_broker.totals().by_queue.keys() >= {"a", "ab"}
    assert what_waits(each_broker, "a").number == 1


@pytest.mark.parametrize("name", ["in_raw", "in_set", "in_sorted_set", "in_timed_set"])
def test_a_purge_of_a_raw_queue_removes_its_parameters(each_broker: Broker, name: str) -> None:
    queue = each_broker.raw(name)
    queue.push([RawItem(param=f"p{n}", score=float(n)) for n in range(30)])
    if name == "in_raw":
        queue.push([RawItem(param="p1")])
    number = queue.size()
    assert what_waits(each_broker, name).params == number
    assert purge_queue(each_broker, name) == Emptied(params=number)
    assert queue.size() == 0


def test_a_move_keeps_due_times(each_broker: Broker) -> None:
    now_due, later = put(each_broker, "slow")[0], put(each_broker, "slow", delay=3600.0)[0]
    before = [record and record.due_at for record in each_broker.get([now_due, later])]
    assert move_queue(each_broker, "slow", "fast") == Emptied(jobs=2)
    records = each_broker.get([now_due, later])
    assert [record and record.queue for record in records] == ["fast", "fast"]
    assert [record and record.due_at for record in records] == before


@pytest.mark.parametrize(
    ("name", "target", "path"),
    [
        ("a", "a", "to"),
        ("a/", "a/b", "to"),
        ("a", "in_raw", "to"),
        ("a", "", "to"),
        ("in_raw", "a", "queue"),
        ("", "a", "queue"),
        ("a\0", "a", "queue"),
        ("x" * 201, "a", "queue"),
    ],
)
def test_a_move_that_makes_no_sense_is_refused(
    each_broker: Broker, name: str, target: str, path: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        move_queue(each_broker, name, target)
    assert caught.value.path == path


def test_a_purge_without_time_does_one_step(each_broker: Broker) -> None:
    put(each_broker, "big", CHUNK)
    put(each_broker, "big", 5)
    steps: list[int] = []
    done = purge_queue(each_broker, "big", seconds=0.0, on_step=lambda now: steps.append(now.number))
    [removed] = steps  # less than a whole step on a server that is busy
    assert not done.is_complete
    assert 0 < removed <= CHUNK
    assert purge_queue(each_broker, "big") == Emptied(jobs=CHUNK + 5 - removed)

    queue = each_broker.raw("big_raw")
    queue.push([RawItem(param=f"p{n}") for n in range(CHUNK)])
    queue.push([RawItem(param="last")])
    done = purge_queue(each_broker, "big_raw", seconds=0.0)
    assert (done.params, done.is_complete) == (CHUNK, False)
    assert purge_queue(each_broker, "big_raw") == Emptied(params=1)
