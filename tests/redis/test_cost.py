"""What calls cost: commands on the server, which do not grow with the queue, and round trips."""

from __future__ import annotations

from collections.abc import Callable

from mrq_broker_redis.broker import RedisBroker
from mrq_core.job import JobRecord, Outcome, Status
from mrq_core.messages import Cancel, JobFilter, NewJob, Requeue, Settlement, Wanted
from tests.redis.kit import Place
from tests.redis.servers import Server
from tests.redis.test_connection import claim, new_job, success


def calls(server: Server, work: Callable[[], object]) -> dict[str, int]:
    """How often each command ran while the work was done, those inside of scripts included."""
    with server.client() as client:
        client.config_resetstat()
        work()
        return {name[8:]: int(stats["calls"]) for name, stats in dict(client.info("commandstats")).items()}


def in_all(server: Server, work: Callable[[], object]) -> int:
    """How many commands ran."""
    counted = calls(server, work)
    return sum(
        number for name, number in counted.items() if name not in ("info", "config|resetstat", "config")
    )


def _claim_and_settle(broker: RedisBroker) -> None:
    records = claim(broker, limit=20).records
    assert len(records) == 20
    assert all(broker.settle([success(record) for record in records]))


def test_a_claim_and_a_settle_cost_the_same_however_long_the_queue_is(place: Place, server: Server) -> None:
    broker = place.open()
    numbers = []
    for queued in (100, 5000):
        broker.enqueue([new_job() for _ in range(queued)])
        broker.enqueue([NewJob(record=new_job().record, delay=1000.0) for _ in range(queued)])
        _claim_and_settle(broker)  # the scripts are there by now
        numbers.append(in_all(server, lambda: _claim_and_settle(broker)))
    assert numbers[0] == numbers[1]
    broker.close()


def test_batches_take_a_bounded_number_of_round_trips(place: Place, server: Server) -> None:
    broker = place.open()
    jobs = [new_job() for _ in range(1000)]
    broker.enqueue([new_job("other")])
    assert calls(server, lambda: broker.enqueue(jobs))["evalsha"] == 5
    records: list[JobRecord] = []
    counted = calls(server, lambda: records.extend(claim(broker, limit=1000).records))
    assert (len(records), counted["evalsha"]) == (1000, 1)
    assert calls(server, lambda: broker.settle([success(one) for one in records[:800]]))["evalsha"] == 4
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="ValueError")
    outcomes = [Settlement(id=one.id, token=one.token or "", outcome=failed) for one in records[800:]]
    assert calls(server, lambda: broker.settle(outcomes))["evalsha"] == 4
    assert calls(server, lambda: broker.get([job.record.id for job in jobs]))["evalsha"] == 10
    broker.close()


def test_no_call_looks_through_all_keys(place: Place, server: Server) -> None:
    broker = place.open()

    def everything() -> None:
        broker.prepare()
        ids = [answer.id for answer in broker.enqueue([new_job() for _ in range(30)])]
        _claim_and_settle(broker)
        broker.wait([Wanted(name="q"), Wanted(name="tree/")], 0.01)
        broker.find(JobFilter())
        broker.count(JobFilter(paths=("t.Task",)), "status")
        broker.totals()
        broker.counts(["q"])
        broker.known()
        broker.cancel(ids[20:25], Cancel())
        broker.requeue(ids[:5], Requeue())
        broker.remove(ids[25:])
        broker.prune()
        broker.check()
        broker.state.list("n")

    counted = calls(server, everything)
    assert not {"keys", "scan", "sort"} & counted.keys()
    broker.close()
