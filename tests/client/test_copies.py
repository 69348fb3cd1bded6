"""Tasks and handles in other processes, and copies of them."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mrq_core.client import ambient as ambient_module
from mrq_core.client.ambient import configure, queue_job
from mrq_core.client.client import Client
from mrq_core.client.handles import Job, Queue
from mrq_core.errors import ConfigError, InvalidValue
from mrq_core.tasks.task import TaskFunction, TaskLike
from tests.client import tasks


def queued_there(task: TaskLike, url: str) -> Queue:
    """Runs in another process."""
    client = configure(broker=url)
    queue_job(task, {"to": "x"})
    assert isinstance(task, TaskFunction)
    assert task("ab", copies=2) == "abab"
    client.close()
    return Queue("mail")


def refused_there(url: str) -> None:
    configure(broker=url)
    queue_job("a.B", priority=99)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ambient_module, "_process_client", None)
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_task_is_pickled_as_its_name(protocol: int) -> None:
    for task in (tasks.mail, tasks.Crawl):
        assert pickle.loads(pickle.dumps(task, protocol)) is task
    assert type(pickle.loads(pickle.dumps(tasks.Crawl(), protocol))) is tasks.Crawl


def test_a_task_is_copied_as_itself() -> None:
    for task in (tasks.mail, tasks.Crawl):
        assert copy.copy(task) is task
        assert copy.deepcopy({"task": [task]}) == {"task": [task]}


def test_tasks_handles_and_errors_pass_between_spawned_processes(url: str) -> None:
    client = configure(broker=url)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        queue = pool.submit(queued_there, tasks.mail, url).result(60)
        assert queue.size() == 1
        with pytest.raises(InvalidValue, match="priority is 99") as caught:
            pool.submit(refused_there, url).result(60)
    assert caught.value.path == "priority"
    client.close()


def test_handles_are_copied_with_their_client_and_pickled_only_without(url: str, tmp_path: Path) -> None:
    client = configure(broker=url)
    other = configure(broker=f"sqlite:///{tmp_path}/other.sqlite3")
    job, queue = Job(client.queue_job("a.B"), client=client), Queue("default", client=client)
    for one in (copy.copy(job), copy.deepcopy(job)):
        assert one.fetch().path == "a.B"
    for same in (copy.copy(queue), copy.deepcopy(queue)):
        assert same.size() == 1
    for handle, word in ((job, "id"), (queue, "name")):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(
                TypeError, match=rf"client=\.\.\.\) cannot be pickled.*send its {word}, and make"
            ):
                pickle.dumps(handle, protocol)
    running = Job(job.id, client=client, running=object())  # type: ignore[arg-type]
    for free in (Job(job.id), running):
        copied = pickle.loads(pickle.dumps(free))
        assert copied == job
        assert copied._client is other
    assert pickle.loads(pickle.dumps(Queue("default"))).size() == 0
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make a client in each process"):
            call(client)
    client.close()
    other.close()


def test_a_client_needs_a_configuration() -> None:
    for odd in (None, "sqlite", {"broker": "sqlite"}):
        with pytest.raises(ConfigError, match=r"config is .*: expected a Config"):
            Client(odd)  # type: ignore[arg-type]
