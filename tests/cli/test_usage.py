"""Flags, help, versions, exit codes: what holds for every command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core import __version__
from mrq_core.cli.main import PATCHED_COMMANDS
from mrq_core.cli.options import settings_of
from mrq_core.config.settings import flag_of
from mrq_core.operations import queues
from tests.cli.conftest import Shell
from tests.support import Project, until

ALL = ("broker", "worker", "tasks", "logs", "plugins")
COMMANDS = {
    "worker": ALL,
    "run": ("broker", "tasks", "logs", "plugins"),
    "demo": ("broker", "plugins", "dashboard"),
    "check": ("broker", "worker", "tasks", "logs", "plugins", "dashboard"),
    "plugins": ("broker", "plugins"),
    "jobs list": ("broker", "plugins"),
    "jobs show": ("broker", "plugins"),
    "jobs logs": ("broker", "plugins"),
    "jobs wait": ("broker", "plugins"),
    "jobs requeue": ("broker", "plugins"),
    "jobs cancel": ("broker", "plugins"),
    "jobs move": ("broker", "plugins"),
    "jobs remove": ("broker", "plugins"),
    "queues list": ("broker", "plugins"),
    "queues pause": ("broker", "plugins"),
    "queues resume": ("broker", "plugins"),
    "queues purge": ("broker", "plugins"),
    "queues move": ("broker", "plugins"),
    "workers list": ("broker", "plugins"),
    "workers show": ("broker", "plugins"),
    "workers log": ("broker", "plugins"),
}


HELP = """
import contextlib, io, json, sys
from mrq_core.cli.app import application

told = {}
for command in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        application()(args=[*command.split(), "--help"], prog_name="mrq")
    told[command] = out.getvalue()
json.dump(told, sys.stdout)
"""
IMPORTED = """
import sys
from mrq_core.cli.app import application

