"""Finding jobs by the terms of their exceptions and by their search keys."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import AddedKeys, Cancel, ChangeResult, Limit, RawItem, Remove, Requeue
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import Status
from mrq_core.contract.terms import MOST_WORDS, error_group, words_of
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    bring_to,
    claim,
    lose,
    new_job,
    put,
    put_many,
    record_of,
    settle,
    started,
    take,
    take_one,
)
from mrq_core.testing.conformance.raw import job_of, take_raw
from mrq_core.testing.conformance.search import all_pages, found

GROUP = error_group("tests.tasks.Example", "shop.NoStock", "shop:Basket.reserve")
ERROR = {
    "exception_type": "shop.NoStock",
    "exception_message": "No stock of 12 lamps, 3 ordered",
    "error_group": GROUP,
}
FILTERS: list[dict[str, Any]] = [
    {"exception_types": ("shop.NoStock",)},
    {"exception_types": ("NoStock", "Other")},
    {"error_words": ("stock", "lamps")},
    {"error_groups": ("other", GROUP)},
    {"exception_types": ("NoStock",), "error_words": ("12",), "error_groups": (GROUP,)},
]


def failed(broker: Broker, clock: ManualClock, queue: str = "q", **fields: Any) -> str:
    """A job that failed with the error."""
    record = started(broker, clock, queue, **fields)
    assert settle(broker, record, Status.FAILED, ttl=100.0, **ERROR)
    return record.id


def group_totals(broker: Broker) -> dict[str, dict[Status, int]]:
    return {
        group: {status: number for status, number in numbers.items() if number}
        for group, numbers in broker.totals().by_error_group.items()
    }


class TermContract(Contract):
    """What filters by exceptions and by search keys promise."""

    # --- exceptions --------------------------------------------------------------------------------

    def test_the_message_and_the_group_of_an_exception_are_in_the_record(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = record_of(broker, failed(broker, clock))
        assert record.exception_message == ERROR["exception_message"]
        assert record.error_group == GROUP

    @pytest.mark.parametrize("wanted", FILTERS)
    def test_an_exception_is_found_by_each_of_its_terms(
        self, broker: Broker, clock: ManualClock, wanted: dict[str, Any]
    ) -> None:
        other = started(broker, clock)
        settle(broker, other, Status.FAILED, ttl=100.0, exception_type="Stock", exception_message="no lamps")
        job = failed(broker, clock)
        put(broker, clock, "elsewhere")
        assert found(broker, **wanted) == [job]
        assert broker.count(JobFilter(**wanted)).numbers == {"": 1}
        assert found(broker, statuses=(Status.FAILED,), **wanted) == [job]
        assert found(broker, statuses=(Status.QUEUED,), **wanted) == []
        assert found(broker, ids=(job, other.id), **wanted) == [job]

    @pytest.mark.parametrize(
        "wanted",
        [
            {"exception_types": ("shop",)},
            {"exception_types": ("nostock",)},
            {"exception_types": ("Stock",)},
            {"error_words": ("stock", "chairs")},
            {"error_words": ("lamp",)},
            {"error_groups": (GROUP[:-1],)},
            {"exception_types": ("NoStock",), "error_words": ("chairs",)},
        ],
    )
    def test_a_job_needs_a_term_of_each_part(
        self, broker: Broker, clock: ManualClock, wanted: dict[str, Any]
    ) -> None:
        failed(broker, clock)
        assert found(broker, **wanted) == []
        assert broker.count(JobFilter(**wanted)).numbers == {"": 0}

    def test_words_are_found_in_any_case_and_script(self, broker: Broker, clock: ManualClock) -> None:
        texts = ["STRASSE gesperrt", "кот не найден", "東京 offline", "user_id=42 missing"]
        ids = []
        for text in texts:
            record = started(broker, clock)
            settle(broker, record, Status.FAILED, ttl=100.0, exception_type="E", exception_message=text)
            ids.append(record.id)
        for index, query in enumerate(["Straße", "\u041a\u041e\u0422", "東京", "USER_ID 42"]):
            assert found(broker, error_words=tuple(words_of(query))) == [ids[index]]

    def test_the_first_words_of_a_message_are_found(self, broker: Broker, clock: ManualClock) -> None:
        words = [f"w{number}" for number in range(MOST_WORDS + 1)]
        record = started(broker, clock)
        message = " ".join(words)
        settle(broker, record, Status.FAILED, ttl=100.0, exception_type="E", exception_message=message)
        assert found(broker, error_words=(words[0], words[-2])) == [record.id]
        assert found(broker, error_words=(words[-1],)) == []

    @pytest.mark.parametrize("kind", ["retry", "interrupt", "failed", "lost"])
    def test_the_terms_of_an_exception_end_with_the_next_attempt(
        self, broker: Broker, clock: ManualClock, kind: str
    ) -> None:
        record = started(broker, clock)
        if kind == "failed":
            settle(broker, record, Status.FAILED, ttl=100.0, **ERROR)
        elif kind == "retry":
            settle(broker, record, Status.RETRY, delay=0.0, is_retry=True, **ERROR)
        elif kind == "interrupt":
            settle(broker, record, Status.INTERRUPT, delay=0.0, **ERROR)
        else:
            settle(broker, record, Status.QUEUED, delay=0.0, lost=True, **ERROR)
        for wanted in FILTERS:  # a lost attempt goes to the history at once
            assert found(broker, **wanted) == ([] if kind == "lost" else [record.id])
        if kind == "failed":
            broker.requeue([record.id], Requeue())
            self._nothing_is_found(broker)
        again = take_one(broker)
        self._nothing_is_found(broker)
        settle(broker, again, ttl=100.0)
        self._nothing_is_found(broker)

    def test_an_exception_is_not_found_after_a_lost_claim_a_cancel_or_a_removal(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        waiting = started(broker, clock)
        settle(broker, waiting, Status.RETRY, delay=50.0, is_retry=True, **ERROR)
        removed, expired = failed(broker, clock), failed(broker, clock)
        assert found(broker, error_groups=(GROUP,)) == [waiting.id, removed, expired]
        broker.cancel([waiting.id], Cancel())
        assert found(broker, error_groups=(GROUP,)) == [removed, expired]
        broker.remove([removed])
        assert found(broker, error_groups=(GROUP,)) == [expired]
        clock.advance(100.0)
        assert found(broker, error_groups=(GROUP,)) == []
        broker.prune()
        self._nothing_is_found(broker)

    def test_a_lost_at_most_once_job_is_found_by_its_terms(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        lose(clock)
        assert [ended.id for ended in claim(broker).ended] == [record.id]
        assert found(broker, exception_types=("ClaimLost",)) == [record.id]
        assert found(broker, error_words=("lease", "w1")) == [record.id]
        assert group_totals(broker) == {
            error_group(record.path, "mrq_core.errors.ClaimLost"): {Status.FAILED: 1}
        }

    def test_error_groups_are_counted_in_the_totals(self, broker: Broker, clock: ManualClock) -> None:
        failed(broker, clock)
        second = failed(broker, clock)
        waiting = started(broker, clock)
        settle(broker, waiting, Status.RETRY, delay=50.0, is_retry=True, **ERROR)
        assert group_totals(broker) == {GROUP: {Status.FAILED: 2, Status.RETRY: 1}}
        broker.requeue([second], Requeue())
        assert group_totals(broker) == {GROUP: {Status.FAILED: 1, Status.RETRY: 1}}
        assert take_one(broker).id == second
        assert broker.count(JobFilter(), "error_group").numbers == {GROUP: 2}
        assert broker.apply(JobFilter(error_groups=(GROUP,)), Cancel(), limit=10).matched == 2
        assert group_totals(broker) == {}

    def test_types_of_exceptions_are_counted_as_they_are_now(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        names = ("shop.NoStock", "shop.NoStock", "store.NoStock", "ValueError")
        for name in names:
            settle(
                broker, started(broker, clock), Status.FAILED, ttl=100.0, **ERROR | {"exception_type": name}
            )
        short = JobFilter(exception_types=("NoStock",))
        assert broker.count(JobFilter(), "exception_type").numbers == {
            name: names.count(name) for name in names
        }
        assert broker.count(short, "exception_type").numbers == {"shop.NoStock": 2, "store.NoStock": 1}
        assert broker.count(short).numbers == {"": 3}
        assert broker.count(replace(short, statuses=(Status.FAILED,)), "status").numbers == {"failed": 3}
        assert broker.count(JobFilter(exception_types=("Stock",)), "exception_type").numbers == {}
        [first, *_] = broker.find(JobFilter(exception_types=("store.NoStock",))).records
        broker.requeue([first.id], Requeue())
        assert broker.count(short, "exception_type").numbers == {"shop.NoStock": 2}
        clock.advance(101.0)
        assert broker.count(JobFilter(), "exception_type").numbers == {}

    def test_a_bulk_action_takes_what_matches_now(self, broker: Broker, clock: ManualClock) -> None:
        jobs = [failed(broker, clock) for _ in range(3)]
        put_many(broker, clock, 2, "other")
        applied = broker.apply(JobFilter(error_words=("lamps",)), Remove(), limit=2)
        assert (applied.matched, applied.cursor is None) == (2, False)
        applied = broker.apply(JobFilter(error_words=("lamps",)), Remove(), limit=2, cursor=applied.cursor)
        assert (applied.matched, applied.cursor) == (1, None)
        assert broker.get(jobs) == [None] * 3

    # --- search keys -------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "value",
        [42, "42", True, False, 1.5, -(2**63), 2**63 - 1, "", "a b", "ä\u2026🦊", "\x00", '"', "x" * 5000],
    )
    def test_a_search_key_is_found_by_its_value(
        self, broker: Broker, clock: ManualClock, value: JsonValue
    ) -> None:
        job = put(broker, clock, search_keys={"user_id": value})
        put(broker, clock, search_keys={"user": value})
        put(broker, clock, params={"user_id": value})
        put(broker, clock, search_keys={"user_id": "another"})
        assert record_of(broker, job).search_keys == {"user_id": value}
        assert found(broker, search_keys={"user_id": value}) == [job]
        assert broker.count(JobFilter(search_keys={"user_id": value})).numbers == {"": 1}

    def test_search_keys_compare_by_json_type(self, broker: Broker, clock: ManualClock) -> None:
        values: list[JsonValue] = [1, "1", True, "true", 1.5]
        ids = [put(broker, clock, search_keys={"k": value}) for value in values]
        for job, value in zip(ids, values, strict=True):
            assert found(broker, search_keys={"k": value}) == [job]
        assert found(broker, search_keys={"k": 1.0}) == [ids[0]]

    def test_long_values_with_the_same_start_are_different(self, broker: Broker, clock: ManualClock) -> None:
        ids = [put(broker, clock, search_keys={"k": "x" * 1000 + end}) for end in "ab"]
        assert found(broker, search_keys={"k": "x" * 1000 + "b"}) == [ids[1]]
        assert found(broker, search_keys={"k": "x" * 1000}) == []

    @pytest.mark.parametrize("name", ["a.b", "$set", "a b", "ключ", "a=b", "%", "a:b", "'"])
    def test_any_name_can_be_a_search_key(self, broker: Broker, clock: ManualClock, name: str) -> None:
        job = put(broker, clock, search_keys={name: 1, "other": 2})
        put(broker, clock, search_keys={"other": 1})
        assert found(broker, search_keys={name: 1}) == [job]
        assert record_of(broker, job).search_keys == {name: 1, "other": 2}

    def test_every_given_key_must_match(self, broker: Broker, clock: ManualClock) -> None:
        both = put(broker, clock, search_keys={"a": 1, "b": 2})
        put(broker, clock, search_keys={"a": 1})
        put(broker, clock, search_keys={"a": 1, "b": 3})
        assert found(broker, search_keys={"a": 1, "b": 2}) == [both]
        assert found(broker, search_keys={"a": 1, "b": 2}, statuses=(Status.STARTED,)) == []

    def test_search_keys_stay_with_the_job(self, broker: Broker, clock: ManualClock) -> None:
        job = put(broker, clock, search_keys={"k": 1})
        ends: list[tuple[Status, dict[str, Any]]] = [
            (Status.RETRY, {"delay": 0.0, "is_retry": True, **ERROR}),
            (Status.INTERRUPT, {"delay": 0.0}),
            (Status.SUCCESS, {"ttl": 100.0}),
        ]
        for status, outcome in ends:
            assert found(broker, search_keys={"k": 1}) == [job]
            record = take_one(broker)
            assert record.search_keys == {"k": 1}
            assert found(broker, search_keys={"k": 1}) == [job]
            assert settle(broker, record, status, **outcome)
        broker.requeue([job], Requeue())
        broker.cancel([job], Cancel(ttl=10.0))
        assert found(broker, search_keys={"k": 1}) == [job]
        clock.advance(10.0)
        assert found(broker, search_keys={"k": 1}) == []
        broker.prune()
        again = new_job(clock, id=job, search_keys={"k": 2})
        broker.enqueue([again])
        assert found(broker, search_keys={"k": 1}) == []
        assert found(broker, search_keys={"k": 2}) == [job]

    @pytest.mark.parametrize("status", [*Status])
    def test_search_keys_are_added_to_stored_jobs(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status, search_keys={"user_id": 1})
        before, totals = record_of(broker, job_id), broker.totals()
        keys: JsonObject = {"user_id": 2, "order.id": "a", "$ref": True}
        added = [AddedKeys(id=job_id, search_keys=keys), AddedKeys(id=new_id(), search_keys=keys)]
        assert broker.add_search_keys(added) == [ChangeResult.DONE, ChangeResult.UNKNOWN]
        assert broker.add_search_keys(added) == [ChangeResult.REFUSED, ChangeResult.UNKNOWN]
        expected = {"user_id": 1, "order.id": "a", "$ref": True}
        assert record_of(broker, job_id) == replace(before, search_keys=expected)
        assert broker.totals() == totals
        for name, value in expected.items():
            assert found(broker, search_keys={name: value}) == [job_id]
        assert found(broker, search_keys={"user_id": 2}) == []
        if status is Status.STARTED:
            assert settle(broker, before, ttl=10.0)
        elif status in (Status.QUEUED, Status.RETRY, Status.INTERRUPT):
            clock.advance(100.0)
            assert take_one(broker).id == job_id
            assert take(broker) == []
        assert found(broker, search_keys={"order.id": "a"}) == [job_id]
        broker.cancel([job_id], Cancel())
        broker.remove([job_id])
        left = [job_id] if broker.get([job_id]) != [None] else []
        assert found(broker, search_keys={"order.id": "a"}) == left

    def test_keys_are_added_to_a_job_with_an_exception(self, broker: Broker, clock: ManualClock) -> None:
        job_id = failed(broker, clock)
        added = [
            AddedKeys(id=job_id, search_keys={str(number): number for number in range(5)}),
            AddedKeys(id=job_id, search_keys={str(number): number for number in range(3, 8)}),
            AddedKeys(id=job_id, search_keys={"one too many": 1}),
        ]
        answers = broker.add_search_keys(added)
        assert answers == [ChangeResult.DONE, ChangeResult.DONE, ChangeResult.REFUSED]
        assert found(broker, search_keys={"0": 0, "7": 7}, error_words=("lamps",)) == [job_id]
        assert group_totals(broker) == {GROUP: {Status.FAILED: 1}}
        assert found(broker, search_keys={"one too many": 1}) == []
        broker.requeue([job_id], Requeue())
        assert take_one(broker).id == job_id
        assert found(broker, search_keys={"0": 0, "7": 7}) == [job_id]
        assert found(broker, error_words=("lamps",)) == []

    def test_keys_are_added_to_a_parked_job(self, broker: Broker, clock: ManualClock) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")
        limits = {"key": Limit(concurrency=1)}
        ids = put_many(broker, clock, 2, limit_keys=("key",))
        [running] = claim(broker, limits=limits).records
        [parked] = {*ids} - {running.id}
        added = [AddedKeys(id=job_id, search_keys={"n": 1}) for job_id in ids]
        assert broker.add_search_keys(added) == [ChangeResult.DONE] * 2
        assert claim(broker, limits=limits).records == ()
        assert settle(broker, running)
        clock.advance(5.0)
        assert [record.id for record in claim(broker, limits=limits).records] == [parked]
        assert sorted(found(broker, search_keys={"n": 1})) == sorted(ids)

    def test_a_removed_job_is_not_found_by_its_keys(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2, search_keys={"k": 1})
        broker.remove([first])
        assert found(broker, search_keys={"k": 1}) == [second]

    def test_followups_and_admitted_jobs_are_found_by_their_keys(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        child = new_job(clock, search_keys={"k": 1})
        settle(broker, started(broker, clock, "parents"), ttl=100.0, followups=(child,))
        assert found(broker, search_keys={"k": 1}) == [child.record.id]
        if not self.supports_raw:
            return
        raw = broker.raw("some_raw")
        raw.push([RawItem(param="a")])
        [one] = take_raw(raw)
        record = replace(job_of(clock, one), search_keys={"k": 2})
        assert raw.admit([(one, record)], 60.0) == [True]
        assert found(broker, search_keys={"k": 2}) == [one.job_id]

    @pytest.mark.parametrize("order", list(Order))
    @pytest.mark.parametrize("limit", [1, 3])
    def test_pages_show_every_match_once(
        self, broker: Broker, clock: ManualClock, order: Order, limit: int
    ) -> None:
        ids: list[str] = []
        for number in range(7):
            ids += put_many(broker, clock, 1, f"q{number % 2}", search_keys={"k": "v", "n": number})
            put(broker, clock, search_keys={"k": "w"})
        pages = all_pages(broker, JobFilter(search_keys={"k": "v"}), order, limit)
        shown = [record.id for page in pages for record in page]
        assert shown == (ids if order is Order.OLDEST_FIRST else ids[::-1])

    def test_keys_combine_with_every_other_part(self, broker: Broker, clock: ManualClock) -> None:
        def make(**fields: Any) -> str:
            return failed(broker, clock, search_keys={"k": 1}, params={"p": 1}, **fields)

        job = make(path="a.B", queue="main/x", schedule="s")
        others = [
            make(path="a.C", queue="main/x", schedule="s"),
            make(path="a.B", queue="mainy", schedule="s"),
        ]
        others.append(make(path="a.B", queue="main/x"))
        wanted = JobFilter(
            search_keys={"k": 1},
            params={"p": 1},
            paths=("a.B",),
            queues=("main/",),
            schedules=("s",),
            workers=("w1",),
            statuses=(Status.FAILED,),
            exception_types=("NoStock",),
            error_words=("lamps",),
            since=clock.now(),
            until=after(clock.now(), 1.0),
        )
        assert [record.id for record in broker.find(wanted).records] == [job]
        assert broker.count(wanted, "queue").numbers == {"main/x": 1}
        assert len(found(broker, search_keys={"k": 1})) == 1 + len(others)

    # --- the clock ---------------------------------------------------------------------------------

    def test_now_is_the_time_by_which_jobs_are_due(self, broker: Broker, clock: ManualClock) -> None:
        before = broker.now()
        record = started(broker, clock)
        assert record.started_at is not None
        assert before <= record.started_at <= broker.now()
        clock.advance(5.0)
        assert (broker.now() - before).total_seconds() >= 5.0

    def _nothing_is_found(self, broker: Broker) -> None:
        for wanted in FILTERS:
            assert found(broker, **wanted) == []
            assert broker.count(JobFilter(**wanted)).numbers == {"": 0}
        assert group_totals(broker) == {}
