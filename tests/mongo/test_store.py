"""MongoDB as the store of a broker whose queue is elsewhere."""

from __future__ import annotations

from functools import partial

import pytest

from mrq_core.testing.conformance import StoreContract, StoreFactory
from tests.mongo.kit import Place, open_store


class TestMongoStore(StoreContract):
    @pytest.fixture
    def store_factory(self, store_place: Place) -> StoreFactory:
        return partial(open_store, store_place)
