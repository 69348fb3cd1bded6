"""The text format of Prometheus, and the numbers of an installation in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.operations.workers import list_workers

METRICS = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the format."""
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def series(name: str, kind: str, help: str, values: Mapping[str, float]) -> Iterator[str]:
    """The lines of one metric. `values`: by labels, as `labels` makes them, or under an empty text."""
    yield f"# HELP {name} {help}\n# TYPE {name} {kind}\n"
    for given, value in values.items():
        yield f"{name}{{{given}}} {value}\n" if given else f"{name} {value}\n"


def labels(**texts: str) -> str:
    """Labels with their values escaped."""
    return ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in texts.items())


def installation_metrics(broker: Broker) -> Iterator[str]:
    """The numbers of jobs by status, of up to 1,000 queues, and of workers. Costs what `totals`, one `counts`
    and the list of workers cost."""
    numbers = broker.totals().by_status()
    yield from series(
        "mrq_jobs", "gauge", "Stored jobs.",
        {labels(status=str(status)): number for status, number in sorted(numbers.items())},
    )  # fmt: skip
    names = broker.queue_names(limit=CHUNK)
    now, queues = broker.now(), broker.counts(names) if names else []
    for name, help, values in (
        ("waiting", "Jobs that are not claimed.", {one.queue: one.waiting for one in queues}),
        (
            "due",
            "Jobs that could be claimed now, counted up to 10,000.",
            {one.queue: one.due for one in queues},
        ),
        ("claimed", "Jobs that workers hold.", {one.queue: one.claimed for one in queues}),
    ):
        yield from series(
            f"mrq_queue_{name}_jobs", "gauge", help,
            {labels(queue=queue): number for queue, number in values.items()},
        )  # fmt: skip
    ages = {one.queue: (now - one.oldest_due).total_seconds() for one in queues if one.oldest_due is not None}
    yield from series(
        "mrq_queue_oldest_due_seconds", "gauge", "Seconds for which the oldest due job has been due.",
        {labels(queue=queue): max(0.0, age) for queue, age in ages.items()},
    )  # fmt: skip
    reports = list_workers(broker)
    by_status: dict[str, float] = {}
    for report in reports:
        given = labels(status=report.status)
        by_status[given] = by_status.get(given, 0) + 1
    yield from series("mrq_workers", "gauge", "Workers of the last hour.", by_status)
    at_work = [report for report in reports if report.is_at_work]
    greenlets, busy = sum(one.greenlets for one in at_work), sum(one.busy for one in at_work)
    yield from series("mrq_greenlets", "gauge", "The most jobs that workers run at a time.", {"": greenlets})
    yield from series("mrq_running_jobs", "gauge", "Jobs that workers run.", {"": busy})
