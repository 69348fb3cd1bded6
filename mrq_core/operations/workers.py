"""What workers report about themselves, and who is there."""

from __future__ import annotations

from datetime import datetime

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue

WORKERS_NAMESPACE = "workers"


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a worker is running."""

    id: str
    path: str
    started_at: datetime


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, as it last described itself. Memory is bytes, CPU time seconds."""

    name: str
    host: str
    pid: int
    status: str
    queues: tuple[str, ...]
    greenlets: int
    started_at: datetime
    reported_at: datetime
    jobs: dict[str, int]
    """How many attempts ended with each status."""
    running: tuple[RunningJob, ...]
    unsettled: int
    memory: int
    cpu_time: float
    version: str


def report_to_json(report: WorkerReport) -> JsonValue:
    """The report as a JSON value."""
    value: JsonValue = msgspec.to_builtins(report)
    return value


def list_workers(broker: Broker) -> list[WorkerReport]:
    """The workers that reported lately, by name. What cannot be read, of a newer version, is left out."""
    reports = []
    for item in broker.state.list(WORKERS_NAMESPACE):
        try:
            reports.append(msgspec.convert(item.value, WorkerReport))
        except msgspec.ValidationError:
            continue
    return reports