application(sys.argv[1])
print(*(name for name in sys.modules if name.startswith("mrq_core.cli.") and name.count("_") > 1))
"""
GROUPS = ("jobs", "queues", "workers")


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """The help of every command and group, by its words: told by one process."""
    return told_by(sys.executable)


def told_by(*python: str) -> dict[str, str]:
    done = subprocess.run(
        [*python, "-c", HELP],
        input=json.dumps(["", *COMMANDS, *GROUPS]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_the_help_lists_all_commands_and_no_hidden_ones(told: dict[str, str]) -> None:
    for command in COMMANDS:
        assert f"│ {command.split()[0]}" in told[""]


def test_the_help_is_the_same_where_python_removes_docstrings(told: dict[str, str]) -> None:
    assert told_by(sys.executable, "-OO") == told


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_names_its_settings(told: dict[str, str], command: str) -> None:
    assert {"--config", "--debug"} <= set(re.findall(r"--[a-z-]+", told[command]))
    for name in settings_of(COMMANDS[command]):
        assert flag_of(name) in told[command]


@pytest.mark.parametrize(
    ("command", "modules"),
    [
        ("queues", {"queues_commands"}),
        ("stack", {"workers_commands"}),
        ("scheduler", {"scheduler_command"}),
        ("worker", {"worker_command", "worker_process", "worker_role"}),
    ],
)
def test_a_command_imports_no_other_command(command: str, modules: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, command], capture_output=True, text=True, check=True
    )
    assert {name.rpartition(".")[2] for name in done.stdout.split()} == modules


def test_a_command_that_does_not_exist_is_compared_with_all(mrq: Shell) -> None:
    assert "Did you mean" in mrq("schedule", code=2).err


def test_settings_of_the_config_file_only_have_no_flag(told: dict[str, str]) -> None:
    assert "--tasks" not in told["worker"]


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_each_group_lists_its_commands(told: dict[str, str], group: str) -> None:
    for command in COMMANDS:
        if command.startswith(f"{group} "):
            assert command.split()[1] in told[group]


def test_the_version_is_printed(mrq: Shell) -> None:
    assert mrq("--version").out == f"mrq {__version__}\n"


def test_an_unknown_flag_is_an_error_that_names_the_near_one(mrq: Shell) -> None:
    said = mrq("worker", "--greenlet", "3", code=2)
    assert "--greenlet" in said.err
    assert "--greenlets" in said.err


def test_an_unknown_command_is_an_error_that_names_the_near_one(mrq: Shell) -> None:
    assert "'worker'" in mrq("wroker", code=2).err


def test_underscores_are_the_same_as_dashes(mrq: Shell) -> None:
    mrq("worker", "--max_jobs", "1", "--no_quiet", "--burst", "--log_level", "ERROR")


def test_an_unknown_broker_is_an_error_that_lists_the_installed_ones(mrq: Shell) -> None:
    for command in (["worker"], ["jobs", "list"]):
        said = mrq(*command, "--broker", "rabbit", code=2)
        assert "rabbit" in said.err
        assert "installed are mongo, redis, sqlite" in said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("before", [True, False])
def test_debug_adds_the_traceback_of_an_error(mrq: Shell, before: bool) -> None:
    arguments = ["jobs", "list", "--broker", "nothing"]
    said = mrq(*(["--debug", *arguments] if before else [*arguments, "--debug"]), code=2)
    assert "Traceback (most recent call last)" in said.err
    assert said.err.rstrip().splitlines()[-1].startswith("mrq: no installed broker driver")


@pytest.mark.parametrize("arguments", [["run", "tasks.Add"], ["worker", "--burst", "--debug"]])
def test_a_damaged_distribution_is_named_before_gevent_looks_for_plugins(
    arguments: list[str], mrq: Shell, tmp_path: Path
) -> None:
    folder = tmp_path / "shop-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_bytes(b"[mrq]\nsh\xe9p = shop")
    said = mrq(*arguments, env={"PYTHONPATH": str(tmp_path)}, code=2)
    *before, last = said.err.splitlines()
    assert last.startswith(
        f"mrq: the installed plugins cannot be listed: the entry points in {folder} cannot"
    )
    assert bool(before) == ("--debug" in arguments) == ("Traceback" in said.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "show", "\udcff"],
        ["jobs", "cancel", "\udcff"],
        ["jobs", "list", "--path", "\udcff"],
        ["jobs", "list", "--params", "a=\udcff"],
        ["jobs", "list", "--worker", "\udcff"],
        ["jobs", "list", "--since", "0001-01-01T00:00+14:00"],
        ["workers", "show", "\udcff"],
        ["run", "\udcff", "--async"],
        ["worker", "--burst", "--name", "\udcff"],
        ["queues", "list", "--redis-prefix", "\udcff"],
    ],
)
def test_odd_arguments_are_errors_in_one_line(mrq: Shell, arguments: list[str]) -> None:
    said = mrq(*arguments, code=2)
    assert len(said.err.splitlines()) == 1
    assert "expected" in said.err or "is not valid UTF-8" in said.err


def test_an_error_of_mrq_itself_is_a_line_that_names_debug(
    mrq: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "list_queues", lambda broker: 1 / 0)
    said = mrq("queues", "list", code=1)
    assert said.err.startswith("mrq: ZeroDivisionError: division by zero\n")
    assert "--debug" in said.err
    assert "Traceback" in mrq("queues", "list", "--debug", code=1).err


HOOK = "from mrq_core import hookimpl\n\n@hookimpl\ndef mrq_before_enqueue(record):\n    raise {}\n"
REFUSALS = {
    "ValueError('no')": 1, "PermissionError('no')": 1, "GeneratorExit('no')": 2, "SystemExit('no')": 2,
    "__import__('gevent').GreenletExit('no')": 2, "KeyboardInterrupt('no')": 2,
}  # fmt: skip


@pytest.mark.parametrize(("error", "code"), REFUSALS.items())
def test_a_plugin_that_refuses_a_job_is_named(mrq: Shell, project: Project, error: str, code: int) -> None:
    project.write("mrq-config.py", HOOK.format(error))
    said = mrq("run", "shop.Sell", "--queue", "q", code=code)
    kind = error.partition("(")[0] if "gevent" not in error else "GreenletExit"
    assert f"{kind}: no" in said.err
    assert "mrq_before_enqueue of the plugin config file" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "code", ["GeneratorExit('x')", "SystemExit(3)", "KeyboardInterrupt", "__import__('gevent').GreenletExit"]
)
@pytest.mark.parametrize("where", ["config file", "plugin"])
def test_code_that_ends_the_process_while_it_is_loaded_is_an_error_in_one_line(
    mrq: Shell, project: Project, where: str, code: str
) -> None:
    project.write("leaving.py", f"raise {code}\n")
    project.write("mrq-config.py", f"raise {code}\n" if where == "config file" else "PLUGINS = ['leaving']\n")
    for command in (("jobs", "list"), ("run", "shop.Sell")):
        said = mrq(*command, code=2)
        assert len(said.err.splitlines()) == 1, said.err


@pytest.mark.parametrize("code", ["KeyboardInterrupt", "SystemExit(3)"])
def test_tasks_that_end_the_process_while_they_are_imported_are_an_error_in_one_line(
    mrq: Shell, project: Project, code: str
) -> None:
    project.write("tasks.py", f"raise {code}\n")
    for command in (("worker", "--scheduler"), ("scheduler",), ("worker", "--scheduler", "-p", "2")):
        said = mrq(*command, code=2)
        [line] = [line for line in said.err.splitlines() if " processes." not in line]
        assert f"tasks, which cannot be imported: {code.partition('(')[0]}" in line
    said = mrq("run", "tasks.greet", code=1)
    assert "importing tasks raised" in said.err
    said = mrq("check", env={"MRQ_SCHEDULER": "1"}, code=1)
    assert "tasks, which cannot be imported" in said.out


def test_a_task_that_raises_the_exception_of_ctrl_c_fails(mrq: Shell, project: Project) -> None:
    project.write("tasks.py", "from mrq_core import task\n@task\ndef greet():\n    raise KeyboardInterrupt\n")
    assert "KeyboardInterrupt" in mrq("run", "tasks.greet", code=1).err


def test_an_interrupt_while_the_config_file_is_loaded_is_quiet(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", "import signal\nsignal.raise_signal(signal.SIGINT)\n")
    for command in (("jobs", "list"), ("run", "shop.Sell"), ("worker",)):
        assert mrq(*command, code=130).err == ""


@pytest.mark.parametrize(
    "harm", ["sys.stdout = None", "sys.stdout.close()", "sys.stderr = None", "sys.stderr.close()"]
)
@pytest.mark.parametrize("where", ["config file", "plugin"])
def test_standard_streams_that_loaded_code_closes_are_restored(
    project: Project, where: str, harm: str
) -> None:
    code = f"import sys\n{harm}\n"
    project.write("closing.py", code)
    project.write("mrq-config.py", code if where == "config file" else "PLUGINS = ['closing']\n")
    project.write("shop.py", "from mrq_core import task\n\n@task\ndef sell():\n    return 5\n")

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mrq_core.cli", *arguments],
            cwd=project.path, env=project.env, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    done = called("run", "shop.sell")
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    done = called("jobs", "list")
    assert (done.returncode, done.stderr) == (0, "There are no jobs.\n")
    assert called("plugins").returncode == 0


def test_a_bad_value_names_the_setting_and_the_flag(mrq: Shell) -> None:
    said = mrq("worker", "--greenlets", "many", code=2)
    assert said.err == "mrq: GREENLETS is 'many' (--greenlets): expected a whole number\n"


def test_flags_win_over_the_environment_and_that_over_the_config_file(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", "NAME = 'from-file'\nGREENLETS = 0\n")
    said = mrq("worker", "--burst", code=2)
    assert "GREENLETS is 0 (mrq-config.py)" in said.err
    said = mrq("worker", "--burst", "-g", "2", env={"MRQ_NAME": "from-env"})
    assert "name=from-env" in said.err
    assert "greenlets=2" in said.err


def test_another_config_file_can_be_named(mrq: Shell, project: Project) -> None:
    project.write("other.py", "NAME = 'other'\n")
    assert "name=other" in mrq("worker", "--burst", "--config", "other.py").err
    assert "cannot be read" in mrq("worker", "--config", "missing.py", code=2).err


def test_an_unknown_environment_variable_is_a_warning(mrq: Shell) -> None:
    said = mrq("queues", "list", env={"MRQ_GRENLETS": "3"})
    assert "MRQ_GRENLETS is not a setting of mrq; did you mean GREENLETS?" in said.err


def test_a_file_that_is_no_database_is_an_error_in_one_sentence(mrq: Shell, project: Project) -> None:
    (project.path / "notes.txt").write_text("this is no database, whatever its name says\n" * 50)
    for command in (["worker", "--quiet"], ["jobs", "list"]):
        said = mrq(*command, "--broker", "sqlite:///notes.txt", "--store", "", code=1)
        assert "notes.txt" in said.err
        assert len(said.err.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(project: Project) -> None:
    project.client.queue_jobs("tasks.fail", ({} for _ in range(1000)))
    program = [sys.executable, "-m", "mrq_core.cli", "jobs", "list", "--json", "--limit", "1000"]
    with subprocess.Popen(
        program, cwd=project.path, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.read(1)
        reader.stdout.close()
        assert reader.stderr.read() == b""


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_interrupting_a_command_that_waits_is_quiet(project: Project) -> None:
    job_id = project.queue("tasks.fail")
    process = project.start("jobs", "wait", job_id)
    until(lambda: "jobs.sqlite3" in " ".join(_open_files(process.pid)))
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert process.output == ""


CLASSIC_NAMES = """
import sys
from mrq_core.cli import main

