"""The examples for supervisord, systemd and Heroku hold against the program."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.config.sources import load_config
from mrq_core.contract.record import Status
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from tests.deploy.program import TIME_TO_STOP, checked, our_calls, split_program
from tests.deploy.snippets import PROGRAM, SCRIPTS, TITLED, ini, values
from tests.support import Process, Project, open_project, until

UNIT, PATIENCE = "mrq-worker@.service", "mrq-worker@.service.d/patience.conf"
TASKS = """
import os, time
from mrq_core import task

@task
def wait_for(path: str):
    open("began", "w").close()
    while not os.path.exists(path):
        time.sleep(0.01)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as opened:
        opened.write("tasks.py", TASKS)
        yield opened


def program(line: str) -> list[str]:
    """What the program of a line is given."""
    words = shlex.split(line)
    rest = split_program(words)
    assert words[0] == PROGRAM
    assert rest is not None
    return rest


# --- supervisord ----------------------------------------------------------------------------------


def test_the_worker_of_supervisord_is_real() -> None:
    found = values(TITLED["supervisord.conf"], "program:mrq")
    environ = dict(re.findall(r'(\w+)="([^"]*)",?', found["environment"]))
    assert ",".join(f'{name}="{value}"' for name, value in environ.items()) == found["environment"]
    config = checked(program(found["command"]), environ)
    assert (config.broker, config.queues) == ("redis", ("mail/", "default"))


def test_supervisord_stops_workers_as_they_want_it_and_starts_them_again() -> None:
    found = values(TITLED["supervisord.conf"], "program:mrq")
    assert found["stopsignal"] == "TERM"
    assert float(found["stopwaitsecs"]) >= TIME_TO_STOP
    assert (found["stopasgroup"], found["killasgroup"]) == ("false", "true")
    assert found["autorestart"] == "true"
    assert int(found["startretries"]) >= 1000
    names = {found["process_name"] % {"program_name": "mrq", "process_num": n} for n in range(3)}
    logs = {found["stdout_logfile"] % {"program_name": "mrq", "process_num": n} for n in range(3)}
    assert (len(names), len(logs), int(found["numprocs"]) > 1) == (3, 3, True)


# --- systemd --------------------------------------------------------------------------------------


def unit_environment() -> dict[str, str]:
    found: dict[str, str] = {}
    for _, name, value in ini(TITLED[UNIT]):
        if name == "Environment":
            for pair in shlex.split(value):
                variable, _, given = pair.partition("=")
                found[variable] = given
    return {name: value.replace("%H", "host").replace("%i", "1") for name, value in found.items()}


def test_the_worker_of_systemd_is_real() -> None:
    config = checked(program(values(TITLED[UNIT], "Service")["ExecStart"]), unit_environment())
    assert (config.broker, config.queues, config.name) == ("redis", ("mail/", "default"), "host-1")


def test_systemd_stops_workers_as_they_want_it_and_starts_them_again() -> None:
    found = values(TITLED[UNIT], "Service")
    config = checked(["worker"], unit_environment())
    assert found["KillMode"] == "mixed"
    assert "KillSignal" not in found
    assert float(found["TimeoutStopSec"]) >= TIME_TO_STOP
    assert (found["Restart"], found["RestartPreventExitStatus"]) == ("always", "2")
    assert values(TITLED[UNIT], "Unit")["StartLimitIntervalSec"] == "0"
    assert found["MemoryMax"].endswith("M")
    assert 0 < config.max_memory * 1e6 < 0.8 * int(found["MemoryMax"][:-1]) * 2**20


def test_the_patient_stop_waits_longer_than_its_command_and_the_worker_need() -> None:
    found = values(TITLED[PATIENCE], "Service")
    waits = re.search(r"timeout (\d+) ", found["ExecStop"])
    assert waits is not None
    assert float(found["TimeoutStopSec"]) >= int(waits[1]) + TIME_TO_STOP


