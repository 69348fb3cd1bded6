"""`mrq demo`."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import pytest

from mrq_core.cli import demo_dashboard
from mrq_core.config.sources import load_config
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from tests.cli.conftest import Shell
from tests.support import Project, until

WITHOUT_THE_EXTRA = """
import sys
sys.modules["starlette"] = None
from mrq_core.cli.main import main
main()
"""


class OnTerminal(NamedTuple):
    """`mrq demo` on a terminal, and what it has printed."""

    popen: subprocess.Popen[bytes]
    terminal: int

    def until_output(self, pattern: str) -> re.Match[str]:
        """Reads on until the output has the pattern."""
        said = b""
        while (found := re.search(pattern, said.decode(errors="replace"))) is None:
            said += os.read(self.terminal, 4096)  # OSError when the process has ended
        return found


@contextlib.contextmanager
def on_terminal(project: Project, *arguments: str) -> Iterator[OnTerminal]:
    ours, theirs = pty.openpty()
    popen = subprocess.Popen(
        [sys.executable, "-m", "mrq_core.cli", "demo", *arguments],
        cwd=project.path, env=project.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(theirs), os.O_RDWR)),  # so that Ctrl-C reaches it
    )  # fmt: skip
    os.close(theirs)
    try:
        yield OnTerminal(popen, ours)
    finally:
        popen.kill()
        popen.wait()
        os.close(ours)


def is_served(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}healthz", timeout=10) as answer:
            return bool(answer.read() == b"ok\n")
    except (urllib.error.URLError, ConnectionError):
        return False


def test_the_demo_ends_as_it_should_and_leaves_jobs_to_look_at(mrq: Shell, project: Project) -> None:
    broker = project.address.flags()
    said = mrq("demo", "--jobs", "20", *broker)
    assert "26 of 26 jobs have ended" in said.out
    assert said.err == ""
    assert re.search(r"^The dashboard is at http://127.0.0.1:\d+/$", said.out, re.MULTILINE)
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
    assert "The dashboard is at" not in again.out


def test_settings_for_other_jobs_do_not_concern_those_of_the_demo(mrq: Shell, project: Project) -> None:
    project.write(
        "mrq-config.py",
        """
        ALLOW_TASKS = ["shop.*"]
        DEFAULT_JOB_RESULT_TTL = DEFAULT_JOB_TTL = 0
        """,
    )
    assert "9 of 9 jobs have ended" in mrq("demo", "--jobs", "3", "--no-dashboard").out


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


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_on_a_terminal_it_goes_on_until_ctrl_c(project: Project) -> None:
    with on_terminal(project, "--jobs", "3", "--port", "0") as demo:
        address = demo.until_output(r"The dashboard is at (\S+)\s")[1]
        demo.until_output("Ctrl-C ends both")
        assert is_served(address)
        [failed] = project.client.broker.find(JobFilter(statuses=(Status.FAILED,)), limit=9).records
        project.job(failed.id).requeue()
        until(lambda: len(project.client.fetch(failed.id).attempts) == 2, what="the second attempt")
        os.write(demo.terminal, b"\x03")
        assert demo.popen.wait(30) == 0
        assert not is_served(address)


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_a_killed_demo_leaves_no_dashboard(project: Project) -> None:
    with on_terminal(project, "--jobs", "3", "--port", "0") as demo:
        address = demo.until_output(r"The dashboard is at (\S+)\s")[1]
        demo.until_output("Ctrl-C ends both")
        demo.popen.kill()
        until(lambda: not is_served(address), what="the end of the dashboard")


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_without_the_extra_one_line_says_how_to_get_the_dashboard(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, "demo", "--jobs", "3"],
        cwd=project.path, env=project.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [line] = done.stderr.splitlines()
    assert "starlette" in line
    assert "pip install" in line
    assert "9 of 9 jobs have ended" in done.stdout


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
@pytest.mark.parametrize("is_named_by", ["flag", pytest.param("variable", marks=pytest.mark.campaign)])
def test_the_dashboard_has_a_config_file_that_can_be_read_once(project: Project, is_named_by: str) -> None:
    source = (
        f"import sys\nBROKER = {project.address.broker!r}\n"
        "with open('loaded', 'a') as file:\n    print(*sys.orig_argv, file=file)\n"
    ) + "# a\n" * 50_000  # more than a pipe holds
    flags = ["--config", "/dev/stdin"] if is_named_by == "flag" else []
    popen = subprocess.Popen(
        [sys.executable, "-m", "mrq_core.cli", "demo", "--jobs", "3", *flags],
        cwd=project.path, env={**project.env, **({} if flags else {"MRQ_CONFIG": "/dev/stdin"})},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = popen.communicate(source, timeout=60)
    assert (popen.returncode, err) == (0, "")
    assert "The dashboard is at http://127.0.0.1:" in out
    assert "9 of 9 jobs have ended" in out
    loaded = (project.path / "loaded").read_text().splitlines()
    assert ["dashboard" in line for line in loaded] == [False, True]


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_a_dashboard_that_cannot_start_is_left_out(mrq: Shell) -> None:
    said = mrq("demo", "--jobs", "3", "--dashboard-ip", "0.0.0.0")
    assert "without a login" in said.err
    assert len(said.err.splitlines()) == 1
    assert "9 of 9 jobs have ended" in said.out


def test_the_dashboard_of_the_demo_takes_another_port_only_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> NoReturn:
        raise OSError("taken")

    monkeypatch.setattr(socket, "create_server", refuse)
    given, unset = (
        load_config(settings, file=os.devnull, environ={}) for settings in ({"dashboard_port": 5555}, {})
    )
    assert (demo_dashboard._port(given), demo_dashboard._port(unset)) == (5555, 0)
