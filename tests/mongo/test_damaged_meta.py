"""Documents of the collection `meta` that were changed by hand stop no write and no poll."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_core.contract.messages import Cancel, RawItem
from mrq_core.contract.shared_state import Versions
from tests.mongo.kit import Place, claim, new_job, open_broker


@pytest.fixture
def broker(place: Place) -> Iterator[MongoBroker]:
    broker = open_broker(place)
    broker.prepare()
    yield broker
    broker.close()


def damage(broker: MongoBroker, name: str, fields: dict[str, Any]) -> None:
    changed = {"$set": fields}
    broker._connection.run("meta", lambda meta: meta.update_one({"_id": name}, changed, upsert=True))


@pytest.mark.parametrize("odd", ["x", None, [5], {"a": 1}, True, 7.5])
def test_a_counter_that_is_no_number_goes_on(broker: MongoBroker, odd: Any) -> None:
    broker.pause(["before"])
    broker.raw("in_raw").push([RawItem(param="a")])
    known = broker.poll("w", Versions()).versions
    for name, field in (("rules", "version"), ("counter state", "last"), ("counter raw", "last")):
        damage(broker, name, {field: odd})
    broker.pause(["after"])
    broker.pause(["then"])
    rules = broker.poll("w", known).rules
    assert rules is not None
    assert set(rules.queues) == {"before", "after", "then"}
    assert len({item.version for item in broker.state.list("pauses")}) == 3
    assert broker.raw("in_raw").push([RawItem(param="b"), RawItem(param="c")]) == [True, True]
    assert [item.param for item in broker.raw("in_raw").peek(10)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "x"}, {"version": 7.5}, {"jobs": 5}, {"jobs": ["x", {}, {"job": 5, "version": 1}]},
        {"jobs": [{"job": "x", "version": "y"}], "version": None},
    ],
)  # fmt: skip
def test_damaged_signals_stop_no_interrupt(broker: MongoBroker, fields: dict[str, Any]) -> None:
    [queued] = broker.enqueue([new_job()])
    [record] = claim(broker).records
    assert record.worker is not None
    damage(broker, f"signals {record.worker}", fields)
    assert broker.poll(record.worker, Versions()).interrupts == ()
    broker.cancel([queued.id], Cancel(interrupt=True))
    assert broker.poll(record.worker, Versions()).interrupts == (queued.id,)
