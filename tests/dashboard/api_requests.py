"""Schemathesis sends generated requests, valid and invalid, to each endpoint of the OpenAPI document.

`test_schema` runs these tests in a separate pytest: they are made with their requests when this module is
imported, which takes ten seconds in each process that collects tests.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.testing import MemoryBroker
from mrq_dashboard import create_dashboard


def _filled() -> MemoryBroker:
    """A broker with some jobs, so that answers have contents."""
    broker = MemoryBroker()
    client = Client(Config(), broker=broker)
    for queue in ("default", "main/x", "0"):
        client.queue_job("a.B", {"n": 2**63 - 1}, queue=queue)
    return broker


app = create_dashboard(Config(), client=Client(Config(), broker=_filled()), hosts=["*"], insecure=True)
schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)


@schema.parametrize()
@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
def test_no_request_breaks_the_api(case: Any) -> None:
    case.call_and_validate(
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
    )


def test_the_document_is_valid() -> None:
    schema.validate()
    assert schema.raw_schema["openapi"] == "3.1.0"
