"""`mrq queues`, `mrq workers`, `mrq check` and `mrq plugins`."""

from __future__ import annotations

import signal
import socket

import pytest
from msgspec.structs import replace

from mrq_core.contract.messages import RawItem
from mrq_core.operations.schedules import SCHEDULES, add_schedule, stored_value
from mrq_core.scheduler.definitions import definition_from
from tests.cli.conftest import Shell, in_another_process
from tests.support import Project, until


def test_queues_shows_what_waits_where(mrq: Shell, project: Project) -> None:
    project.queue("tasks.fail")
    project.queue("tasks.fail", delay=60)
    project.queue("tasks.fail", queue="mail/fast")
    queues = {queue["name"]: queue for queue in mrq("queues", "--json").json}
    assert queues["default"]["waiting"] == 2
    assert queues["default"]["due"] == 1
    assert queues["default"]["oldest_due"] is not None
    assert queues["mail/fast"]["claimed"] == 0
    lines = mrq("queues", "list").out.splitlines()
    assert lines[2].split()[:4] == ["default", "2", "1", "0"]


def test_pause_and_resume(mrq: Shell, project: Project) -> None:
    project.queue("tasks.fail", queue="mail/fast")
    project.queue("tasks.fail")
    assert mrq("queues", "pause", "mail/", "other").out == "paused: mail/, other\n"
    said = mrq("queues", "--json")
    assert {queue["name"]: queue["paused"] for queue in said.json} == {"default": False, "mail/fast": True}
    assert "Also paused: mail/, other" in mrq("queues").err
    said = mrq("queues", "resume", "mail/fast", "other")
    assert "mail/fast was not paused itself, but as part of mail/" in said.err
    assert said.out == "resumed: other\n"
    assert project.client.broker.paused() == {"mail/"}


def test_purge_and_move(mrq: Shell, project: Project) -> None:
    for _ in range(3):
        project.queue("tasks.fail", queue="mail/fast")
    project.client.broker.raw("in_raw").push([RawItem(param="a"), RawItem(param="b")])
    assert mrq("queues", "move", "mail/", "--to", "x", "--dry-run").out == "3 jobs of mail/\n"
    assert mrq("queues", "move", "mail/", "--to", "x").out == "mail/: 3 jobs moved to x\n"
    assert "expected another queue" in mrq("queues", "move", "x", "--to", "x", code=2).err
    said = mrq("queues", "purge", "x", "in_raw", "--dry-run")
    assert said.out == "3 jobs and 2 parameters of x, in_raw\n"
    said = mrq("queues", "purge", "x", "in_raw")
    assert said.out == "x: 3 jobs removed\nin_raw: 0 jobs removed, 2 parameters\n"
    assert project.client.broker.totals().by_status() == {}


def test_stats_show_the_load_of_queues_and_the_workers_that_they_need(mrq: Shell, project: Project) -> None:
    for number in range(6):
        project.queue("tasks.nap", {"seconds": 0.5 if number < 2 else 60}, queue="mail/fast")
    project.queue("tasks.fail")
    process = project.worker("-g", "1", "--max-jobs", "2", "mail/")
    assert process.wait() == 0
    [tree] = mrq("queues", "stats", "mail/", "--empty-in", "2s", "--json").json
    assert (tree["name"], tree["waiting"], tree["due"], tree["claimed"]) == ("mail/", 4, 4, 0)
    assert tree["oldest_age"] > 0
    assert tree["ended"] == {"success": 2}
    assert 2 / 361 <= tree["service_rate"] <= 2 / 300
    assert 0.5 <= tree["run_time"]["mean"] < 30
    assert tree["run_time"].keys() == {"mean", "p50", "p95", "p99"}
    assert 0 <= tree["waiting_time"]["p50"] <= tree["waiting_time"]["p99"]
    assert tree["workers"] == 0
    assert tree["workers_needed"] >= 1  # 0.5 s of each of 4 jobs in 2 s
    everything = {queue["name"]: queue for queue in mrq("queues", "stats", "--json").json}
    assert everything["mail/fast"]["due"] == 4
    assert everything["default"] == {**everything["default"], "due": 1, "ended": {}, "run_time": None}
    assert everything["default"]["workers_needed"] is None
    [row] = [line for line in mrq("queues", "stats").out.splitlines() if line.startswith("mail/fast")]
    assert row.split()[1] == "4"


