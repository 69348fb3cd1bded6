"""`mrq explain`: why a job or a queue is not running."""

from __future__ import annotations

from tests.cli.conftest import Shell
from tests.support import Project, until


def test_a_job_is_explained_with_the_command_that_changes_it(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "Ann"}, queue="-mail")
    mrq("queues", "pause", "--", "-mail")
    paused, *lines = mrq("explain", job_id).out.splitlines()
    assert paused.startswith("The queue -mail has been paused for ")
    assert lines == [
        "  mrq queues resume -- -mail",
        "No worker claims from the queue -mail. No worker has reported lately.",
        "  mrq worker -- -mail",
    ]
    mrq("queues", "resume", "--", "-mail")
    assert [reason["kind"] for reason in mrq("explain", "--json", "--", "-mail").json] == ["no_worker"]


def test_the_command_of_a_reason_changes_it(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "Ann"}, delay=8000.0)
    reasons = {reason["kind"]: reason for reason in mrq("explain", job_id, "--json").json}
    assert reasons.keys() == {"no_worker", "due_later"}
    assert reasons["due_later"]["sentence"].startswith("It is due in 2 h")
    program, *arguments = reasons["due_later"]["command"].split()
    assert program == "mrq"
    mrq(*arguments)
    assert [reason["kind"] for reason in mrq("explain", job_id, "--json").json] == ["no_worker"]


def test_a_running_worker_is_named(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 60})
    project.worker()
    project.until_status(job_id, "started")
    until(lambda: mrq("workers", "--json").json, what="the worker's first report")
    [reason] = mrq("explain", job_id, "--json").json
    assert reason["kind"] == "running"
    waiting = project.queue("tasks.nap", {"seconds": 60})
    [reason] = mrq("explain", waiting, "--json").json
    assert reason["kind"] in ("workers_full", "next")
    mrq("jobs", "cancel", job_id, waiting, "--interrupt")


def test_an_unknown_job_and_an_unknown_queue(mrq: Shell, project: Project) -> None:
    assert "no job has the id" in mrq("explain", "0" * 24, code=1).err
    assert mrq("explain", "nowhere").out.startswith("No queue nowhere holds jobs.")
    assert "expected a name of 1 to 200 characters" in mrq("explain", "x" * 201, code=2).err


def test_a_name_forges_no_line(mrq: Shell, project: Project) -> None:
    project.queue("tasks.greet", {"name": "Ann"}, queue="a\nAll is well.")
    first, command = mrq("explain", "a\nAll is well.").out.splitlines()
    assert first.startswith("No worker claims from the queue a\\nAll is well.")
    assert command == "  mrq worker $'\"a\\x0aAll is well.\"'"
