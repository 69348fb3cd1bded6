"""Raw queues of all kinds: from a parameter to its job, and what a crash on the way leaves."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import is_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    BrokerFactory,
    Contract,
    claim,
    lose,
    new_job,
    record_of,
    run_in_threads,
    settle,
    take_one,
)

KINDS = list(RawKind)
SETS = [kind for kind in KINDS if kind is not RawKind.LIST]
THREADS = 8


def push(queue: RawQueue, clock: ManualClock, *params: str) -> None:
    """Pushes parameters that are due, in order of their scores where the kind has scores."""
    start = clock.now_ms() / 1000 - 1000
    items = [RawItem(param=param, score=start + number) for number, param in enumerate(params)]
    if raw_without_scores(queue):
        items = [RawItem(param=param) for param in params]
    assert queue.push(items) == [True] * len(items)


def raw_without_scores(queue: RawQueue) -> bool:
    """Asks the queue itself: an item shows the score that it has."""
    queue.push([RawItem(param="?", score=0.0)])
    [item] = queue.peek(1)
    queue.remove(["?"])
    return item.score is None


def take_raw(queue: RawQueue, limit: int = 10, worker: str = "w1") -> list[RawClaim]:
    return queue.claim(limit, LEASE, worker)


def params_of(claims: list[RawClaim]) -> list[str]:
    return [one.param for one in claims]


def job_of(clock: ManualClock, one: RawClaim, queue: str = "jobs", worker: str = "w1") -> JobRecord:
    """A job for the parameter, as a worker makes it."""
    job = new_job(
        clock, queue, params={"param": one.param}, id=one.job_id, worker=worker, raw_queue="some_raw"
    )
    return job.record


def admit(queue: RawQueue, clock: ManualClock, *claims: RawClaim, worker: str = "w1") -> list[bool]:
    return queue.admit([(one, job_of(clock, one, worker=worker)) for one in claims], LEASE)


class RawContract(Contract):
    """What raw queues promise, whatever their kind."""

    @pytest.fixture(autouse=True)
    def _needs_raw_queues(self) -> None:
        if not self.supports_raw:
            pytest.skip("this driver has no raw queues")

    @pytest.fixture(params=KINDS)
    def raw(self, broker: Broker, request: pytest.FixtureRequest) -> RawQueue:
        return broker.raw(f"some{request.param}")

    # --- from the parameter to the job ----------------------------------------------------------------

    def test_what_was_pushed_is_claimed_once(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a", "b", "c")
        claims = take_raw(raw)
        assert sorted(params_of(claims)) == ["a", "b", "c"]
        assert len({one.job_id for one in claims}) == 3
        for one in claims:
            assert is_id(one.job_id)
            assert claim_number(one.token) == 1
            assert not one.redelivered
        assert take_raw(raw) == []

    def test_no_more_than_the_limit_is_claimed(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a", "b", "c")
        first, second = take_raw(raw, limit=2), take_raw(raw, limit=2)
        assert (len(first), len(second)) == (2, 1)
        assert sorted(params_of(first + second)) == ["a", "b", "c"]

    @pytest.mark.parametrize("param", ["", "x" * 100_000, "ü🦊\n'\"$", "{}", "a\x00b", "$set", "1"])
    def test_any_text_can_be_a_parameter(self, raw: RawQueue, clock: ManualClock, param: str) -> None:
        push(raw, clock, param)
        assert [item.param for item in raw.peek(10)] == [param]
        [one] = take_raw(raw)
        assert one.param == param
        assert admit(raw, clock, one) == [True]

    def test_no_job_exists_before_it_was_admitted(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert broker.get([one.job_id]) == [None]
        assert broker.totals().by_status() == {}

    def test_an_admitted_job_is_started_under_the_claim(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        clock.advance(5)
        assert admit(raw, clock, one, worker="w7") == [True]
        record = record_of(broker, one.job_id)
        assert (record.status, record.token, record.claims) == (Status.STARTED, one.token, 1)
        assert (record.params, record.queue, record.raw_queue) == ({"param": "a"}, "jobs", "some_raw")
        assert (record.started_at, record.updated_at, record.worker) == (clock.now(), clock.now(), "w7")
        until = after(clock.now(), LEASE)
        assert (record.lease_until, record.due_at) == (until, until)
        assert broker.totals().by_queue["jobs"][Status.STARTED] == 1
        assert broker.counts(["jobs"])[0].claimed == 1

    def test_the_id_and_the_token_are_those_of_the_claim(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        other = replace(job_of(clock, one), id="0" * 24, token="9.x", claims=9)
        assert raw.admit([(one, other)], LEASE) == [True]
        assert (record_of(broker, one.job_id).token, broker.get(["0" * 24])) == (one.token, [None])

    def test_an_admitted_job_is_settled_like_any_other(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a", "b")
        first, second = take_raw(raw)
        assert admit(raw, clock, first, second) == [True, True]
        assert settle(broker, record_of(broker, first.job_id), result=1, ttl=100.0)
        assert settle(broker, record_of(broker, second.job_id), Status.RETRY, delay=5.0, queue="retries")
        clock.advance(5)
        again = take_one(broker, "retries")
        assert (again.id, again.claims) == (second.job_id, 2)
        assert record_of(broker, first.job_id).status is Status.SUCCESS
        clock.advance(LEASE)
        assert take_raw(raw) == []

    def test_an_admitted_job_whose_lease_runs_out_is_claimed_again(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        admit(raw, clock, one)
        lose(clock)
        assert take_raw(raw) == []
        again = take_one(broker, "jobs")
        assert (again.id, again.claims, again.lost_claims) == (one.job_id, 2, 1)

    def test_answers_line_up_with_the_claims_of_parameters(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a", "b", "c")
        first, second, third = take_raw(raw)
        forged = replace(second, token="1.0000000000000000")
        unknown = RawClaim(param="z", job_id="0" * 24, token="1.0000000000000000")
        assert admit(raw, clock, first, forged, unknown, third) == [True, False, False, True]
        assert broker.get([second.job_id, "0" * 24]) == [None, None]
        assert raw.renew([second, forged, unknown], LEASE) == [True, False, False]
        assert raw.settle([forged, second, unknown], [None] * 3) == [False, True, False]

    # --- lost replies and crashes ---------------------------------------------------------------------

    def test_a_lost_claim_is_delivered_again_under_its_job_id(
        self, raw: RawQueue, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [lost] = take_raw(raw)
        clock.advance(LEASE - 0.001)
        assert take_raw(raw, worker="w2") == []
        clock.advance(0.001)
        [again] = take_raw(raw, worker="w2")
        assert (again.param, again.job_id) == ("a", lost.job_id)
        assert claim_number(again.token) > claim_number(lost.token)
        assert again.redelivered
        assert take_raw(raw) == []

    def test_an_expired_lease_goes_before_what_waits(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "b")
        take_raw(raw)
        lose(clock)
        push(raw, clock, "a")
        assert params_of(take_raw(raw, limit=1)) == ["b"]
        assert params_of(take_raw(raw, limit=1)) == ["a"]

    def test_a_repeated_admit_gives_its_first_answer(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert admit(raw, clock, one) == [True]
        before = record_of(broker, one.job_id)
        clock.advance(1)
        assert admit(raw, clock, one) == [True]
        assert record_of(broker, one.job_id) == before
        assert broker.count(JobFilter()).numbers == {"": 1}
        assert settle(broker, before, ttl=100.0)
        assert admit(raw, clock, one) == [True]
        assert record_of(broker, one.job_id).status is Status.SUCCESS

    def test_a_repeated_admit_gives_its_first_answer_after_a_later_claim(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert admit(raw, clock, one) == [True]
        lose(clock)
        again = take_one(broker, "jobs", worker="w2")
        assert admit(raw, clock, one) == [True]
        assert record_of(broker, one.job_id) == again

    def test_a_late_admit_is_accepted_while_nobody_claimed_the_parameter(
        self, raw: RawQueue, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        clock.advance(LEASE * 3)
        assert admit(raw, clock, one) == [True]
        assert take_raw(raw) == []

    def test_a_late_admit_is_refused_after_a_redelivery(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [first] = take_raw(raw)
        lose(clock)
        [second] = take_raw(raw, worker="w2")
        assert admit(raw, clock, first) == [False]
        assert broker.get([first.job_id]) == [None]
        assert admit(raw, clock, second, worker="w2") == [True]
        assert admit(raw, clock, first) == [False]
        record = record_of(broker, first.job_id)
        assert (record.token, record.worker, record.claims) == (second.token, "w2", 2)

    def test_another_process_takes_over_what_was_lost(
        self, raw: RawQueue, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        other = broker_factory(clock)
        queues = [queue for queue in (f"some{kind}" for kind in KINDS) if broker.raw(queue).size()]
        assert queues == []
        for kind in KINDS:
            push(broker.raw(f"some{kind}"), clock, "a")
            [lost] = take_raw(broker.raw(f"some{kind}"))
            lose(clock)
            [again] = take_raw(other.raw(f"some{kind}"))
            assert again.job_id == lost.job_id
        other.close()

    # --- without a record -----------------------------------------------------------------------------

    def test_a_settled_parameter_is_gone(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert raw.settle([one], [None]) == [True]
        lose(clock)
        assert take_raw(raw) == []
        assert raw.size() == 0

    def test_a_repeated_settle_of_a_parameter_gives_its_first_answer(
        self, raw: RawQueue, clock: ManualClock
    ) -> None:
        push(raw, clock, "a", "b")
        first, second = take_raw(raw)
        for _ in range(2):
            assert raw.settle([first, second], [None, 0.0]) == [True, True]
        assert params_of(take_raw(raw)) == [second.param]
        assert raw.settle([first, second], [None, 0.0]) == [True, True]
        assert take_raw(raw) == []

    def test_a_parameter_can_be_due_again_later(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        assert raw.settle([one], [10.0]) == [True]
        clock.advance(9.999)
        assert take_raw(raw) == []
        clock.advance(0.001)
        assert params_of(take_raw(raw)) == ["a"]
        assert take_raw(raw) == []

    def test_a_late_settle_of_a_parameter_is_refused_after_a_redelivery(
        self, raw: RawQueue, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [first] = take_raw(raw)
        lose(clock)
        [second] = take_raw(raw, worker="w2")
        assert raw.settle([first], [None]) == [False]
        assert raw.settle([second], [None]) == [True]
        assert raw.settle([first], [None]) == [False]

    def test_a_renewed_parameter_is_not_delivered_again(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        for _ in range(3):
            clock.advance(LEASE - 1)
            assert raw.renew([one], LEASE) == [True]
            assert take_raw(raw) == []
        assert raw.settle([one], [None]) == [True]

    def test_renewing_is_refused_once_the_claim_is_over(self, raw: RawQueue, clock: ManualClock) -> None:
        push(raw, clock, "a", "b", "c")
        settled, admitted, lost = take_raw(raw)
        raw.settle([settled], [None])
        admit(raw, clock, admitted)
        lose(clock)
        assert raw.renew([settled, admitted], LEASE) == [False, False]
        [again] = take_raw(raw)
        assert raw.renew([lost, again], LEASE) == [False, True]

    def test_a_settled_parameter_is_not_admitted(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, "a")
        [one] = take_raw(raw)
        raw.settle([one], [None])
        assert admit(raw, clock, one) == [False]
        assert broker.get([one.job_id]) == [None]

    # --- many at once ---------------------------------------------------------------------------------

    def test_eight_claimers_never_share_a_parameter(
        self, raw: RawQueue, broker: Broker, clock: ManualClock
    ) -> None:
        push(raw, clock, *(f"{number:03}" for number in range(120)))
        taken: list[RawClaim] = []

        def work(name: str) -> None:
            while claims := raw.claim(5, LEASE, name):
                assert all(admit(raw, clock, *claims, worker=name))
                taken.extend(claims)

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert sorted(params_of(taken)) == [f"{number:03}" for number in range(120)]
        assert broker.totals().by_status() == {Status.STARTED: 120}
        assert claim(broker, "jobs").records == ()
