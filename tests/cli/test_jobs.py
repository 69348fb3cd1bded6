"""`mrq jobs list`, `show`, `logs` and `wait`: looking at jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Shell, tasks_project, work_through
from tests.support import Project


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, dict[str, str]]]:
    """A project in which jobs have been worked through; the tests only look at it."""
    with tasks_project(tmp_path_factory.mktemp("done")) as project:
        yield Shell(project), work_through(project)


@pytest.fixture
def worked(done: tuple[Shell, dict[str, str]]) -> dict[str, str]:
    return done[1]


@pytest.fixture
def look(done: tuple[Shell, dict[str, str]]) -> Shell:
    return done[0]


def test_list_shows_jobs_as_a_table(look: Shell, worked: dict[str, str]) -> None:
    lines = look("jobs", "list").out.splitlines()
    assert lines[0].split() == ["id", "status", "task", "queue", "age", "duration", "error"]
    by_id = {line.split()[0]: line.split() for line in lines[2:]}
    assert set(by_id) == set(worked.values())
    assert by_id[worked["failed"]][1:4] == ["failed", "tasks.fail", "default"]
    assert by_id[worked["failed"]][-1] == "ValueError"


def test_list_as_json_is_one_array_of_objects_with_an_id(look: Shell, worked: dict[str, str]) -> None:
    jobs = look("jobs", "list", "--json", "--oldest-first").json
    assert [job["id"] for job in jobs] == sorted(worked.values())
    [greeting] = [job for job in jobs if job["id"] == worked["greeting"]]
    assert greeting["status"] == "queued"
    assert greeting["params"] == {"name": "Anna", "password": "***"}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--status", "failed"], {"failed"}),
        (["--status", "failed,retry", "--status", "SUCCESS"], {"failed", "retry", "added"}),
        (["--path", "tasks.Add"], {"added"}),
        (["--queue", "mail"], {"greeting"}),
        (["--error", "ValueError"], {"failed"}),
        (["--message", "NOT work"], {"failed"}),
        (["--group", "tasks.fail ValueError tasks:fail"], {"failed"}),
        (["--message", "no such"], set()),
        (["--key", "a=1"], set()),
        (["--params", "a=1", "--params", "b=2"], {"added"}),
        (["--params", "name=Anna"], {"greeting"}),
        (["--params", "a='1'"], set()),
        (["--since", "1h", "--queue", "mail"], {"greeting"}),
        (["--until", "1h"], set()),
    ],
)
def test_list_filters(look: Shell, worked: dict[str, str], filters: list[str], found: set[str]) -> None:
    ids = {job["id"] for job in look("jobs", "list", "--json", *filters).json}
    assert ids == {worked[name] for name in found}


def test_filters_that_make_no_sense_say_what_was_expected(mrq: Shell) -> None:
    assert "expected one of queued, started" in mrq("jobs", "list", "--status", "done", code=2).err
    assert "expected a time" in mrq("jobs", "list", "--since", "yesterday", code=2).err
    assert "expected key=value" in mrq("jobs", "list", "--params", "name", code=2).err


def test_a_list_that_is_cut_says_how_many_there_are_and_how_to_go_on(mrq: Shell, project: Project) -> None:
    ids = project.client.queue_jobs("tasks.fail", ({} for _ in range(30)))
    said = mrq("jobs", "list", "--json", "--status", "queued")
    assert len(said.json) == 25
    assert "25 of 30 jobs" in said.err
    cursor = said.err.partition("--cursor ")[2].split(",")[0]
    rest = mrq("jobs", "list", "--json", "--status", "queued", "--cursor", cursor)
    assert {job["id"] for job in said.json + rest.json} == set(ids)
    assert rest.err == ""


def test_an_empty_list_says_so(mrq: Shell) -> None:
    assert mrq("jobs", "list").err == "There are no jobs.\n"
    assert mrq("jobs", "list", "--json").json == []


def test_a_list_that_goes_on_after_the_last_job_says_that_there_are_no_more(
    mrq: Shell, project: Project
) -> None:
    [last] = project.client.queue_jobs("tasks.fail", [{}])
    assert mrq("jobs", "list", "--cursor", last).err == "There are no more jobs.\n"
    assert mrq("jobs", "list", "--cursor", last, "--queue", "default").err == "No more jobs match.\n"


def test_show_tells_everything_about_a_job(look: Shell, worked: dict[str, str]) -> None:
    told = look("jobs", "show", worked["failed"]).out
    assert "tasks.fail  failed" in told
    assert "ValueError: it does [bold]not[/bold] work" in told
    told = look("jobs", "show", worked["added"]).out
    assert "attempt 1 ended: success" in told
    assert "adding 1 and 2" in told
    assert "geheim" not in look("jobs", "show", worked["greeting"]).out


def test_show_as_json_has_attempts_result_and_logs(look: Shell, worked: dict[str, str]) -> None:
    job = look("jobs", "show", worked["added"], "--json").json
    assert job["result"] == 3
    assert [attempt["status"] for attempt in job["attempts"]] == ["success"]
    assert [line["message"] for line in job["logs"]] == ["adding 1 and 2"]


def test_an_unknown_id_is_an_error(mrq: Shell) -> None:
    for command in ("show", "logs", "wait"):
        assert "no job has the id" in mrq("jobs", command, "0" * 24, code=1).err


def test_control_characters_of_jobs_do_not_reach_the_terminal(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "\x1b[31mred"})
    assert "\x1b" not in mrq("jobs", "show", job_id).out


def test_following_a_log_ends_with_the_job_and_misses_nothing(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 1})
    follower = project.start("jobs", "logs", "--follow", "--json", job_id)
    project.work_off()
    assert follower.wait() == 0
    lines = [json.loads(line)["message"] for line in follower.output.splitlines()]
    assert lines == ["first line", "last line"]
    assert mrq("jobs", "logs", job_id).out.count("line") == 2
    assert [line["message"] for line in mrq("jobs", "logs", job_id, "--json").json] == lines


def test_wait_prints_the_status_and_exits_with_0_for_success_only(
    look: Shell, worked: dict[str, str]
) -> None:
    assert look("jobs", "wait", worked["added"]).out == "success\n"
    assert look("jobs", "wait", worked["failed"], code=1).out == "failed\n"
    said = look("jobs", "wait", worked["greeting"], "--timeout", "0.1", code=1)
    assert "has not ended after 0.1 s: its status is queued" in said.err


def test_the_death_of_a_jobs_own_process_is_shown_with_its_signal(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.die")
    project.work_off("--max-lost-claims", "2")
    shown = mrq("jobs", "show", job_id).out
    death = r"its process was killed by SIGKILL \(signal 9\), with a peak memory of \d+ MB"
    assert re.search(rf"attempt 1 died: {death}", shown)
    assert re.search(rf"attempt 2 ended: failed: {death}", shown)
    assert re.search(r"deaths +2 in a row", shown)
    assert "attempt 1: died" in shown
    assert "lost" not in shown.replace("MAX_LOST_CLAIMS", "")
    attempts = mrq("jobs", "show", job_id, "--json").json["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["died", "failed"]
    assert all(re.fullmatch(death, attempt["death"]) for attempt in attempts)


def test_secrets_in_results_are_not_shown(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.login")
    project.work_off()
    for flags in ([], ["--json"]):
        shown = mrq("jobs", "show", job_id, *flags).out
        assert "geheim" not in shown
        assert '"max_tokens": 3' in shown


CODEC = """
from mrq_core import hookimpl


