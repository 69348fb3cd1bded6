"""A client in a process that may open no more files: each call is answered or has an error of mrq."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core.client.client import Client
from tests.support import PATIENCE, open_project

PROGRAM = """
import json, os, resource, sys, traceback
from contextlib import suppress
from mrq_core import Job, MrqError, Queue, configure
from mrq_core import add_schedule, get_job_result, pause_task, queue_job, queue_jobs
from mrq_core.ids import new_id

settings = json.loads(sys.argv[1])
client = configure(**settings)
job = queue_job("a.B", {})  # connects
add_schedule(name="n", path="a.B", interval=60)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
opened = []
with suppress(OSError):
    while True:
        opened.append(os.open(os.devnull, os.O_RDONLY))
odd = []
calls = {
    "queue_job": lambda: queue_job("a.B", {}),
    "queue_jobs": lambda: queue_jobs("a.B", [{}, {}]),
    "unique": lambda: queue_job("a.B", {}, idempotency_key="k"),
    "size": lambda: Queue("default").size(),
    "pause": lambda: Queue("q").pause(),
    "is_paused": lambda: Queue("q").is_paused(),
    "fetch": lambda: Job(job).fetch(),
    "unknown": lambda: Job(new_id()).fetch(),
    "wait": lambda: Job(job).wait(0.1),
    "edit": lambda: Job(job).edit(priority=1),
    "cancel": lambda: Job(job).cancel(),
    "requeue": lambda: Job(job).requeue(),
    "result": lambda: get_job_result(job),
    "pause_task": lambda: pause_task("a.B"),
    "schedule": lambda: add_schedule(name="m", path="a.B", interval=60),
    "find": lambda: client.broker.check(),
    "remove": lambda: client.broker.remove([job]),
}
for name, call in calls.items():
    try:
        call()
    except MrqError:
        pass
    except Exception as error:
        odd.append([name, "".join(traceback.format_exception(error))])
for descriptor in opened:
    os.close(descriptor)
for name, call in list(calls.items())[:-1]:
    try:
        call()
    except MrqError as error:
        if type(error).__name__ in ("BrokerUnavailable", "BrokerError"):
            odd.append([f"{name} with free descriptors", str(error)])
print(json.dumps(odd))
"""


def test_a_connected_client_without_a_free_descriptor_answers_or_raises_errors_of_mrq(
    each_client: Client,
) -> None:
    config = each_client.config
    settings = {"broker": config.broker, "store": config.store}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(settings)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    odd = json.loads(done.stdout)
    assert not odd, "\n".join(f"{name}: {text}" for name, text in odd)


@pytest.mark.parametrize(
    "command",
    [("worker", "--burst"), ("worker", "-p", "1", "--burst"), ("run", "os.getcwd"), ("queues",)],
    ids="-".join,
)
@pytest.mark.parametrize("limit", [5, 6, 8, 12, 32, 36])
def test_a_command_with_few_descriptors_says_so_or_works(
    tmp_path: Path, command: tuple[str, ...], limit: int
) -> None:
    with open_project(tmp_path, "sqlite") as project:
        program = shlex.join([sys.executable, "-m", "mrq_core.cli", *command])
        done = subprocess.run(
            ["bash", "-c", f"ulimit -n {limit}; exec {program}"],
            cwd=project.path, env=project.env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()
    if command[0] == "worker" and limit < 35:
        assert done.returncode == 1
        assert told == [
            f"mrq: mrq worker needs 32 free file descriptors, and this process has {limit - 3} of {limit}: "
            "raise the limit of open files (ulimit -n), or close files"
        ]
    elif command[0] == "run":
        assert done.returncode == 1
        assert ("free file descriptor" in done.stderr) is (limit < 8)
    else:
        assert (done.returncode == 0) is ("free file descriptor" not in done.stderr)


CLOSED = """
import json, os, sys
from mrq_core import Queue, configure, queue_job

configure(**json.loads(sys.argv[1]))
queue_job("a.B", {})
for descriptor in (1, 2):
    try:
        os.write(descriptor, b"warning of a library\\n")
    except OSError:
        pass
queue_job("a.B", {})
with open(sys.argv[2], "w") as told:
    told.write(str(Queue("default").size()))
"""


def test_what_is_written_to_a_closed_standard_stream_does_not_go_to_the_server(
    each_client: Client, tmp_path: Path
) -> None:
    config = each_client.config
    settings = {"broker": config.broker, "store": config.store}
    program = shlex.join([sys.executable, "-c", CLOSED, json.dumps(settings), str(tmp_path / "told")])
    command = ["bash", "-c", f"exec {program} 2>&-"]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == 0
    assert (tmp_path / "told").read_text() == "2"
