"""The jobs of `mrq demo`: their params, and how each is expected to end."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mrq_core.cli import demo_tasks
from mrq_core.client.client import Client
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable

_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})
"""Not the library itself; and its tests hold files that are wrong on purpose."""

_OLD_SCRIPT = 'import urllib2\n\nfor line in urllib2.urlopen("http://example.com"):\n    print line\n'


@dataclass(slots=True)
class DemoJobs:
    """The jobs of one run by id: how they are expected to end, and their records once they have."""

    expected: dict[str, Status] = field(default_factory=dict)
    records: dict[str, JobRecord] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    """Ids of the jobs that are worth a look, by what is special about them."""
    is_stale: bool = False
    """Whether the broker was away at the last attempt to refresh."""

    def surprises(self) -> list[str]:
        """What ended otherwise than expected, in words."""
        found = []
        for job_id, status in self.expected.items():
            record = self.records.get(job_id)
            if record is None:
                found.append(f"{job_id} was removed before it had ended")
            elif record.status is not status:
                found.append(f"{job_id} ({record.path}) is {record.status}, and was to be {status}")
        return found

    def refresh(self, client: Client) -> list[str]:
        """Fetches the jobs that are not known to have ended; answers with those that still have not. Raises
        BrokerUnavailable."""
        try:
            left = self._refresh(client)
        except BrokerUnavailable:
            self.is_stale = True
            raise
        self.is_stale = False
        return left

    def unknown(self) -> list[str]:
        """The jobs that are not known to have ended."""
        return [job_id for job_id in self.expected if job_id not in self.records]

    def _refresh(self, client: Client) -> list[str]:
        left = []
        waiting = self.unknown()
        for start in range(0, len(waiting), CHUNK):
            chunk = waiting[start : start + CHUNK]
            for job_id, record in zip(chunk, client.broker.get(chunk), strict=True):
                if record is None:
                    continue
                if record.is_ended:
                    self.records[job_id] = client.decoded(record)
                else:
                    left.append(job_id)
        return left


def library() -> Path:
    """Where the source files of the standard library are."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(most: int) -> list[str]:
    """Up to `number` source files of the standard library, in alphabetical order."""
    root = library()
    found = sorted(
        str(path)
        for path in root.rglob("*.py")
        if not _LEFT_OUT.intersection(path.relative_to(root).parts[:-1])
    )
    return found[:most]


def enqueue(client: Client, files: list[str]) -> DemoJobs:
    """Queues a job for each file, and those that show how else jobs can end."""
    jobs = DemoJobs()
    for name, path, params, status in _special():
        job_id = client.queue_job(path, params, queue=demo_tasks.QUEUE, priority=1)
        jobs.expected[job_id] = status
        jobs.named.setdefault(name, job_id)
    params_of_files = ({"path": path} for path in files)
    for job_id in client.queue_jobs(demo_tasks.read_module, params_of_files, queue=demo_tasks.QUEUE):
        jobs.expected[job_id] = Status.SUCCESS
    return jobs


def _special() -> Iterator[tuple[str, str, dict[str, object], Status]]:
    module = demo_tasks.__name__
    for pages in (10, 15, 20):
        yield "slow", f"{module}.slow_report", {"pages": pages, "seconds_per_page": 0.1}, Status.SUCCESS
    yield "failed", f"{module}.read_text", {"text": _OLD_SCRIPT, "name": "old_script.py"}, Status.FAILED
    yield "retried", f"{module}.flaky", {"server": "reports.example.com"}, Status.SUCCESS
    yield "timeout", f"{module}.too_slow", {"seconds": 60}, Status.TIMEOUT