def test_the_patient_stop_lets_a_job_end_and_ends_with_the_worker(project: Project) -> None:
    worker = project.worker()
    job = project.queue("tasks.wait_for", {"path": "go"})
    until((project.path / "began").exists, what="the job to begin")
    command = values(TITLED[PATIENCE], "Service")["ExecStop"]
    stop = Process(
        shlex.split(command), cwd=project.path, env={**os.environ, "MAINPID": str(worker.pid)},
        output=project.path / "stop",
    )  # fmt: skip
    try:
        worker.until_output("worker.stopping on SIGINT")
        assert stop.popen.poll() is None
        project.write("go", "")
        assert worker.wait() == 0
        assert stop.wait() == 0, stop.output
    finally:
        stop.end()
    assert project.client.fetch(job).status == Status.SUCCESS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_knows_every_name_and_value_of_the_units(tmp_path: Path) -> None:
    ours = Path(sys.executable).with_name("mrq")
    for title in (UNIT, PATIENCE):
        path = tmp_path / title
        path.parent.mkdir(exist_ok=True)
        path.write_text(TITLED[title].replace(PROGRAM, str(ours)))
    said = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.replace("@", "@1"))],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},  # the colon adds the usual places
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert [line for line in said.stderr.splitlines() if str(tmp_path) in line or "mrq-worker" in line] == []


def test_units_are_called_by_their_names() -> None:
    lines = [
        line for script in SCRIPTS for line in script.splitlines() if "systemctl" in line or "journal" in line
    ]
    called = re.findall(r"[\w-]+@[\w*]+", "\n".join(lines))
    assert len(called) > len(lines) > 1
    assert {name.partition("@")[0] + "@.service" for name in called} == {UNIT}


# --- Heroku ---------------------------------------------------------------------------------------


def test_the_lines_of_the_procfile_are_real() -> None:
    lines = dict(line.split(": ", 1) for line in TITLED["Procfile"].splitlines())
    assert set(lines) == {"release", "worker"}
    for line in lines.values():
        [call] = our_calls(line)
        checked(call.words, call.environ)


@pytest.mark.parametrize(
    ("redis_url", "mongodb_uri", "broker"),
    [
        (None, None, "sqlite"),
        ("redis://:p@h:6379", None, "redis"),
        ("rediss://:p@h:6380", "mongodb://u:p@h/app", "redis"),
    ],
)
def test_the_config_file_takes_the_variables_of_add_ons(
    redis_url: str | None,
    mongodb_uri: str | None,
    broker: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "mrq-config.py"
    file.write_text(TITLED["mrq-config.py"])
    for name, value in (("REDIS_URL", redis_url), ("MONGODB_URI", mongodb_uri)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    config = load_config(file=file, environ={})
    assert config.broker == broker
    assert config.mongodb == mongodb_uri or mongodb_uri is None
    for wanted in (broker, config.redis, config.mongodb):
        one = load_config({"broker": wanted}, file=file, environ={})
        open_broker(one, Plugins(one)).close()
    assert config.redis.endswith("?ssl_cert_reqs=none") == (redis_url or "").startswith("rediss:")


def test_heroku_gives_workers_more_time_than_they_need(project: Project) -> None:
    """What it sends, to whom it sends it: each process of the dyno, the shell included."""
    [call] = our_calls(TITLED["Procfile"].partition("worker: ")[2])
    line = shlex.join([sys.executable, "-m", "mrq_core.cli", *call.words])
    job = project.queue("tasks.wait_for", {"path": "never"})
    dyno = Process(["bash", "-c", line], cwd=project.path, env=project.env, output=project.path / "dyno")
    try:
        until((project.path / "began").exists, what="the job to begin")
        os.killpg(dyno.pid, signal.SIGTERM)
        dyno.wait(30)
        until(lambda: "worker.stopped" in dyno.output, what="the worker to stop", patience=30)
    finally:
        dyno.end()
    assert project.client.fetch(job).status == Status.INTERRUPT
