"""The conformance suite itself: nothing in it is hidden by something else in it."""

from __future__ import annotations

from collections import Counter

from mrq_core.testing import conformance
from mrq_core.testing.conformance import BrokerContract, Contract


def contracts() -> list[type[Contract]]:
    """The contract classes that tests are written in."""
    offered = [getattr(conformance, name) for name in conformance.__all__]
    return [
        offer
        for offer in offered
        if isinstance(offer, type) and issubclass(offer, Contract) and offer not in (Contract, BrokerContract)
    ]


def test_no_test_hides_one_of_the_same_name_in_another_contract() -> None:
    names = Counter(name for contract in contracts() for name in vars(contract) if name.startswith("test_"))
    assert [name for name, number in names.items() if number > 1] == []


def test_the_whole_contract_has_all_its_parts() -> None:
    assert set(contracts()) <= set(BrokerContract.__mro__)
