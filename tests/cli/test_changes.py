"""`mrq jobs requeue`, `cancel`, `move`, `edit` and `remove`: changing jobs."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mrq_core.cli import jobs_actions
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Action, ChangeResult, NewJob, Unique
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from mrq_core.operations import actions
from tests.cli.conftest import Shell, work_through
from tests.support import PATIENCE, Project


@pytest.fixture
def worked(project: Project) -> dict[str, str]:
    return work_through(project)


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
    assert "where these jobs are" in mrq("jobs", "move", "--queue", "slow", "--to", "slow", code=2).err
    assert {project.client.fetch(worked[name]).queue for name in ("added", "failed", "greeting")} == {"slow"}
    assert mrq("jobs", "cancel", "--queue", "slow", "--yes").out == "3 jobs cancelled\n"
    assert mrq("jobs", "remove", "--status", "cancel").out == "3 jobs removed\n"
    assert [job["id"] for job in mrq("jobs", "list", "--json").json] == [worked["retry"]]


@pytest.mark.parametrize("command", ["move", "requeue"])
def test_jobs_go_only_to_queues_from_which_workers_claim_jobs(
    mrq: Shell, project: Project, command: str
) -> None:
    job_id = project.queue("tasks.greet", {"name": "Anna"}, queue="slow")
    if command == "requeue":
        mrq("jobs", "cancel", job_id)
    said = mrq("jobs", command, "--queue", "slow", "--to", "params_raw", code=2)
    assert "a raw queue, which holds parameters and no jobs" in said.err
    assert project.client.fetch(job_id).queue == "slow"
    mrq("jobs", command, "--queue", "slow", "--to", "fast_reverse")
    assert project.client.fetch(job_id).queue == "fast"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokerUnavailable("gone"), 1)])
def test_an_action_that_ends_between_two_steps_counts_what_it_has_changed(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    ids = [project.queue("tasks.greet", {"name": str(number)}) for number in range(3)]

    def apply_once(
        broker: Broker, wanted: JobFilter, action: Action, *, on_step: Callable[..., None] = lambda done: None
    ) -> Counter[ChangeResult]:
        def step(done: Counter[ChangeResult]) -> None:
            on_step(done)
            raise error

        return actions.apply_to_matching(broker, wanted, action, on_step=step)

    monkeypatch.setattr(actions, "CHUNK", 1)
    monkeypatch.setattr(jobs_actions, "apply_to_matching", apply_once)
    said = mrq("jobs", "cancel", "--path", "tasks.greet", code=code)
    assert "Until then: 1 job cancelled." in said.err
    assert [project.client.fetch(job_id).status for job_id in ids].count(Status.CANCEL) == 1


def test_a_dry_run_counts_what_would_change(mrq: Shell, project: Project, worked: dict[str, str]) -> None:
    said = mrq("jobs", "cancel", "--status", "queued,failed", "--dry-run")
    assert said.out == "2 jobs to cancel: 1 failed, 1 queued\n"
    assert mrq("jobs", "remove", worked["failed"], "--dry-run").out == "1 job to remove: 1 failed\n"
    assert project.client.fetch(worked["failed"]).status == "failed"


def test_a_move_counts_only_the_jobs_that_it_moves(mrq: Shell, project: Project) -> None:
    near, there = (project.queue("tasks.greet", {"name": "Anna"}, queue=queue) for queue in ("near", "there"))
    dry = mrq("jobs", "move", "--queue", "near,there", "--to", "there", "--dry-run")
    assert dry.out == "1 job to move: 1 queued; 1 already in that queue: 1 queued\n"
    assert mrq("jobs", "move", near, there, "--to", "there", "--dry-run").out == dry.out
    elsewhere = mrq("jobs", "move", "--queue", "near", "--to", "there", "--dry-run")
    assert elsewhere.out == "1 job to move: 1 queued\n"
    moved = mrq("jobs", "move", "--queue", "near,there", "--to", "there")
    assert moved.out == "1 job moved; 1 unchanged: already in that queue\n"
    for words in (["--status", "queued"], [near, there]):
        again = mrq("jobs", "move", *words, "--to", "there")
        assert again.out == "0 jobs moved; 2 unchanged: already in that queue\n"
    told = dialog(project, "move", "--status", "queued", "--to", "there")
    assert told.shown == "0 jobs to move; 2 already in that queue: 2 queued\r\n"


def test_a_dry_run_of_a_requeue_says_that_unique_keys_may_be_held(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queue_with_key(path: str) -> str:
        now = project.client.broker.now()
        record = JobRecord(
            id=new_id(), path=path, params={}, queue="default", queued_at=now, updated_at=now, due_at=now
        )
        [queued] = project.client.broker.enqueue([NewJob(record=record, unique=Unique(key="k"))])
        return queued.id

    held = queue_with_key("tasks.fail")
    plain = project.queue("tasks.fail")
    mrq("jobs", "cancel", held, plain)
    queue_with_key("tasks.greet")  # holds the key
    for words in ([held], ["--path", "tasks.fail"]):
        assert "another job holds its unique key" in mrq("jobs", "requeue", *words, "--dry-run").err
        assert mrq("jobs", "cancel", *words, "--dry-run").err == ""
    assert mrq("jobs", "requeue", plain, "--dry-run").err == ""
    assert mrq("jobs", "requeue", "--path", "tasks.greet", "--dry-run").err == ""
    monkeypatch.setattr(actions, "CHUNK", 1)
    assert "another job holds" in mrq("jobs", "requeue", "--status", "cancel", "--dry-run").err
    monkeypatch.undo()
    said = mrq("jobs", "requeue", held, plain, code=1)
    assert "another job holds its unique key" in said.err


@pytest.mark.parametrize("command", [["requeue"], ["cancel"], ["move", "--to", "slow"], ["remove"]])
def test_a_dry_run_counts_as_the_command_then_does(
    mrq: Shell, project: Project, worked: dict[str, str], command: list[str]
) -> None:
    running = project.queue("tasks.nap", {"seconds": 60})
    project.worker("--paused-queues-refresh-interval", "60")
    project.until_status(running, "started")
    by_id = mrq("jobs", *command, *worked.values(), running, "0" * 24, "--dry-run", code=1).out
    by_filter = mrq("jobs", *command, "--since", "1d", "--dry-run").out
    assert by_id == by_filter.replace("\n", "; 1 unknown\n")
    told = mrq("jobs", *command, "--since", "1d").out
    assert numbers(by_filter, "jobs? to", "refused") == [
        numbers(told, "jobs? (?:requeued|cancelled|moved|removed)")[0] + numbers(told, "started")[0],
        *numbers(told, "refused"),
    ]


def numbers(text: str, *words: str) -> list[int]:
    """The numbers in front of these words; 0 where a word is missing."""
    found = [re.search(rf"(\d+) {word}", text) for word in words]
    return [int(number[1]) if number else 0 for number in found]


@pytest.mark.parametrize("malformed", ["", "x", "A" * 24, "0" * 23, "0" * 24 + "\n"])
def test_a_malformed_id_is_refused_and_nothing_is_changed(
    mrq: Shell, project: Project, malformed: str
) -> None:
    job_id = project.queue("tasks.fail")
    commands = ["show", "logs", "logs --follow", "wait", "requeue", "cancel", "move --to x", "remove"]
    for command in [*commands, "requeue --dry-run", "remove --dry-run"]:
        more = [] if command.split()[0] in ("show", "logs", "wait") else [job_id]
        said = mrq("jobs", *command.split(), *more, malformed, code=2)
        assert said.out == ""
        assert said.err.startswith("mrq: job_id is ")
        assert said.err.endswith("expected 24 hex digits in lower case, such as queue_job returns\n")
    assert project.client.fetch(job_id).status == "queued"


@pytest.mark.parametrize("command", [["requeue"], ["cancel"], ["move", "--to", "x"], ["remove"]])
def test_actions_need_ids_or_a_filter_and_not_both(mrq: Shell, command: list[str]) -> None:
    assert "expected ids, or a filter" in mrq("jobs", *command, code=2).err
    assert "expected one of them" in mrq("jobs", *command, "0" * 24, "--status", "failed", code=2).err


def test_cancel_with_interrupt_stops_a_running_job(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 60})
    project.worker("--paused-queues-refresh-interval", "0.1")
    project.until_status(job_id, "started")
    answer = "is running; it finishes, but does not run again (--interrupt stops it)"
    assert mrq("jobs", "cancel", job_id).out == f"{job_id} {answer}\n"
    answer = "is running; its worker is asked to stop it"
    assert mrq("jobs", "cancel", job_id, "--interrupt").out == f"{job_id} {answer}\n"
    assert project.ended(job_id).status == "cancel"


@pytest.mark.parametrize("more", [[], ["--interrupt"]])
def test_a_cancel_of_a_job_whose_lease_has_ended_says_so(
    mrq: Shell, project: Project, more: list[str]
) -> None:
    job_id = project.queue("tasks.nap", {"seconds": 60})
    worker = project.worker("--lease", "1")
    project.until_status(job_id, "started")
    worker.send(signal.SIGKILL)
    time.sleep(1.5)
    answer = "has no worker: its lease has ended; the next claim from its queue cancels it"
    assert mrq("jobs", "cancel", job_id, *more).out == f"{job_id} {answer}\n"


def test_a_cancel_says_what_became_of_each_job(mrq: Shell, project: Project, worked: dict[str, str]) -> None:
    said = mrq("jobs", "cancel", worked["greeting"])
    assert (said.out, said.err) == (f"{worked['greeting']} was queued; it is cancelled\n", "")
    said = mrq("jobs", "cancel", worked["added"], code=1)
    assert (said.out, said.err) == (
        "",
        f"mrq: not cancelled:\n  {worked['added']}: it has already ended as success\n",
    )
    unknown = "0" * 24
    said = mrq("jobs", "cancel", worked["failed"], worked["retry"], worked["greeting"], unknown, code=1)
    assert said.out.splitlines() == [
        f"{worked['failed']} had ended as failed; it is cancelled",
        f"{worked['retry']} was retry; it is cancelled",
        "2 jobs cancelled; 1 refused: their status does not allow it; 1 unknown",
    ]
    assert f"{worked['greeting']}: it has already ended as cancel" in said.err
    assert f"{unknown}: there is no such job" in said.err


@dataclass
class Dialog:
    """`mrq` on a terminal, which gets an answer once the question is there. `piped` are its streams that are
    no terminal."""

    code: int
    shown: str
    piped: str


def dialog(
    project: Project, *arguments: str, answer: str = "", signum: int = 0, piped: str = "stderr"
) -> Dialog:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "mrq_core.cli", "jobs", *arguments]
    shown = b""
    try:
        with subprocess.Popen(
            program,
            cwd=project.path,
            env=project.env,
            stdin=theirs,
            stdout=subprocess.PIPE if piped == "stdout" else theirs,
            stderr=subprocess.PIPE if piped == "stderr" else theirs,
        ) as process:
            os.close(theirs)
            while b"[y/N]" not in shown and (part := read_from(ours)):
                shown += part
            if answer:
                os.write(ours, answer.encode())
            if signum:
                process.send_signal(signum)
            while part := read_from(ours):
                shown += part
            pipe = process.stdout or process.stderr
            assert pipe is not None
            rest = pipe.read()
            code = process.wait(PATIENCE)
    finally:
        os.close(ours)
    return Dialog(code, shown.decode(), rest.decode())


def read_from(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the program has ended
        return b""


@pytest.mark.parametrize("piped", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("answer", "code", "status"), [("n", 1, "queued"), ("", 1, "queued"), ("what\nYES", 0, "cancel")]
)
def test_on_a_terminal_changes_by_filter_are_confirmed(
    project: Project, answer: str, code: int, status: str, piped: str
) -> None:
    job_id = project.queue("tasks.fail")
    told = dialog(project, "cancel", "--status", "queued", answer=f"{answer}\n", piped=piped)
    assert told.code == code, told
    assert "Cancel 1 job (1 queued)? [y/N]:" in told.shown
    assert "Cancel 1 job (1" not in told.piped
    assert project.client.fetch(job_id).status == status


def test_edit_changes_a_waiting_job(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "Ann"})
    said = mrq("jobs", "edit", job_id, "--params", '{"name": "Bob"}', "--priority", "3", "--at", "2040-01-01")
    due = "due at 2040-01-01T00:00:00.000Z"
    assert said.out == f"{job_id} is edited: queued, {due}, with priority 3\n"
    record = project.client.fetch(job_id)
    assert (record.params, record.priority, record.edits) == ({"name": "Bob"}, 3, 1)
    assert "  edits       1\n" in mrq("jobs", "show", job_id).out
    assert mrq("jobs", "show", job_id, "--json").json["edits"] == 1
    assert mrq("jobs", "edit", job_id, "--in", "90m").out.endswith("with priority 3\n")
    record = project.client.fetch(job_id)
    assert record.due_at is not None
    assert 5000 < (record.due_at - project.client.broker.now()).total_seconds() <= 5400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to change is named: expected --params, --priority, --in or --at"),
        (["--params", "{"], "params is not valid JSON: Input data was truncated (after 1 bytes)"),
        (["--params", '{"a": 1, "a": 2}'], "params has the key 'a' twice"),
        (["--params", "[1]"], "expected a JSON object"),
        (["--priority", "9"], "priority is 9: expected -4 to 4"),
        (["--in", "soon"], "--in is 'soon': expected a duration"),
        (["--in", "99999999d"], "--in is '99999999d': expected a duration of at most 30 years"),
        (["--at", "soon"], "at is 'soon': expected a time"),
        (["--in", "1h", "--at", "2040-01-01"], "--in and --at are both given"),
    ],
    ids=str,
)
def test_edit_names_what_is_wrong(mrq: Shell, project: Project, arguments: list[str], message: str) -> None:
    job_id = project.queue("tasks.greet", {"name": "Ann"})
    assert message in mrq("jobs", "edit", job_id, *arguments, code=2).err
    assert project.client.fetch(job_id).edits == 0


def test_edit_says_why_a_job_is_refused(mrq: Shell, worked: dict[str, str]) -> None:
    said = mrq("jobs", "edit", worked["added"], "--priority", "1", code=1)
    assert (
        f"job {worked['added']} cannot be edited: only a waiting job can be, and its status is success"
        in said.err
    )
    assert "`mrq jobs requeue" in said.err
    assert "no job has the id" in mrq("jobs", "edit", "0" * 24, "--priority", "1", code=1).err


def test_an_edit_of_a_job_of_a_paused_task_names_no_limit(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.greet", {"name": "Ann"})
    mrq("tasks", "pause", "tasks.greet")
    project.work_off()
    assert "limit" not in mrq("jobs", "edit", job_id, "--priority", "3").out


@pytest.mark.parametrize("piped", ["stdout", "stderr"])
def test_an_interrupted_question_changes_nothing(project: Project, piped: str) -> None:
    job_id = project.queue("tasks.fail")
    told = dialog(project, "cancel", "--status", "queued", signum=signal.SIGINT, piped=piped)
    assert told.code == 130, told
    assert "mrq:" not in told.shown + told.piped
    told = dialog(project, "remove", "--status", "queued", answer="\x04", piped=piped)
    assert told.code == 1, told
    assert (
        "mrq: aborted: the input ended before an answer, and nothing was changed" in told.shown + told.piped
    )
    assert project.client.fetch(job_id).status == "queued"


def test_no_question_is_asked_where_no_job_would_change(project: Project) -> None:
    assert dialog(project, "cancel", "--queue", "none").shown == "0 jobs to cancel\r\n"
    project.queue("tasks.fail")
    told = dialog(project, "requeue", "--status", "queued")
    assert (told.code, told.shown) == (0, "0 jobs to requeue; 1 refused: 1 queued\r\n")
