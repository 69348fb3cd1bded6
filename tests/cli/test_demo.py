"""`mrq demo`."""

from __future__ import annotations

import re
import shlex
import signal

import pytest

from tests.cli.conftest import Shell
from tests.support import Project


def test_the_demo_ends_as_it_should_and_leaves_jobs_to_look_at(mrq: Shell, project: Project) -> None:
    broker = project.address.flags()
    said = mrq("demo", "--jobs", "20", *broker)
    assert "26 of 26 jobs have ended" in said.out
    assert said.err == ""
    jobs = mrq("jobs", "list", "--json", "--limit", "100", *broker).json
    statuses = sorted(job["status"] for job in jobs)
    assert statuses == ["failed"] + ["success"] * 24 + ["timeout"]
    [retried] = [job for job in jobs if job["path"].endswith(".flaky")]
    assert retried["retry_count"] == 2

    hints = re.findall(r"^mrq (.*)$", said.out, re.MULTILINE)
    assert len(hints) == 6
    for hint in hints:
        words = shlex.split(hint)
        assert words[-len(broker) :] == broker
        mrq(*words)

    again = mrq("demo", "--jobs", "3", "--no-dashboard", *broker)
    assert "9 of 9 jobs have ended" in again.out


def test_a_paused_demo_queue_is_an_error_that_says_what_to_do(mrq: Shell) -> None:
    mrq("queues", "pause", "demo")
    assert "mrq queues resume demo" in mrq("demo", "--jobs", "3", code=1).err


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_an_interrupted_demo_says_how_to_go_on(mrq: Shell, project: Project) -> None:
    process = project.start("demo", "--jobs", "400")
    process.until_output("queued on sqlite")
    process.until_output("of 406 jobs have ended")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert "mrq worker demo --burst" in process.output
    assert "Traceback" not in process.output
