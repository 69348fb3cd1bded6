"""mrq schedules: what people see of schedules, and change."""

from __future__ import annotations

import pytest

from mrq_core.client.schedules import Schedule, add_schedule
from mrq_core.contract.queries import JobFilter
from mrq_core.errors import InvalidValue
from mrq_core.operations import schedules
from tests.cli.conftest import Shell
from tests.support import Project

NAME = ("--params", '{"name": "Anna"}')


def test_schedules_are_added_listed_and_deleted(mrq: Shell, project: Project) -> None:
    assert "There are no schedules" in mrq("schedules").err
    params = '{"name": "Anna", "password": "geheim"}'
    times = ("--at", "08:30", "--weekday", "0", "--timezone", "Europe/Berlin")
    said = mrq("schedules", "add", "tasks.greet", "--name", "morning", *times, "--params", params)
    assert said.out.startswith("added: morning, next fire 20")
    (view,) = mrq("schedules", "list", "--json").json
    assert (view["name"], view["status"], view["source"]) == ("morning", "active", "person")
    assert view["fires"] == "every Monday at 08:30, Europe/Berlin"
    assert view["params"] == {"name": "Anna", "password": "***"}
    assert view["options"] == {"dailytime": "08:30", "weekday": 0, "timezone": "Europe/Berlin"}
    table = mrq("schedules")
    assert "morning" in table.out
    assert "every Monday at 08:30" in " ".join(table.out.split())
    assert "No scheduler has reported lately" in table.err
    assert mrq("schedules", "delete", "morning").out == "deleted: morning\n"
    assert mrq("schedules", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("tasks.greet",), "none of them is given: expected one of --every, --cron and --at"),
        (("tasks.greet", "--every", "1h", "--cron", "@daily"), "--every and --cron are given: expected one"),
        (("tasks.greet", "--weekday", "1"), "--weekday is given without --at"),
        (
            ("tasks.greet", "--at", "8:00", "--weekday", "1", "--monthday", "2"),
            "--weekday and --monthday",
        ),
        (("tasks.greet", "--at", "25:00"), "--at is '25:00'"),
        (("tasks.greet", "--at", "08:00", "--weekday", "9"), "--weekday is 9"),
        (("tasks.greet", "--at", "08:00", "--monthday", "40"), "--monthday is 40"),
        (("tasks.greet", "--cron", "x"), "--cron is 'x'"),
        (("tasks.greet", "--every", "1h", "--missed", "x"), "--missed is 'x'"),
        (("tasks.greet", "--every", "1h", "--overlap", "x"), "--overlap is 'x'"),
        (("tasks.greet", "--every", "1h", "--jitter", "3h", *NAME), "--jitter is 10800 s"),
        (("tasks.greet", "--every", "7d", "--jitter", "2d"), "--jitter is '2d': expected a duration"),
        (("tasks.greet", "--every", "1h", "--queue", ""), "--queue is ''"),
        (("tasks.greet", "--every", "1h", "--name", " a"), "--name is ' a'"),
        (("tasks.greet", "--every", "soon"), "expected a duration"),
        (("tasks.greet", "--every", "0.1s"), "--every is '0.1s': expected a duration of at least 1s"),
        (("tasks.greet", "--cron", "0 0 30 2 *"), "Bad day-of-month"),
        (("tasks.greet", "--cron", "@daily", "--timezone", "Mars"), "--timezone is 'Mars'"),
        (("tasks.greet", "--every", "1m", "--params", "[]"), "expected a JSON object"),
        (("tasks.greet", "--every", "1m", "--name", "a\tb"), "printable characters"),
        (("no path", "--every", "1m"), "module.Name"),
        (("tasks.greet", "--every", "1m"), "the argument name is missing"),
        (("tasks.greet", "--every", "1m", "--params", '{"nam": "x"}'), "did you mean name?"),
        (("tasks.greet", "--every", "1m", "--params", '{"name": 1}'), "name is 1: expected str"),
    ],
)
def test_what_makes_no_sense_is_refused(mrq: Shell, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in " ".join(mrq("schedules", "add", *arguments, code=2).err.split())
    assert mrq("schedules", "--json").json == []


def test_a_name_is_given_once_unless_it_is_replaced(mrq: Shell) -> None:
    mrq("schedules", "add", "tasks.greet", "--name", "a", "--every", "1h", *NAME)
    again = mrq("schedules", "add", "tasks.fail", "--name", "a", "--every", "1h", code=1)
    taken = "mrq: there is a schedule 'a' already: give another --name, or --replace to replace it\n"
    assert again.err == taken
    mrq("schedules", "add", "tasks.fail", "--every", "1h")
    mrq("schedules", "add", "tasks.fail", "--every", "1h", code=1)
    mrq("schedules", "delete", mrq("schedules", "--json").json[-1]["name"])
    mrq("schedules", "add", "tasks.fail", "--name", "a", "--every", "1h", "--replace")
    assert [view["path"] for view in mrq("schedules", "--json").json] == ["tasks.fail"]


def test_schedules_are_paused_and_resumed(mrq: Shell) -> None:
    mrq("schedules", "add", "tasks.greet", "--name", "a", "--every", "1h", *NAME)
    assert mrq("schedules", "pause", "a").out == "paused: a\n"
    said = mrq("schedules", "pause", "a")
    assert (said.out, said.err) == ("", "a is paused already\n")
    (view,) = mrq("schedules", "--json").json
    assert (view["status"], view["next_fire"]) == ("paused", None)
    assert mrq("schedules", "resume", "a").out == "resumed: a\n"
    assert mrq("schedules", "resume", "a").err == "a was not paused\n"
    assert "there is no schedule 'b'" in mrq("schedules", "pause", "b", code=1).err


def test_the_next_fires_are_shown(mrq: Shell) -> None:
    mrq("schedules", "add", "tasks.greet", "--name", "a", "--cron", "0 12 29 2 *", *NAME)
    assert mrq("schedules", "next", "a", "-n", "2").out.split() == [
        "2028-02-29T12:00:00.000Z",
        "2032-02-29T12:00:00.000Z",
    ]


@pytest.mark.parametrize("start", ["9999-06-01T00:00:00", "9999-12-31T23:59:59.999"])
def test_a_schedule_that_starts_at_the_end_of_the_calendar_shows_its_next_fire(
    mrq: Shell, project: Project, start: str
) -> None:
    add_schedule(path="tasks.fail", name="late", interval=86_400, start=start, client=project.client)
    (view,) = mrq("schedules", "list", "--json").json
    assert view["status"] == "active"
    assert view["next_fire"].startswith(start)
    assert start in mrq("schedules", "next", "late").out
    assert start[:10] in mrq("schedules").out
    assert "late" in mrq("schedules", "pause", "late").out
    assert "late" in mrq("schedules", "resume", "late").out


def test_a_schedule_runs_now(mrq: Shell, project: Project) -> None:
    mrq("schedules", "add", "tasks.greet", "--name", "a", "--every", "1h", "--overlap", "skip",
        "--params", '{"name": "Anna"}')  # fmt: skip
    before = mrq("schedules", "--json").json
    job_id = mrq("schedules", "run", "a").out.strip()
    record = project.client.fetch(job_id)
    assert (record.schedule, record.queue, record.params) == ("a", "mail", {"name": "Anna"})
    assert mrq("schedules", "--json").json == before, "the next fire stays"
    mrq("run", "tasks.fail", "--async")
    assert [job["id"] for job in mrq("jobs", "list", "--schedule", "a", "--json").json] == [job_id]
    assert "schedule has an empty value" in mrq("jobs", "list", "--schedule", "", code=2).err
    assert f"keeps the job {job_id}" in " ".join(mrq("schedules", "run", "a", code=1).err.split())


def test_a_backfill_makes_one_job_of_each_fire(mrq: Shell, project: Project) -> None:
    mrq("schedules", "add", "tasks.fail", "--name", "a", "--cron", "0 * * * *", "--overlap", "skip")
    times = ("2026-01-01T00:00", "2026-01-02T00:00")
    assert mrq("schedules", "backfill", "a", *times, "--dry-run").out.startswith(
        "24 fires from 2026-01-01T00"
    )
    assert mrq("schedules", "backfill", "a", *times).out == "24 jobs queued\n"
    later = ("2026-01-01T20:00", "2026-01-02T02:00")
    assert mrq("schedules", "backfill", "a", *later).out == "2 jobs queued; 4 fires had a job\n"
    broker = project.client.broker
    page = broker.find(JobFilter(schedules=("a",)), limit=100)
    assert len(page.records) == 26
    assert {record.limit_keys for record in page.records} == {("schedules:a",)}
    assert broker.rules().limits["schedules"].concurrency == 1
    for start, end, reason in (
        ("2026-01-02", "2026-01-01", "a beginning before the end"),
        ("2026-01-02", "2100-01-01", "an end that is past"),
        ("2000-01-01", "now", "expected at most 10,000"),
        ("soon", "now", "expected a time"),
        ("0001-01-01", "0001-01-02", "a beginning from 1970 on"),
    ):
        assert reason in " ".join(mrq("schedules", "backfill", "a", start, end, code=2).err.split())


def test_code_does_the_same(project: Project) -> None:
    made = add_schedule(path="tasks.fail", name="mine", cron="@daily", client=project.client)
    assert isinstance(made, Schedule)
    assert repr(made) == "Schedule('mine')"
    (first, second) = made.next_fires(2)
    assert (second - first).total_seconds() == 86_400
    for wrong in (0, -1, 1.5, "x", None, True, 1001, 10**9):
        with pytest.raises(InvalidValue, match="expected a whole number from 1 to 1,000"):
            made.next_fires(wrong)  # type: ignore[arg-type]
    made.pause()
    assert schedules.find_schedule(project.client.broker, "mine").paused_at is not None
    made.resume()
    assert made.stored.paused_at is None
    assert project.client.fetch(made.run()).schedule == "mine"
    assert len(made.backfill(first.replace(year=2025), second.replace(year=2025))) == 1
    with pytest.raises(InvalidValue, match="already"):
        add_schedule(path="tasks.fail", name="mine", interval=60, client=project.client)
    made.delete()
    with pytest.raises(InvalidValue, match="there is no schedule"):
        made.run()
