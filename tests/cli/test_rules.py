"""mrq tasks, mrq limits, and the requests of mrq workers."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from mrq_core.operations.running_jobs import NOT_TRACED
from mrq_core.operations.workers import IoCall, IoState, IoTotal, RunningJob
from tests.cli.conftest import Shell
from tests.dashboard import scenes
from tests.support import Project, until

TASK = "tasks.fail"


def test_tasks_are_paused_and_resumed(mrq: Shell, project: Project) -> None:
    assert "There are no tasks" in mrq("tasks").err
    assert mrq("tasks", "pause", TASK, "tasks.nap").out == f"paused: {TASK}, tasks.nap\n"
    assert [task["name"] for task in mrq("tasks", "--json").json] == [TASK, "tasks.nap"]
    said = mrq("tasks", "resume", TASK, "tasks.Add")
    assert (said.out, said.err) == (f"resumed: {TASK}\n", "tasks.Add was not paused\n")
    assert project.client.broker.rules().paused_tasks == {"tasks.nap"}


def test_tasks_are_listed_and_shown(mrq: Shell, project: Project) -> None:
    project.write(
        "shop.py",
        """
        from mrq_core import task

        @task(queue="mail", searchable=("to",))
        def send(to: str, copies: int = 1):
            \"\"\"Sends a mail.\"\"\"
        """,
    )
    project.queue("shop.send", {"to": "x"}, queue="mail")
    assert mrq("tasks", "--json").json[0]["numbers"] == {"queued": 1}
    here = mrq("tasks", "show", "shop.send", "--json").json
    assert (here["doc"], here["arguments"][1]["schema"]) == ("Sends a mail.", {"type": "integer"})
    assert mrq("tasks", "show", "shop.gone", code=1).err.startswith("mrq: shop.gone does not exist")
    project.work_off("mail")
    [task] = mrq("tasks", "--json").json
    assert (task["name"], task["numbers"], task["paused"]) == ("shop.send", {"success": 1}, False)
    assert task["description"]["options"]["queue"] == "mail"
    assert "shop.send" in mrq("tasks").out
    (project.path / "shop.py").unlink()
    shown = mrq("tasks", "show", "shop.send").out
    for text in ("Sends a mail.", "copies", "int", "required", "searchable", "shop.py:4"):
        assert text in shown


def test_a_pause_has_an_end(mrq: Shell, project: Project) -> None:
    broker = project.client.broker
    assert mrq("queues", "pause", "mail/", "--until", "2040-01-31T12:00").out == (
        "paused until 2040-01-31T12:00:00.000Z: mail/\n"
    )
    now = broker.now()
    mrq("tasks", "pause", TASK, "--for", "2h")
    end = broker.rules().tasks[TASK].until
    assert end is not None
    assert timedelta(hours=2) <= end - now < timedelta(hours=2, minutes=1)
    [task] = mrq("tasks", "--json").json
    assert task["until"].startswith(f"{end:%Y-%m-%dT%H:%M:%S}")
    project.queue("tasks.Add", {"a": 1, "b": 1}, queue="mail/a")
    assert "yes until 2040-01-31T12:00" in " ".join(mrq("queues").out.split())


def test_a_queue_that_workers_serve_as_a_pile_has_one_name(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "Anna"}, queue="high_reverse")
    assert mrq("queues", "pause", "high_reverse").out == "paused: high\n"
    assert project.client.broker.paused() == frozenset({"high"})
    assert mrq("explain", "high_reverse").out.startswith("The queue high has been paused")
    assert [job["id"] for job in mrq("jobs", "list", "--queue", "high_reverse", "--json").json] == [job_id]
    [load] = mrq("queues", "stats", "high_reverse", "--json").json
    assert (load["name"], load["waiting"]) == ("high", 1)
    assert mrq("queues", "resume", "high_reverse").out == "resumed: high\n"
    assert mrq("queues", "move", "high_reverse", "--to", "slow", "--yes").out == (
        "high: 1 job moved to slow\n"
    )
    project.queue("tasks.greet", {"name": "Ben"}, queue="high")
    assert mrq("queues", "purge", "high_reverse", "--yes").out == "high: 1 job removed\n"


def test_an_end_that_makes_no_sense_is_refused(mrq: Shell, project: Project) -> None:
    for flags, text in (
        (("--until", "2001-01-01"), "expected a time in the future"),
        (("--until", "soon"), "expected a time such as"),
        (("--for", "soon"), "expected a duration"),
        (("--for", "0s"), "--for is '0s': expected a duration above 0"),
        (("--for", "99999d"), "--for is '99999d': expected a duration above 0 and at most 30 years"),
        (("--for", "1h", "--until", "2100-01-01"), "a pause has one end"),
    ):
        assert text in " ".join(mrq("queues", "pause", "q", *flags, code=2).err.split())
    assert "expected" in mrq("tasks", "pause", "no path", code=2).err
    assert project.client.broker.rules().queues == {}


def test_limits_are_listed_set_and_removed(mrq: Shell) -> None:
    assert "There are no limits" in mrq("limits").err
    assert mrq("limits", "set", "api", "--concurrency", "5").out == "set: api concurrency 5\n"
    assert (
        mrq("limits", "set", "größe", "--rate", "10", "--per", "1m").out == "set: größe rate 10 per minute\n"
    )
    assert mrq("limits", "--json").json == [
        {"name": "api", "concurrency": 5, "rate": None, "per": 1.0, "source": "person"},
        {"name": "größe", "concurrency": None, "rate": 10.0, "per": 60.0, "source": "person"},
    ]
    assert mrq("limits").out.splitlines()[2].split() == ["api", "5", "person"]
    said = mrq("limits", "remove", "api", "api", "other", code=1)
    assert said.out == "removed: api\n"
    assert said.err == "mrq: there is no limit other: `mrq limits` lists the limits\n"


def test_a_limit_that_makes_no_sense_is_refused(mrq: Shell) -> None:
    for arguments, text in (
        (("a:b", "--concurrency", "1"), "without a colon"),
        (("task", "--concurrency", "1"), "and not 'task'"),
        (("api",), "nothing to limit is named"),
        (("api", "--concurrency", "-1"), "expected 0 to"),
        (("api", "--rate", "0"), "expected a number above 0"),
        (("api", "--rate", "1", "--per", "soon"), "expected a duration"),
        (("api", "--concurrency", "1", "--per", "5s"), "has per 5 s and no rate"),
    ):
        assert text in " ".join(mrq("limits", "set", *arguments, code=2).err.split())
    assert mrq("limits", "--json").json == []


def test_a_running_job_shows_its_stack_and_its_calls(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 2})
    [taken] = scenes.take(project.client.broker, "default")
    call = IoCall(kind="redis", text="GET [bold]k[/bold]", seconds=3.2)
    io = IoState(calls=(call, call), left_out=1, totals={"redis": IoTotal(calls=7, seconds=0.5)})
    job = RunningJob(id=job_id, path="tasks.nap", started_at=taken.queued_at, stack=("a.py:1 run",), io=io)
    scenes.report(project.client.broker, running=(job,))
    shown = mrq("jobs", "show", job_id).out
    assert "redis GET [bold]k[/bold], for 3.2 s\n" in shown
    assert "and 1 more call\n  so far: redis 7 calls in 500 ms\n  a.py:1 run\n" in shown
    assert mrq("jobs", "show", job_id, "--json").json["running"]["io"]["left_out"] == 1
    said = mrq("workers", "show", scenes.WORKER)
    assert "redis GET [bold]k[/bold], for 3.2 s, and 2 more" in said.out
    assert NOT_TRACED not in said.err
    scenes.report(project.client.broker, running=(replace(job, io=None),), silent=120.0)
    shown = mrq("jobs", "show", job_id).out
    assert f"(stale)\n  {NOT_TRACED}\n  a.py:1 run\n" in shown
    assert NOT_TRACED in mrq("workers", "show", scenes.WORKER, code=1).err
    scenes.report(project.client.broker, running=())
    assert "does not name this job: `mrq stack` does." in mrq("jobs", "show", job_id).out


def test_a_worker_shows_its_stacks_and_drains(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 5})
    worker = project.worker("--name", "anna")
    project.until_status(job_id, "started")
    until(lambda: mrq("workers", "--json").json)
    # The job is claimed before it runs.
    told = until(lambda: [text for text in [mrq("workers", "stack", "anna").out] if "in nap" in text])
    assert job_id in told[0]
    assert "finishes its running jobs" in mrq("workers", "drain", "anna").out
    assert worker.wait() == 0
    project.until_status(job_id, "success")
    assert " has stopped; " in mrq("workers", "stop", "anna", code=1).err
