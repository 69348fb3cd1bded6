"""An empty broker of each arrangement, by the clock of its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from tests import brokers


@pytest.fixture(params=brokers.PARAMS)
def each_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    address = brokers.address_of(request.param, tmp_path)
    config = load_config({"broker": address.broker, "store": address.store})
    broker = open_broker(config, Plugins(config))
    broker.prepare()
    yield broker
    broker.close()