def test_stats_of_no_queue_and_wrong_arguments(mrq: Shell) -> None:
    assert "no queues yet" in mrq("queues", "stats").err
    assert mrq("queues", "stats", "--json").json == []
    [unknown] = mrq("queues", "stats", "none", "--json").json
    assert (unknown["due"], unknown["workers_needed"]) == (0, 0)
    for wrong in ("0s", "-5m", "soon", "nan", "1e9w"):
        assert "empty_in" in mrq("queues", "stats", f"--empty-in={wrong}", code=2).err
    assert "expected" in mrq("queues", "stats", "x" * 201, code=2).err


def test_names_of_queues_are_checked(mrq: Shell) -> None:
    assert "expected" in mrq("queues", "pause", "x" * 201, code=2).err


def test_without_queues_and_workers_the_lists_say_so(mrq: Shell) -> None:
    assert "no queues yet" in mrq("queues").err
    assert "No worker is running" in mrq("workers").err
    assert mrq("workers", "--json").json == []


def test_workers_are_listed_and_shown(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 60})
    project.worker("--name", "anna", "-g", "3")
    project.until_status(job_id, "started")
    [worker] = until(lambda: [w for w in mrq("workers", "--json").json if w["running"]])
    assert worker["name"] == f"anna.{socket.gethostname()}.{worker['pid']}"
    assert [job["id"] for job in worker["running"]] == [job_id]
    assert "1/3" in mrq("workers").out
    told = mrq("workers", "show", "anna").out
    assert job_id in told
    assert "1 of 3" in told
    assert mrq("workers", "show", worker["name"], "--json").json["pid"] == worker["pid"]
    assert f"did you mean {worker['name']}?" in mrq("workers", "show", worker["name"][1:], code=1).err


def test_two_workers_with_one_name_are_two_workers(mrq: Shell, project: Project) -> None:
    jobs = [project.queue("tasks.nap", {"seconds": 60}) for _ in range(2)]
    started = [project.worker("--name", "anna", "--paused-queues-refresh-interval", "0.1") for _ in range(2)]
    for job_id in jobs:
        project.until_status(job_id, "started")
    until(lambda: sum(len(worker["running"]) for worker in mrq("workers", "--json").json) == 2)
    workers = mrq("workers", "--json").json
    assert {worker["pid"] for worker in workers} == {process.pid for process in started}
    assert {job["id"] for worker in workers for job in worker["running"]} == set(jobs)
    said = mrq("workers", "show", "anna", code=1)
    assert "2 workers are named 'anna': expected one of anna." in said.err
    for job_id in jobs:  # each worker hears of the cancel of its job
        mrq("jobs", "cancel", job_id, "--interrupt")
        assert project.ended(job_id).status == "cancel"
    started[0].send(signal.SIGTERM)
    assert started[0].wait() == 0
    left, stopped = sorted(mrq("workers", "--json").json, key=lambda worker: worker["status"] == "stop")
    assert stopped["status"] == "stop"
    assert left["pid"] == started[1].pid
    assert mrq("workers", "show", "anna", "--json").json["pid"] == started[1].pid


def test_check_is_content_with_a_fresh_start(mrq: Shell) -> None:
    said = mrq("check", "--fix")
    assert "0 errors" in said.out
    levels = {finding["level"] for finding in mrq("check", "--json").json}
    assert "error" not in levels


