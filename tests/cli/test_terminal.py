"""Every command on every terminal: closed streams, full disks, readers that go away, other encodings, a
deleted working directory. No command prints a traceback of mrq, and each ends with the code of its work."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import UTC, datetime
from fcntl import ioctl
from typing import NamedTuple

import pytest

from mrq_core.contract.queries import LogLine
from tests.cli.conftest import Said
from tests.support import PATIENCE, Project, open_project

HOSTILE = "z\u017c\U0001f600\x1b[31m\x9b2J\u202e"
TASKS = f"""
from mrq_core import log, task

HOSTILE = {HOSTILE!a}


@task
def talk(text: str = ""):
    print(HOSTILE[:3])
    log.warning("logged %s", HOSTILE)
    return HOSTILE


@task
def fail():
    raise ValueError(HOSTILE)
"""


class Condition(NamedTuple):
    """A shell command around `mrq`, and variables of its environment."""

    shell: str
    env: dict[str, str] = {}


CONDITIONS = {
    "plain": Condition("{}"),
    "output closed": Condition("{} >&-"),
    "errors closed": Condition("{} 2>&-"),
    "input closed": Condition("{} <&-"),
    "all closed": Condition("{} >&- 2>&- <&-"),
    "output is read-only": Condition("{} 1</dev/null"),
    "reader gone": Condition("{} | true; exit ${{PIPESTATUS[0]}}"),
    "one line read": Condition("{} | head -1; exit ${{PIPESTATUS[0]}}"),
    "disk full": Condition("{} >/dev/full"),
    "disk of the errors full": Condition("{} 2>/dev/full"),
    "ascii": Condition("{}", {"PYTHONIOENCODING": "ascii"}),
    "latin-1": Condition("{}", {"PYTHONIOENCODING": "latin-1"}),
    "locale C": Condition("{}", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "folder gone": Condition("mkdir gone-$$; cd gone-$$; rmdir ../gone-$$; {}"),
}


class Command(NamedTuple):
    """Arguments of `mrq`, and the exit code; `needs_output`: 1 if the disk is full; `without_folder`: the
    code in a deleted working directory, if it differs."""

    arguments: str
    code: int = 0
    needs_output: bool = False
    without_folder: int | None = None


COMMANDS = [
    Command("--version", needs_output=True),
    Command("--help", needs_output=True),
    Command("jobs list --help", needs_output=True),
    Command("jobs list --status done", 2),
    Command("nonsense", 2),
    Command("worker --burst --nonsense", 2),
    Command("run tasks.talk", without_folder=1),
    Command("run tasks.fail", 1),
    Command("run tasks.talk --async"),
    Command("worker --burst {odd}", without_folder=2),
    Command("worker --burst {queue}", without_folder=2),
    Command("worker --burst --quiet --log-level DEBUG", without_folder=2),
    Command("demo --jobs 1", without_folder=2),
    Command("jobs list", needs_output=True),
    Command("jobs list --json", needs_output=True),
    Command("jobs show {talked}", needs_output=True),
    Command("jobs show {talked} --json", needs_output=True),
    Command("jobs show {failed}", needs_output=True),
    Command("jobs show {odd}", 2),
    Command("jobs logs {talked}", needs_output=True),
    Command("jobs logs {talked} --json", needs_output=True),
    Command("jobs logs {talked} --follow --json", needs_output=True),
    Command("jobs wait {talked}"),
    Command("jobs wait {failed}", 1),
    Command("jobs requeue --status timeout"),
    Command("jobs cancel {talked}", 1),
    Command("jobs cancel --queue {queue} --dry-run", needs_output=True),
    Command("jobs move {waiting} --to {queue}"),
    Command("jobs remove --path {odd} --yes"),
    Command("queues", needs_output=True),
    Command("queues --json", needs_output=True),
    Command("queues pause {queue}"),
    Command("queues pause {odd}"),
    Command("queues resume {queue}"),
    Command("workers", needs_output=True),
    Command("workers --json", needs_output=True),
    Command("workers show {odd}", 1),
    Command("check", needs_output=True),
    Command("check --json", needs_output=True),
    Command("plugins", needs_output=True),
    Command("plugins --json", needs_output=True),
    Command("scheduler --broker nothing://", 2),
    Command("schedules add tasks.talk --every 1h --name x --replace"),
    Command("schedules", needs_output=True),
    Command("schedules --json", needs_output=True),
    Command("schedules next x -n 3", needs_output=True),
    Command("schedules pause {odd}", 1),
]
_PER_COMMIT = {"jobs show {talked} --json"}
"""Meets all conditions in the usual run. Of the other commands every third meets one, in rotation."""
_names = list(CONDITIONS)
CASES = [
    pytest.param(
        command,
        name,
        id=f"{command.arguments}, {name}",
        marks=[]
        if command.arguments in _PER_COMMIT or (index % 3 == 0 and index // 3 % len(_names) == number)
        else pytest.mark.campaign,
    )
    for index, command in enumerate(COMMANDS)
    for number, name in enumerate(_names)
]
OURS = re.compile(r"Traceback|Exception ignored|lost sys\.std|Logging error|mrq_core/")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    path = tmp_path_factory.mktemp("terminal")
    with open_project(path, f"sqlite:///{path}/jobs.sqlite3") as project:
        project.write("tasks.py", TASKS)
        yield project


@pytest.fixture(scope="module")
def words(shared: Project) -> dict[str, str]:
    """Arguments of the commands by name."""
    ids = {
        "talked": shared.queue("tasks.talk", {"text": HOSTILE}),
        "failed": shared.queue("tasks.fail"),
        "waiting": shared.queue("tasks.talk", {"text": HOSTILE}, queue="later"),
    }
    shared.work_off()
    shared.mrq("schedules", "add", "tasks.talk", "--every", "1h", "--name", "x")
    return {**ids, "odd": f"'{HOSTILE}'", "queue": HOSTILE[:3]}


def call(project: Project, shell: str, env: dict[str, str] | None = None) -> Said:
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=project.path,
        env={**project.env, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Said(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def program(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} -m mrq_core.cli {arguments}"


@pytest.mark.parametrize(("command", "name"), CASES)
def test_every_command_ends_with_the_code_of_its_work(
    shared: Project, words: dict[str, str], command: Command, name: str
) -> None:
    condition = CONDITIONS[name]
    said = call(shared, condition.shell.format(program(command.arguments.format(**words))), condition.env)
    code = command.code
    if command.needs_output and name == "disk full":
        code = 1
    if name == "folder gone" and command.without_folder is not None:
        code = command.without_folder
    assert said.code == code, said
    text = said.out + said.err
    if command.arguments not in ("run tasks.fail", "jobs show {failed}"):
        assert not OURS.search(text), text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), ascii(text)
    if name == "disk full" and command.arguments != "run tasks.fail" and not said.code:
        # What another test has not paused is not resumed, and standard error says so.
        is_silent = command.arguments.startswith("worker") or "was not paused" in said.err
        assert "(No space left on device)" in said.err or is_silent
        assert "the command is done; what it prints is lost" in said.err or is_silent
    if "--json" in command.arguments and name in ("plain", "ascii", "latin-1", "locale C"):
        for text in said.out.splitlines() if "--follow" in command.arguments else [said.out]:
            json.loads(text)


def test_data_come_out_of_json_unharmed_in_every_encoding(shared: Project, words: dict[str, str]) -> None:
    for encoding in ("utf-8", "ascii", "latin-1"):
        env = {"PYTHONIOENCODING": encoding}
        shown = json.loads(call(shared, program(f"jobs show {words['talked']} --json"), env).out)
        assert shown["result"] == shown["params"]["text"] == HOSTILE


@pytest.mark.parametrize("closed", [">&-", ">/dev/full", "| true"])
def test_a_queued_job_is_named_on_standard_error_if_standard_output_does_not_take_its_id(
    shared: Project, closed: str
) -> None:
    before = {job["id"] for job in json.loads(call(shared, program("jobs list --json -n 1000")).out)}
    said = call(shared, program(f"run tasks.talk --async {closed}"))
    after = {job["id"] for job in json.loads(call(shared, program("jobs list --json -n 1000")).out)}
    [job_id] = after - before
    assert f"the job {job_id} is queued" in said.err


def test_a_log_that_is_followed_ends_with_its_reader(shared: Project) -> None:
    job_id = shared.queue("tasks.talk", queue="never")
    line = LogLine(job_id=job_id, attempt=1, seq=1, at=datetime.now(UTC), level="INFO", message="first")
    shared.client.broker.append_logs([line], max_size=1000)
    said = call(shared, f"{program(f'jobs logs {job_id} --follow')} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("line", ["sys.stdout = sys.stderr = None", "sys.stdout.close(); sys.stderr.close()"])
def test_a_config_file_that_closes_the_streams_hides_no_answer(shared: Project, line: str) -> None:
    shared.write("closing.py", f"import sys\n{line}\n")
    for arguments, code, out, err in (
        ("jobs list --json --queue none", 0, "[]\n", ""),
        ("queues pause a", 0, "paused: a\n", ""),
        ("queues resume a", 0, "resumed: a\n", ""),
        ("run tasks.talk --quiet", 0, json.dumps(HOSTILE), "logged"),
        ("run tasks.nothing", 1, "", "has no 'nothing'"),
        ("worker none --burst", 0, "", "worker.stopped"),
    ):
        said = call(shared, program(f"{arguments} --config closing.py"))
        assert said.code == code, said
        assert said.out == out or arguments.startswith("run tasks.talk")
        assert err in said.err
        assert not OURS.search(said.err)


def test_a_deleted_folder_is_named_where_the_database_is_relative(shared: Project) -> None:
    said = call(
        shared,
        f"mkdir gone; cd gone; rmdir ../gone; {program('jobs list')}",
        {"MRQ_BROKER": "sqlite", "MRQ_STORE": ""},
    )
    assert said.code == 2
    assert "the working directory is gone" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_worker_that_does_not_start_keeps_its_exit_code_whatever_keeps_its_process(shared: Project) -> None:
    shared.write("lasting.py", "import atexit, signal\natexit.register(signal.pause)\n")
    command = program(f"worker --burst --config {shared.path}/lasting.py")
    said = call(shared, f"mkdir gone; cd gone; rmdir ../gone; {command}")
    assert "the working directory is gone" in said.err
    assert said.code == 2


@pytest.mark.parametrize("command", ["worker --burst", "worker -p 2 --burst"])
def test_a_worker_does_not_start_in_a_deleted_folder(shared: Project, command: str) -> None:
    said = call(shared, f"mkdir gone; cd gone; rmdir ../gone; {program(command)}")
    assert said.code in (1, 2)
    assert "the working directory is gone" in said.err
    assert "FileNotFoundError" not in said.err


@pytest.mark.parametrize(
    "terminal", [{"TERM": "xterm-256color"}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}]
)
@pytest.mark.parametrize("columns", [1, 20, 80])
def test_narrow_terminals_show_ids_and_names_whole(
    shared: Project, words: dict[str, str], terminal: dict[str, str], columns: int
) -> None:
    shown = on_terminal(shared, "jobs list --status failed", columns, terminal)
    assert words["failed"] in shown
    assert "default" in on_terminal(shared, "queues", columns, terminal)
    if terminal["TERM"] == "dumb":
        assert "\x1b" not in shown
    if "NO_COLOR" in terminal:
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


@pytest.mark.parametrize("width", ["0", "\N{SUPERSCRIPT TWO}", "100000000", "9" * 20])
def test_a_width_of_no_terminal_counts_as_unknown(shared: Project, words: dict[str, str], width: str) -> None:
    assert words["failed"] in on_terminal(shared, "jobs list --limit 200", 0, {"COLUMNS": width})
    assert "Usage" in on_terminal(shared, "jobs --help", 80, {"COLUMNS": width})


def on_terminal(project: Project, arguments: str, columns: int, env: dict[str, str]) -> str:
    """What the program prints on a terminal of this width."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        with subprocess.Popen(
            ["bash", "-c", program(arguments)],
            cwd=project.path,
            env={**{n: v for n, v in project.env.items() if n != "NO_COLOR"}, **env},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            shown = b""
            while part := _read(ours):
                shown += part
            assert process.wait(PATIENCE) == 0
    finally:
        os.close(ours)
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the program has ended
        return b""
