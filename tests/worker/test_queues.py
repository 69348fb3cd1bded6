"""The queues that a worker serves: piles, trees and their new subqueues, and pauses of them."""

from __future__ import annotations

import time

from mrq_core.client.handles import Queue
from mrq_core.contract.record import Status
from tests.support import Project, until


def order_of(project: Project) -> list[str]:
    """The words of the jobs in the order in which they started."""
    return [line.removeprefix("start-") for line in project.ledger() if line.startswith("start-")]


def queue_words(project: Project, words: str, queue: str) -> None:
    for word in words:
        project.queue("tasks.noted", {"word": word}, queue=queue)


def test_a_pile_runs_the_newest_job_first(project: Project) -> None:
    queue_words(project, "abc", "default")
    queue_words(project, "d", "default_reverse")
    assert Queue("default_reverse", client=project.client).size() == 4
    project.work_off("default_reverse")
    assert order_of(project) == ["d", "c", "b", "a"]


def test_a_queue_is_served_oldest_first(project: Project) -> None:
    queue_words(project, "abc", "default")
    project.work_off("default")
    assert order_of(project) == ["a", "b", "c"]


def test_a_tree_contains_the_queue_with_its_name_and_grandchildren(project: Project) -> None:
    for word, queue in (("self", "main/"), ("child", "main/a"), ("grandchild", "main/a/b")):
        project.queue("tasks.noted", {"word": word}, queue=queue)
    outside = [project.queue("tasks.noted", {"word": "no"}, queue=queue) for queue in ("main", "mains/a")]
    project.work_off("main/")
    assert sorted(order_of(project)) == ["child", "grandchild", "self"]
    assert [project.client.fetch(job).status for job in outside] == [Status.QUEUED] * 2


def test_new_subqueues_are_found_while_the_worker_runs(project: Project) -> None:
    project.worker("main/")
    for queue in ("main/first", "main/second/third", "main/"):
        assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1}, queue=queue)).result == 2


def test_trees_and_tasks_are_paused_from_the_command_line_within_a_second(project: Project) -> None:
    project.worker("main/", "default")
    started = project.ended(project.queue("tasks.noted", {"word": "before"}, queue="main/a"))
    assert started.status is Status.SUCCESS
    project.mrq("queues", "pause", "main/")
    project.mrq("tasks", "pause", "tasks.fail")
    paused = time.monotonic()
    until(lambda: time.monotonic() > paused + 1.3, what="a second for the workers")
    held = [project.queue("tasks.noted", {"word": word}, queue=f"main/{word}") for word in ("a", "new")]
    failing = project.queue("tasks.fail")
    marker = project.queue("tasks.Add", {"a": 1, "b": 1})
    assert project.ended(marker).result == 2
    assert [project.client.fetch(job).status for job in (*held, failing)] == [Status.QUEUED] * 3
    project.mrq("queues", "resume", "main/")
    project.mrq("tasks", "resume", "tasks.fail")
    resumed = time.monotonic()
    assert [project.ended(job).status for job in (*held, failing)] == [
        Status.SUCCESS, Status.SUCCESS, Status.FAILED
    ]  # fmt: skip
    assert time.monotonic() - resumed < 5.0


def test_a_tree_is_paused_from_code_within_a_second(project: Project) -> None:
    project.worker("main/", "default")
    tree = Queue("main/", client=project.client)
    tree.pause()
    paused = time.monotonic()
    until(lambda: time.monotonic() > paused + 1.3, what="a second for the workers")
    held = project.queue("tasks.noted", {"word": "x"}, queue="main/a/b")
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert project.client.fetch(held).status is Status.QUEUED
    tree.resume()
    assert project.ended(held).status is Status.SUCCESS


CHAIN = """
from mrq_core import Job, queue_job, task


@task
def link(left: int):
    if left:
        Job(queue_job(link, {"left": left - 1})).wait(timeout=10)
    return left
"""


def test_a_burst_starts_at_once_what_its_running_jobs_enqueue(project: Project) -> None:
    project.write("chain.py", CHAIN)
    job = project.queue("chain.link", {"left": 3})
    worker = project.worker("--burst", "--greenlets", "4", "--max-latency", "60")
    assert project.ended(job).result == 3
    assert worker.wait() == 0
