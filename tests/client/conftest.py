"""A client of an empty broker, on each broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.client import ambient as ambient_module
from mrq_core.client.ambient import configure
from mrq_core.client.client import Client
from tests import brokers


@pytest.fixture(params=brokers.PARAMS)
def each_client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """The client of the process."""
    monkeypatch.setattr(ambient_module, "_process_client", None)
    monkeypatch.chdir(tmp_path)
    address = brokers.address_of(request.param, tmp_path)
    made = configure(broker=address.broker, store=address.store)
    yield made
    made.close()
