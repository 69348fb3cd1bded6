"""How the parent of `--processes` and its workers start, and with which configuration."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from mrq_core.contract.record import Status
from mrq_core.operations import workers
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.redis.servers import Server
from tests.support import LOAD, PATIENCE, Project, open_project, until
from tests.worker.parents import (
    SETTINGS,
    SLOW_IN_WORKERS,
    TASKS,
    command_of,
    in_shell,
    start_parent,
    until_started,
    workers_of,
)


@pytest.fixture(autouse=True)
def _tasks(project: Project) -> None:
    project.write("owned.py", TASKS)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_workers_that_are_starting(project: Project, signum: signal.Signals) -> None:
    project.write("mrq-config.py", SLOW_IN_WORKERS)
    parent = project.start("worker", "-p", "2", "--stop-grace", "100")
    until((project.path / "loading").exists, what="a worker to start")
    since = time.monotonic()
    parent.send(signum)
    assert parent.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD


def test_sigterm_at_any_moment_of_the_start_leaves_no_job_started(project: Project) -> None:
    for n in range(6):
        job = project.queue("tasks.noted", {"word": f"w{n}", "seconds": 1000}, queue=f"q{n}")
        parent = project.start("worker", f"q{n}", "-p", "2", "--stop-grace", "0")
        time.sleep(0.2 * n)  # the moment of the signal
        parent.send(signal.SIGTERM)
        code = parent.wait()
        assert code == 0 or (code == -signal.SIGTERM and not parent.output), parent.output
        record = project.client.fetch(job)
        assert record.status in (Status.QUEUED, Status.INTERRUPT)
        assert record.lost_claims == 0


def test_a_config_file_that_raises_ends_the_parent_once(project: Project) -> None:
    project.write("mrq-config.py", "raise ValueError('broken config')")
    parent = project.start("worker", "--processes", "4")
    assert parent.wait() == 2
    assert parent.output.count("broken config") == 1


def test_an_error_of_the_configuration_that_only_workers_meet_is_printed_once(project: Project) -> None:
    project.write("mrq-config.py", "PLUGINS = ['no_such_plugin']\nPROCESSES = 4\n")
    parent = project.start("worker")
    assert parent.wait() == 2
    assert parent.output.count("mrq: ") == 1, parent.output
    assert "processes.given_up" in parent.output


def test_a_parent_gives_up_if_no_worker_can_start(tmp_path: Path) -> None:
    bare = Project(tmp_path, "redis://127.0.0.1:1")
    parent = bare.start("worker", "--processes", "3", "--broker-timeout", "1")
    try:
        assert parent.wait() == 1
    finally:
        bare.close()
    pauses = re.findall(r"the next start is in ([0-9.]+) s", parent.output)
    assert pauses == ["0.5", "1", "2", "4"]
    assert "processes.given_up number=1 failures=5" in parent.output


def test_a_worker_that_exceeds_max_memory_before_its_first_job_says_so_and_claims_nothing(
    project: Project,
) -> None:
    job = project.queue("owned.pid")
    worker = project.start("worker", "--burst", "--quiet", "--max-memory", "20")
    assert worker.wait() == 1
    said = (
        r"mrq: this worker uses (\d+) MB before its first job, and MAX_MEMORY is 20 MB: set MAX_MEMORY well "
    )
    assert re.fullmatch(said + r"above \1, or to 0 for no limit", " ".join(worker.output.split()))
    parent = project.start("worker", "-p", "2", "--burst", "--quiet", "--max-memory", "20")
    until(lambda: "the next start is in 0.5 s" in parent.output, what="the failed start")
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0
    assert parent.output.count("mrq: this worker uses") == 1
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.attempts) == (Status.QUEUED, 0, ())
    assert workers.list_workers(project.client.broker) == []


def test_a_worker_that_cannot_be_replaced_is_tried_again_while_others_work(project: Project) -> None:
    project.write("mrq-config.py", "import os\nassert not os.path.exists('broken')\n")
    parent = start_parent(project)
    project.write("broken", "")
    first, second = workers_of(parent.pid)
    os.kill(first, signal.SIGKILL)
    until(lambda: parent.output.count("process.failed") >= 2, what="two failed starts")
    assert project.ended(project.queue("owned.pid")).result == second
    (project.path / "broken").unlink()
    until_started(parent, 3)
    assert "processes.given_up" not in parent.output


def test_a_server_that_refuses_some_workers_gets_them_later(tmp_path: Path) -> None:
    server = Server("--maxclients", "6")
    try:
        with open_project(tmp_path, server.url) as project:
            project.write("owned.py", TASKS)
            admin = redis.Redis.from_url(server.url)
            admin.ping()  # later it would be refused
            parent = project.start("worker", "-p", "6", *SETTINGS)
            parent.until_output("process.failed")
            assert "processes.given_up" not in parent.output
            admin.config_set("maxclients", 1000)
            admin.close()
            until(lambda: parent.output.count("worker.started") >= 6, what="six workers")
            assert project.ended(project.queue("owned.pid")).result in workers_of(parent.pid)
    finally:
        server.stop()


def test_the_folder_and_the_environment_of_workers_are_those_of_the_start(project: Project) -> None:
    project.write(
        "mrq-config.py",
        """
        import os, sys
        os.environ["SEEN"] = os.environ.get("SEEN", "") + "x"
        sys.path.insert(0, "/nowhere")
        os.makedirs("deep", exist_ok=True)
        os.chdir("deep")
        """,
    )
    project.write(
        "around.py",
        """
        import os, sys
        from mrq_core import task

        @task
        def seen():
            return [os.environ["SEEN"], sys.path.count("/nowhere"), os.getcwd()]
        """,
    )
    start_parent(project, number=1)
    assert project.ended(project.queue("around.seen")).result == ["x", 1, str(project.path / "deep")]


@pytest.mark.parametrize(
    ("in_file", "in_environment", "flags", "expected"),
    [
        ("2", None, [], 2),
        ("2", "1", [], 1),
        ("2", "1", ["-p3"], 3),
        ("2", "1", ["--processes=0"], 0),
        ("0", "0", ["--processes", "1"], 1),
        ("2", None, ["--name", "-p", "-p", "0"], 0),
        (None, None, ["--name=-p2"], 0),
    ],
)
def test_the_number_comes_from_flags_environment_and_config_file(
    project: Project, in_file: str | None, in_environment: str | None, flags: list[str], expected: int
) -> None:
    if in_file is not None:
        project.write("mrq-config.py", f"PROCESSES = {in_file}")
    if in_environment is not None:
        project.env["MRQ_PROCESSES"] = in_environment
    parent = project.start("worker", *SETTINGS, *flags)
    until_started(parent, max(1, expected))
    if expected:
        assert len(workers_of(parent.pid)) == expected
    else:
        assert workers_of(parent.pid) == []
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0
    assert (f"processes={expected}" in parent.output) == (expected > 0)
    assert parent.output.count("worker.started") == max(1, expected)


READ_ONCE = """
from mrq_core import get_current_config, task

