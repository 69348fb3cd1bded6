"""`mrq jobs`: looking at jobs and changing them."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shell
from tests.support import Project


@pytest.fixture
def worked(project: Project) -> dict[str, str]:
    """Ids of jobs that have ended, or wait, by what they are."""
    ids = {
        "added": project.queue("tasks.Add", {"a": 1, "b": 2}),
        "failed": project.queue("tasks.fail"),
        "retry": project.queue("tasks.again"),
        "greeting": project.queue("tasks.greet", {"name": "Anna", "password": "geheim"}),
    }
    project.work_off()
    return ids


def test_list_shows_jobs_as_a_table(mrq: Shell, worked: dict[str, str]) -> None:
    lines = mrq("jobs", "list").out.splitlines()
    assert lines[0].split() == ["id", "status", "task", "queue", "age", "duration", "error"]
    by_id = {line.split()[0]: line.split() for line in lines[2:]}
    assert set(by_id) == set(worked.values())
    assert by_id[worked["failed"]][1:4] == ["failed", "tasks.fail", "default"]
    assert by_id[worked["failed"]][-1] == "ValueError"


def test_list_as_json_is_one_array_of_objects_with_an_id(mrq: Shell, worked: dict[str, str]) -> None:
    jobs = mrq("jobs", "list", "--json", "--oldest-first").json
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
        (["--params", "a=1", "--params", "b=2"], {"added"}),
        (["--params", "name=Anna"], {"greeting"}),
        (["--params", "a='1'"], set()),
        (["--since", "1h", "--queue", "mail"], {"greeting"}),
        (["--until", "1h"], set()),
    ],
)
def test_list_filters(mrq: Shell, worked: dict[str, str], filters: list[str], found: set[str]) -> None:
    ids = {job["id"] for job in mrq("jobs", "list", "--json", *filters).json}
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


def test_show_tells_everything_about_a_job(mrq: Shell, worked: dict[str, str]) -> None:
    told = mrq("jobs", "show", worked["failed"]).out
    assert "tasks.fail  failed" in told
    assert "ValueError: it does [bold]not[/bold] work" in told
    told = mrq("jobs", "show", worked["added"]).out
    assert "attempt 1 ended: success" in told
    assert "adding 1 and 2" in told
    assert "geheim" not in mrq("jobs", "show", worked["greeting"]).out


def test_show_as_json_has_attempts_result_and_logs(mrq: Shell, worked: dict[str, str]) -> None:
    job = mrq("jobs", "show", worked["added"], "--json").json
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


def test_wait_prints_the_status_and_exits_with_0_for_success_only(mrq: Shell, worked: dict[str, str]) -> None:
    assert mrq("jobs", "wait", worked["added"]).out == "success\n"
    assert mrq("jobs", "wait", worked["failed"], code=1).out == "failed\n"
    said = mrq("jobs", "wait", worked["greeting"], "--timeout", "0.1", code=1)
    assert "has not ended after 0.1 s: its status is queued" in said.err


def test_requeue_by_id_names_what_it_could_not_do(
    mrq: Shell, project: Project, worked: dict[str, str]
) -> None:
    said = mrq("jobs", "requeue", worked["failed"], worked["greeting"], "0" * 24, "--to", "high", code=1)
    assert said.out.startswith("1 job requeued")
    assert f"{worked['greeting']}: its status is queued" in said.err
    assert f"{'0' * 24}: there is no such job" in said.err
    assert project.client.fetch(worked["failed"]).queue == "high"


def test_actions_by_filter_count_and_do_not_ask_off_a_terminal(
    mrq: Shell, project: Project, worked: dict[str, str]
) -> None:
    assert mrq("jobs", "requeue", "--status", "failed,success").out == "2 jobs requeued\n"
    assert mrq("jobs", "move", "--status", "queued", "--to", "slow").out == "3 jobs moved\n"
    assert {project.client.fetch(worked[name]).queue for name in ("added", "failed", "greeting")} == {"slow"}
    assert mrq("jobs", "cancel", "--queue", "slow", "--yes").out == "3 jobs cancelled\n"
    assert mrq("jobs", "remove", "--status", "cancel").out == "3 jobs removed\n"
    assert [job["id"] for job in mrq("jobs", "list", "--json").json] == [worked["retry"]]


def test_a_dry_run_counts_and_changes_nothing(mrq: Shell, project: Project, worked: dict[str, str]) -> None:
    said = mrq("jobs", "cancel", "--status", "queued,failed", "--dry-run")
    assert said.out == "2 jobs to cancel: 1 failed, 1 queued\n"
    assert mrq("jobs", "remove", worked["failed"], "--dry-run").out == "1 job to remove: 1 failed\n"
    assert project.client.fetch(worked["failed"]).status == "failed"


@pytest.mark.parametrize("command", [["requeue"], ["cancel"], ["move", "--to", "x"], ["remove"]])
def test_actions_need_ids_or_a_filter_and_not_both(mrq: Shell, command: list[str]) -> None:
    assert "expected ids, or a filter" in mrq("jobs", *command, code=2).err
    assert "expected one of them" in mrq("jobs", *command, "0" * 24, "--status", "failed", code=2).err


def test_cancel_with_interrupt_stops_a_running_job(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 60})
    project.worker("--paused-queues-refresh-interval", "0.1")
    project.until_status(job_id, "started")
    assert "1 running" in mrq("jobs", "cancel", job_id, "--interrupt").out
    assert project.ended(job_id).status == "cancel"
