"""The reports of workers about themselves."""

from __future__ import annotations

from datetime import datetime

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.errors import InvalidValue

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
    """The latest reports of the workers that have not expired, by name. Leaves out reports of a newer version
    that this version cannot read."""
    reports = (_report_from(item.value) for item in broker.state.list(WORKERS_NAMESPACE))
    return [report for report in reports if report is not None]


def find_worker(broker: Broker, name: str) -> WorkerReport | None:
    """The latest report of one worker, or None if it has expired or cannot be read."""
    item = broker.state.get(WORKERS_NAMESPACE, name)
    return _report_from(item.value) if item is not None else None


def find_workers(broker: Broker, name: str) -> list[WorkerReport]:
    """The latest report of the worker with this name, or of all workers with this NAME or on this host.

    Raises InvalidValue for an empty name."""
    if not name.strip():
        raise InvalidValue("the name of the worker is empty: expected a name, a NAME or a host", path="name")
    report = find_worker(broker, name)
    if report is not None:
        return [report]
    return [
        found
        for found in list_workers(broker)
        if found.name == f"{name}.{found.host}.{found.pid}" or found.host == name
    ]


def _report_from(value: JsonValue) -> WorkerReport | None:
    try:
        return msgspec.convert(value, WorkerReport)
    except msgspec.ValidationError:
        return None
