"""Threads that the config file or a plugin has started, and that queue jobs at once."""

from __future__ import annotations

import pytest

from tests.support import Project, until

STARTS = """
import os
import threading

from mrq_core import queue_job


def queue():
    job_id = queue_job("tasks.nothing", {}, "of the thread")
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"{job_id}\\n")


with open("loaded", "a") as file:
    file.write("x")
threading.Thread(target=queue, daemon=True).start()
"""


@pytest.mark.parametrize(("file", "flags"), [("mrq-config.py", []), ("starts.py", ["--plugins", "starts"])])
def test_a_thread_of_loaded_code_queues_into_the_broker_of_the_flags(
    project: Project, file: str, flags: list[str]
) -> None:
    """The code is loaded once, and the thread waits for it."""
    project.write(file, STARTS)
    broker, store = project.env.pop("MRQ_BROKER"), project.env.pop("MRQ_STORE")
    project.env["MRQ_SQLITE"] = "elsewhere.sqlite3"
    worker = project.start("worker", "--broker", broker, "--store", store, *flags)
    worker.until_output("worker.started")
    until(project.ledger, what="the job of the thread")
    [job_id] = project.ledger()
    assert project.client.fetch(job_id).queue == "of the thread"
    assert (project.path / "loaded").read_text() == "x"
    assert not (project.path / "elsewhere.sqlite3").exists()
