"""What a pair refuses: prefixes that belong to one of its drivers alone, and the other way round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.messages import Cancel, NewJob, Requeue
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import CallRefused, ConfigError
from mrq_core.ids import new_id
from mrq_core.operations.actions import repair_all
from tests.composed.kit import Place
from tests.redis.kit import Place as RedisPlace
from tests.redis.servers import Server


def new_job() -> NewJob:
    now = from_ms(SystemClock().now_ms())
    return NewJob(
        record=JobRecord(id=new_id(), path="t.Task", params={}, queue="q", queued_at=now, updated_at=now)
    )


@pytest.mark.parametrize("half", ["redis", "mongo"])
def test_one_driver_alone_stores_nothing_where_a_pair_has_its_jobs(place: Place, half: str) -> None:
    pair = place.open()
    [queued] = pair.enqueue([new_job()])
    alone = place.redis.open() if half == "redis" else place.mongo.open()
    with pytest.raises(ConfigError, match="STORE"):
        alone.enqueue([new_job()])
    assert pair.counts(["q"])[0].waiting == 1
    assert pair.totals().by_status() == {Status.QUEUED: 1}
    assert pair.cancel([queued.id], Cancel()) == ["done"]
    alone.close()
    pair.close()


def test_one_driver_alone_changes_nothing_of_a_pairs_jobs(place: Place) -> None:
    pair = place.open()
    [queued] = pair.enqueue([new_job()])
    pair.cancel([queued.id], Cancel())
    alone = place.mongo.open()
    with pytest.raises(ConfigError, match="STORE"):
        alone.requeue([queued.id], Requeue())
    assert pair.requeue([queued.id], Requeue()) == ["done"]
    alone.close()
    pair.close()


@pytest.mark.parametrize("half", ["redis", "mongo"])
def test_a_pair_stores_nothing_where_one_of_its_drivers_has_its_jobs(place: Place, half: str) -> None:
    alone = place.redis.open() if half == "redis" else place.mongo.open()
    alone.enqueue([new_job()])
    pair = place.open()
    with pytest.raises(ConfigError, match="STORE"):
        pair.enqueue([new_job()])
    if half == "redis":
        assert pair.totals().by_status() == {}, "the store is written last of all"
    else:
        assert pair.counts(["q"])[0].waiting == 0
        other = place.redis.open()
        other.enqueue([new_job()])  # the pair has left it free
        other.close()
    assert alone.totals().by_status() == {Status.QUEUED: 1}
    alone.close()
    pair.close()


def test_where_a_full_queue_refuses_a_write_the_error_says_what_the_store_has_written(place: Place) -> None:
    server = Server()
    pair = replace(place, redis=RedisPlace(server.url, place.redis.prefix)).open()
    try:
        pair.prepare()
        first, second = new_job(), new_job()
        pair.enqueue([first])
        pair.cancel([first.record.id], Cancel())
        with server.client() as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(CallRefused, match=r"maxmemory.*jobs of this call are stored nevertheless"):
                pair.enqueue([second])
            client.config_set("maxmemory", "0")
            client.config_set("min-replicas-to-write", "1")
            with pytest.raises(CallRefused, match=r"min-replicas.*records are changed nevertheless"):
                pair.requeue([first.record.id], Requeue())
            client.config_set("min-replicas-to-write", "0")
        assert pair.counts(["q"]) == [] or pair.counts(["q"])[0].waiting == 0
        assert pair.totals().by_status() == {Status.QUEUED: 2}
        for _ in repair_all(pair):
            pass
        assert pair.counts(["q"])[0].waiting == 2
    finally:
        pair.close()
        server.stop()