@hookimpl
def mrq_decode(value):
    if "sealed" in value:
        raise ValueError("wrong key")
    return value
"""


def test_a_job_that_no_plugin_can_decode_is_shown_as_it_is_stored(mrq: Shell, project: Project) -> None:
    sealed, other = project.client.queue_jobs("tasks.greet", [{"sealed": "x"}, {"name": "Anna"}], queue="q")
    project.write("mrq-config.py", CODEC)
    remark = (
        f"Job {sealed}: params and result are shown as they are stored, because ValueError: wrong key; "
        "raised by mrq_decode of the plugin config file.\n"
    )
    assert mrq("jobs", "list").err == ""
    said = mrq("jobs", "list", "--json")
    assert {job["id"]: job["params"] for job in said.json} == {
        sealed: {"sealed": "x"},
        other: {"name": "Anna"},
    }
    assert said.err == remark
    said = mrq("jobs", "show", sealed)
    assert '"sealed": "x"' in said.out
    assert said.err == remark
    assert mrq("jobs", "logs", sealed).err == f"Job {sealed} has logged nothing; its status is queued.\n"
    assert "with priority 1" in mrq("jobs", "edit", sealed, "--priority", "1").out
    assert "cancelled" in mrq("jobs", "cancel", sealed, "--yes").out
    assert mrq("jobs", "wait", sealed, code=1).out == "cancel\n"
