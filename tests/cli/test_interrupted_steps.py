"""Commands that work in steps: Ctrl-C, or an error, between two steps prints what was done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mrq_core.cli import check_commands, jobs_actions, queues_commands, schedules_commands
from mrq_core.client import schedules
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import RawItem
from mrq_core.contract.queries import JobFilter, RepairResult
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations import actions, queue_contents
from tests.cli.conftest import Shell
from tests.support import Project

ENDS = [(KeyboardInterrupt(), 130), (BrokerUnavailable("gone"), 1)]


def ended_by(error: BaseException, work: Callable[..., Any], *, steps: int = 1) -> Callable[..., Any]:
    """The work, which this error ends after a number of steps."""

    def ends(*arguments: Any, on_step: Callable[[Any], None], **more: Any) -> Any:
        numbers = itertools.count(1)

        def step(done: Any) -> None:
            on_step(done)
            if next(numbers) == steps:
                raise error

        return work(*arguments, on_step=step, **more)

    return ends


def number_in(project: Project, *queues: str) -> int:
    return len(project.client.broker.find(JobFilter(queues=queues)).records)


@pytest.mark.parametrize(("error", "code"), ENDS)
@pytest.mark.parametrize("command", ["purge", "move"])
def test_queues_tell_how_many_jobs_they_have_purged_or_moved(
    mrq: Shell,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    command: str,
) -> None:
    for queue in ("first", "second", "second", "second"):
        project.queue("tasks.fail", queue=queue)
    monkeypatch.setattr(queue_contents, "CHUNK", 1)
    name = f"{command}_queue"
    ending = ended_by(error, getattr(queue_contents, name), steps=3)
    monkeypatch.setattr(queues_commands, name, ending)
    words = ["queues", command, "second", "first", *(["--to", "target"] if command == "move" else [])]
    said = mrq(*words, code=code)
    verb = "removed" if command == "purge" else "moved to target"
    assert f"Until then: second: 3 jobs {verb}.\n" in said.err
    assert said.out == ""
    assert (number_in(project, "second"), number_in(project, "first")) == (0, 1)


def test_a_queue_that_was_purged_before_an_interrupt_is_told_apart(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.queue("tasks.fail", queue="first")
    project.client.broker.raw("in_raw").push([RawItem(param=param) for param in "abc"])
    monkeypatch.setattr(queue_contents, "CHUNK", 1)
    ending = ended_by(KeyboardInterrupt(), queue_contents.purge_queue, steps=3)
    monkeypatch.setattr(queues_commands, "purge_queue", ending)
    said = mrq("queues", "purge", "first", "in_raw", code=130)
    assert said.out == "first: 1 job removed\n"
    assert "Until then: in_raw: 0 jobs removed, 2 parameters.\n" in said.err


def test_nothing_is_told_where_no_step_has_changed_a_job(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = ended_by(KeyboardInterrupt(), queue_contents.purge_queue)
    monkeypatch.setattr(queues_commands, "purge_queue", ending)
    said = mrq("queues", "purge", "empty", code=130)
    assert (said.out, "Until then" in said.err) == ("", False)


@pytest.mark.parametrize("verb", ["cancel", "remove"])
def test_actions_by_id_tell_how_many_jobs_they_have_changed(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ids = [project.queue("tasks.fail") for _ in range(3)]
    monkeypatch.setattr(actions, "CHUNK", 1)
    ending = ended_by(KeyboardInterrupt(), actions.apply_to_ids, steps=2)
    monkeypatch.setattr(jobs_actions, "apply_to_ids", ending)
    said = mrq("jobs", verb, *ids, code=130)
    assert f"Until then: 2 jobs {'cancelled' if verb == 'cancel' else 'removed'}.\n" in said.err


def test_a_backfill_tells_how_many_jobs_it_has_queued(
    mrq: Shell, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    mrq("schedules", "add", "tasks.fail", "--name", "often", "--cron", "0 * * * *")
    monkeypatch.setattr(schedules, "CHUNK", 2)
    ending = ended_by(KeyboardInterrupt(), schedules.backfill_schedule)
    monkeypatch.setattr(schedules_commands, "backfill_schedule", ending)
    said = mrq("schedules", "backfill", "often", "5h", "now", code=130)
    assert "Until then: 2 jobs queued.\n" in said.err
    assert number_in(project) == 2


def test_a_repair_tells_how_far_it_got(mrq: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def repair_once(broker: Broker) -> Iterator[RepairResult]:
        yield RepairResult(examined=1000, repaired=("0" * 24,), cursor="next")
        raise KeyboardInterrupt

    monkeypatch.setattr(check_commands, "repair_all", repair_once)
    said = mrq("check", "--repair", code=130)
    assert "Until then: examined 1,000 unfinished jobs; put 1 back into their queues.\n" in said.err