def test_check_adds_search_keys_to_jobs_that_are_older_than_the_option(mrq: Shell, project: Project) -> None:
    def ids(key: str) -> list[str]:
        return [job["id"] for job in mrq("jobs", "list", "--key", key, "--json").json]

    [greeting, other] = project.client.queue_jobs("tasks.greet", [{"name": "anna"}, {"name": "bob"}])
    tasks = {"tasks.greet": {"searchable": ["name"]}, "tasks.Add": {"searchable": 5}}
    project.write("mrq-config.py", f"TASKS = {tasks}\n")
    project.client.queue_job("tasks.Add", {"a": 1, "b": 2})
    assert ids("name=anna") == []
    said = mrq("check", "--fix", code=1)
    assert "Examined 2 jobs with search keys; added the missing keys of 2." in said.err
    assert "searchable" in said.out  # of the other task
    assert ids("name=anna") == [greeting]
    assert ids("name=bob") == [other]


def test_check_finds_what_is_wrong_with_options_and_exits_with_1(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", "TASKS = {'tasks.Add': {'queue': 3}}\n")
    said = mrq("check", code=1)
    assert "✗ error" in said.out
    assert "TASKS['tasks.Add']" in said.out
    project.write("mrq-config.py", "TASKS = {'tasks.Ad': {'queue': 'x'}}\n")
    said = mrq("check")
    assert "! warning" in said.out
    assert "tasks has no 'Ad'" in said.out


def test_check_warns_of_schedules_that_can_never_work(mrq: Shell, project: Project) -> None:
    past = {"path": "tasks.fail", "name": "past", "interval": 60, "end": "2020-01-01"}
    entries = [past, {"path": "tasks.fail", "name": "odd", "interval": 61, "params": {"zz": 1}}]
    entries.append({"path": "tasks.fail", "name": "good", "interval": 62})
    project.write("mrq-config.py", f"SCHEDULER_TASKS = {entries}\n")
    found = [one for one in mrq("check", "--json").json if one["level"] == "warning"]
    assert [one["message"].partition(":")[0] for one in found if one["name"] == "SCHEDULER_TASKS"] == [
        "the schedule 'past'",
        "the schedule 'odd'",
    ]
    # An end that came after fires is no mistake.
    stored = add_schedule(project.client.broker, definition_from({**past, "end": "9000-01-01"}))
    fired = stored_value(replace(stored, definition=definition_from(past), fired=1))
    project.client.broker.state.put(SCHEDULES, "past", fired)
    assert "'past'" not in mrq("check").out


@pytest.mark.parametrize(
    ("line", "subject", "words"),
    [
        ("LOG_FORMAT = '%(nope)s'", "LOG_FORMAT", "which logging cannot use"),
        ("LOG_FILE = 'none/log'", "LOG_FILE", "expected a file in a directory that exists"),
        ("LOG_FILE = '.'", "LOG_FILE", "Is a directory"),
        ("REPORT_FILE = 'none/report'", "REPORT_FILE", "No such file or directory; expected a new file"),
        ("REPORT_FILE = 'mrq-config.py'", "REPORT_FILE", "no report of a worker"),
        ("QUEUES = []", "QUEUES", "expected the names of the queues"),
        ("QUEUES = ['a', '']", "QUEUES", "expected a name of 1 to 200"),
        ("DEQUEUE_STRATEGY = 'fast'", "DEQUEUE_STRATEGY", "DEQUEUE_STRATEGY is 'fast"),
        ("ALLOW_TASKS = ['shop']", "ALLOW_TASKS", "or a module, such as shop.*"),
        ("DENY_TASKS = ['*']", "DENY_TASKS", "DENY_TASKS contains '*'"),
        ("PROCESSES = 1_000_000", "PROCESSES", "raise the limit"),
        ("DASHBOARD_HTTPAUTH = 'anna'", "dashboard", "expected user:password"),
        ("DASHBOARD_HOSTS = ['http://x']", "dashboard", "without a scheme"),
        ("DASHBOARD_COLOR = '#12'", "dashboard", "expected a name such as crimson"),
    ],
)
def test_check_finds_settings_with_which_no_worker_or_dashboard_starts(
    mrq: Shell, project: Project, line: str, subject: str, words: str
) -> None:
    project.write("mrq-config.py", f"{line}\n")
    before = {path.name for path in project.path.iterdir()}
    errors = [one for one in mrq("check", "--json", code=1).json if one["level"] == "error"]
    assert [one["name"] for one in errors] == [subject]
    assert words in errors[0]["message"]
    made = {path.name for path in project.path.iterdir()} - before
    assert not made.intersection({"log", "report", "none"})
    command = ["dashboard"] if subject == "dashboard" else ["worker", "--burst"]
    assert words in mrq(*command, code=2).err.replace("\n", " ")


def test_check_finds_what_is_no_address(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", "ADMIN_PORT = 5555\nADMIN_IP = DASHBOARD_IP = 'no..address'\n")
    errors = [one for one in mrq("check", "--json", code=1).json if one["level"] == "error"]
    assert [one["name"] for one in errors] == ["ADMIN_IP", "DASHBOARD_IP"]
    assert all("expected an address of the machine" in one["message"] for one in errors)


@pytest.mark.parametrize("name", ["GEVENT_RESOLVER", "GEVENT_LOOP", "GEVENT_THREADPOOL", "GEVENT_FILE"])
def test_check_finds_a_variable_of_gevent_with_which_no_worker_starts(project: Project, name: str) -> None:
    def errors(value: str) -> list[tuple[str, str]]:
        said = in_another_process(("check", "--json"), project.path, {**project.env, name: value})
        return [(one["name"], one["message"]) for one in said.json if one["level"] == "error"]

    ((subject, message),) = errors("nix")
    assert subject == "gevent"
    assert f"the environment variable {name} is 'nix', which gevent cannot use" in message
    if name in ("GEVENT_RESOLVER", "GEVENT_FILE"):
        assert not errors("thread")


def test_check_warns_about_a_limit_of_memory_that_no_worker_keeps(mrq: Shell, project: Project) -> None:
    def warnings(megabytes: float) -> list[str]:
        project.write("mrq-config.py", f"MAX_MEMORY = {megabytes}\n")
        found = mrq("check", "--json").json
        return [one["message"] for one in found if one["name"] == "MAX_MEMORY"]

    assert warnings(0.4) == ["MAX_MEMORY is 0.4 MB, and an idle worker takes 50 to 60 MB"]
    assert warnings(0) == warnings(400) == []


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ("DASHBOARD_IP = '0.0.0.0'", 1),
        ("DASHBOARD_IP = '0.0.0.0'\nDASHBOARD_TOKEN = 'abc'", 0),
        ("DASHBOARD_IP = '::1'", 0),
    ],
)
def test_check_warns_about_a_dashboard_without_a_login_that_others_reach(
    mrq: Shell, project: Project, settings: str, number: int
) -> None:
    project.write("mrq-config.py", settings + "\n")
    found = [one for one in mrq("check", "--json").json if one["name"] == "DASHBOARD_IP"]
    assert [one["level"] for one in found] == ["warning"] * number


def test_check_reports_a_broken_database(mrq: Shell, project: Project) -> None:
    (project.path / "notes.txt").write_text("this is no database, whatever its name says\n" * 50)
    said = mrq("check", "--broker", "sqlite:///notes.txt", "--store", "", code=1)
    assert "✗ error" in said.out
    assert "notes.txt" in said.out


def test_plugins_lists_drivers_and_hooks(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", HOOKS)
    told = mrq("plugins").out
    assert "sqlite://" in told
    found = {(item["kind"], item["name"]): item for item in mrq("plugins", "--json").json}
    assert found["driver", "sqlite"]["url_schemes"] == ["sqlite"]
    assert found["plugin", "sqlite"]["hooks"] == ["mrq_driver"]
    assert found["plugin", "config file"]["hooks"] == ["mrq_before_enqueue"]


HOOKS = """
from mrq_core import hookimpl

@hookimpl
def mrq_before_enqueue(record):
    return None
"""
