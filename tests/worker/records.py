"""Executions for tests that need no broker to be asked."""

from __future__ import annotations

from datetime import UTC, datetime

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import JobLog
from mrq_core.worker.executions import Execution, job_execution


def execution(path: str = "a.B", **params: JsonValue) -> Execution:
    """An execution whose broker has not been opened."""
    now = datetime.now(UTC)
    record = JobRecord(
        id=new_id(), path=path, params=params, queue="q", status=Status.STARTED, token="1.x", claims=1,
        queued_at=now, updated_at=now, started_at=now,
    )  # fmt: skip
    client = Client(load_config({"broker": "sqlite:///never-opened"}, environ={}))
    return job_execution(JobContext(record, client, JobLog(record.id, 1, 1000)))