sys.argv = ["mrq-x", "--help"]
for function in (main.main_worker, main.main_run):
    try:
        function()
    except SystemExit as ended:
        assert ended.code == 0
"""


def test_the_classic_names_are_the_same_commands() -> None:
    done = subprocess.run([sys.executable, "-c", CLASSIC_NAMES], capture_output=True, text=True, check=True)
    assert re.findall(r"Usage: (mrq \w+)", done.stdout) == ["mrq worker", "mrq run"]


PATCHING = """
import sys
from mrq_core.cli import main


def is_patched_by(command):
    sys.argv = ["mrq", "--debug", command, "--help"]
    try:
        main.main()
    except SystemExit:
        pass
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("socket"))


assert not is_patched_by("jobs")
assert is_patched_by("worker")
"""


def test_only_commands_that_run_tasks_are_patched() -> None:
    assert {"worker", "run", "demo"} == PATCHED_COMMANDS
    done = subprocess.run([sys.executable, "-c", PATCHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _open_files(pid: int) -> list[str]:
    links = Path(f"/proc/{pid}/fd")
    if not links.exists():
        pytest.skip("needs /proc")
    found = []
    for link in links.iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return found


FILTERS = ("status", "path", "queue", "worker", "error", "message", "key", "since", "until", "params")


@pytest.mark.parametrize("command", ["list", "requeue", "cancel", "move --to x", "remove --yes"])
def test_an_empty_filter_is_refused_and_changes_nothing(mrq: Shell, project: Project, command: str) -> None:
    job_id = project.queue("tasks.fail")
    for name in FILTERS:
        for value in ("", ",", " "):
            said = mrq("jobs", *command.split(), f"--{name}", value, code=2)
            assert said.out == ""
            assert re.fullmatch(rf"mrq: --{name} (is|has an empty value).*: expected .*\n", said.err), said
    for name in ("since", "until"):
        said = mrq("jobs", *command.split(), f"--{name}", "1h", f"--{name}", "2h", code=2)
        assert "expected once" in said.err
    for value in ("", " "):
        assert "group has an empty value" in mrq("jobs", *command.split(), "--group", value, code=2).err
    assert project.client.fetch(job_id).status == "queued"


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "--burst", ""),
        ("worker", "--burst", "default", ""),
        ("worker", "--burst", "default", ","),
        ("queues", "pause", ""),
        ("queues", "pause", "default", ""),
        ("queues", "resume", ""),
        ("workers", "show", ""),
        ("run", "tasks.fail", "--queue", ""),
        ("jobs", "requeue", "--status", "failed", "--to", ""),
        ("jobs", "list", "--config", ""),
    ],
)
def test_an_empty_name_is_refused(mrq: Shell, project: Project, arguments: tuple[str, ...]) -> None:
    said = mrq(*arguments, code=2)
    assert said.out == ""
    assert "expected" in said.err
    assert len(said.err.splitlines()) == 1
    assert project.client.broker.paused() == set()
