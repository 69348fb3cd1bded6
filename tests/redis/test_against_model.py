"""The Redis broker, put beside the in-memory model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from mrq_core.testing.conformance import BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from tests.redis.kit import Place, open_broker


class TestRedisAgainstModel(MachineContract):
    examples = 100

    @pytest.fixture
    def empty_broker_factory(self, place: Place) -> Iterator[BrokerFactory]:
        numbers = count()
        yield lambda clock: open_broker(replace(place, prefix=f"{place.prefix}-{next(numbers)}"), clock)
        for number in range(next(numbers)):
            replace(place, prefix=f"{place.prefix}-{number}").clear()


@pytest.mark.campaign
class TestRedisAgainstModelInFull(TestRedisAgainstModel):
    examples = MachineContract.examples
