"""The client in programs whose clocks were stopped or set, as tests do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import freezegun
import pytest
import time_machine

from mrq_core.client.client import Client
from mrq_core.client.handles import Job
from mrq_core.errors import WaitTimeout

Stopped = Callable[[], AbstractContextManager[Any]]


@pytest.fixture(params=["freezegun", "time-machine"])
def stopped(request: pytest.FixtureRequest) -> Stopped:
    """Stops the clocks of the process in the year 2012."""
    if request.param == "freezegun":
        return lambda: freezegun.freeze_time("2012-01-14 12:00:00")
    return lambda: time_machine.travel(datetime(2012, 1, 14, 12, tzinfo=UTC), tick=False)


def test_a_wait_ends_and_the_record_has_the_time_of_the_machine(
    each_client: Client, stopped: Stopped
) -> None:
    before = datetime.now(UTC)
    with stopped():
        job = Job(each_client.queue_job("tasks.add"), client=each_client)
        with pytest.raises(WaitTimeout, match=r"0\.1 s"):
            job.wait(0.1)
        job.cancel()
    record = job.fetch()
    assert record.ended_at is not None
    # A server keeps whole milliseconds.
    assert before - timedelta(seconds=1) < record.queued_at <= record.ended_at


def test_a_time_of_the_caller_is_kept(each_client: Client, stopped: Stopped) -> None:
    with stopped():
        due = datetime.now(UTC) + timedelta(days=36_500)
        job = each_client.queue_job("tasks.add", at=due)
    assert each_client.fetch(job).due_at == due


PROGRAM = """
from datetime import datetime, timezone
from freezegun import freeze_time
with freeze_time("2012-01-14"):
    from mrq_core import Job, queue_job
    job = Job(queue_job("tasks.add"))
    for _ in "ab":
        job.cancel()
        job.requeue()
began = job.fetch().queued_at
print((datetime.now(timezone.utc) - began).total_seconds() < 60, type(began).__module__)
"""


def test_mrq_may_be_imported_while_the_clocks_are_stopped(each_client: Client) -> None:
    config = each_client.config
    environ = {**os.environ, "MRQ_BROKER": config.broker, "MRQ_STORE": config.store}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("True datetime\n", "")