@task
def plain():
    return get_current_config()["OWN_NAME"]

@task(isolate=True)
def apart():
    return get_current_config()["OWN_NAME"]
"""


def with_config_in(
    project: Project, kind: str, content: str, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Runs a worker in a burst, whose config file is a pipe, or a file as standard input."""
    file = project.path / "piped.txt"
    file.write_text(content)
    fed, feed = os.pipe()
    os.write(feed, content.encode())
    os.close(feed)
    config = f"/dev/fd/{fed}" if kind == "pipe" else "/dev/stdin"
    with file.open() as stream:
        done = subprocess.run(
            [sys.executable, "-m", "mrq_core.cli", "worker", "--burst", "--config", config, *flags],
            cwd=project.path, env=project.env, stdin=stream, pass_fds=[fed], capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    os.close(fed)
    return done


@pytest.mark.parametrize("kind", ["pipe", "stdin"])
@pytest.mark.parametrize("processes", ["0", "2"])
def test_all_workers_and_solo_jobs_have_the_settings_of_a_config_file_that_can_be_read_only_once(
    project: Project, kind: str, processes: str
) -> None:
    project.write("once.py", READ_ONCE)
    ids = [project.queue(f"once.{name}", queue="once") for name in ("plain", "apart", "plain")]
    content = "OWN_NAME = 'ours'\nQUEUES = ['once']\n"
    done = with_config_in(project, kind, content, "--processes", processes)
    assert done.returncode == 0, done.stderr
    results = [project.client.fetch(one).result for one in ids]
    assert results == ["ours"] * 3, done.stderr


@pytest.mark.parametrize("kind", ["pipe", "stdin"])
def test_a_config_file_that_can_be_read_only_once_cannot_set_the_number(project: Project, kind: str) -> None:
    done = with_config_in(project, kind, "PROCESSES = 2\n")
    assert done.returncode == 2
    assert "can be read only once, and sets PROCESSES: expected PROCESSES as a flag" in done.stderr


def test_auto_follows_the_affinity_of_the_process(project: Project) -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os, sys; os.sched_setaffinity(0, [{core}]); os.execv(sys.executable, sys.argv[1:])"
    mrq = [sys.executable, "-m", "mrq_core.cli", "worker", "-p", "auto", "--burst"]
    done = subprocess.run([sys.executable, "-c", code, *mrq], cwd=project.path, env=project.env,
                          capture_output=True, text=True, timeout=PATIENCE, check=True)  # fmt: skip
    assert "processes=1" in done.stderr
    assert done.stderr.count("worker.started") == 1


def test_secrets_of_the_command_line_are_not_on_that_of_workers(project: Project) -> None:
    parent = start_parent(project, "--redis", "redis://:pass-word-123@127.0.0.1:1", number=1)
    (pid,) = workers_of(parent.pid)
    assert b"pass-word-123" in command_of(parent.pid)
    assert b"pass-word-123" not in command_of(pid)
    assert b"pass-word-123" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_each_worker_has_a_report_file(project: Project) -> None:
    parent = start_parent(project, "--report-file", "report.json")
    files = [project.path / f"report.json.{number}" for number in (1, 2)]
    pids = [json.loads(file.read_text())["pid"] for file in files]
    assert sorted(pids) == sorted(workers_of(parent.pid))
    os.kill(pids[0], signal.SIGKILL)
    until_started(parent, 3)
    until(lambda: json.loads(files[0].read_text())["pid"] not in pids, what="a new report")
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0
    assert not any(file.exists() for file in files)


def test_more_workers_than_files_can_be_open_is_an_error_of_the_configuration(project: Project) -> None:
    done = in_shell(project, 'ulimit -n 64; exec "$@"', "worker", "--processes", "1000")
    assert done.returncode == 2
    assert "the limit of open files allows 16 workers" in done.stderr
