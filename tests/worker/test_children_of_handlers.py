"""A child that a log handler of the config file forks ends where the handler ends, also where the process has
no jobs yet, or never has any."""

from __future__ import annotations

import signal

import pytest

from tests.support import Project, until

CONFIG = """
import logging
import os

from tasks import note

note("read")
LINE, END = os.environ["LINE"], os.environ["END"]


class Forks(logging.Handler):
    def emit(self, record):
        if not record.getMessage().startswith(LINE):
            return
        child = os.fork()
        if child:
            note(f"child:{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
        elif END == "exits":
            raise SystemExit(3)
        elif END == "raises":
            raise LookupError("of the handler")


class Notes(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith(LINE):
            note("line")


for handler in (Forks(), Notes()):
    logging.getLogger().addHandler(handler)
SCHEDULER_TASKS = [{"path": "tasks.noted", "params": {"word": "s"}, "interval": 3600}]
"""
CODES = {"returns": 0, "exits": 3, "raises": 1}
COMMANDS = {
    "worker": ("worker.starting", ("worker",), "worker.started"),
    "parent": ("processes.started", ("worker", "--processes", "1"), "worker.started"),
    "scheduler": ("scheduler.started", ("scheduler",), "scheduler.started"),
    "dashboard": ("Application startup", ("dashboard", "--dashboard-port", "0"), "Application startup"),
}


@pytest.mark.parametrize("end", CODES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_child_of_a_handler_goes_on_with_no_command(project: Project, command: str, end: str) -> None:
    line, words, shown = COMMANDS[command]
    project.env.update(LINE=line, END=end)
    project.write("mrq-config.py", CONFIG)
    process = project.start(*words)
    process.until_output(shown)
    until(lambda: "line" in project.ledger(), what="the line")
    process.send(signal.SIGINT)
    assert process.wait() == 0, process.output
    assert process.output.count(shown) == 1, process.output
    expected = [f"child:{CODES[end]}", "line"]
    assert [one for one in project.ledger() if one.startswith(("child", "line"))] == expected


def test_a_scheduler_reads_its_config_file_once(project: Project) -> None:
    project.env.update(LINE="none", END="returns")
    project.write("mrq-config.py", CONFIG)
    process = project.start("scheduler")
    process.until_output("scheduler.started")
    process.send(signal.SIGINT)
    assert process.wait() == 0
    assert project.ledger() == ["read"]


LATE = """
import logging
import os
import time


class Waits(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("processes.started"):
            pid = os.fork()
            if pid == 0:
                os._exit(3)
            time.sleep(1.5)
            try:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except OSError as error:
                code = error
            with open(os.environ["LEDGER"], "a") as file:
                file.write(f"{code}\\n")


logging.getLogger().addHandler(Waits())
"""


def test_a_parent_leaves_the_exit_code_of_a_child_to_the_handler_that_has_forked_it(project: Project) -> None:
    project.write("mrq-config.py", LATE)
    process = project.start("worker", "--processes", "1")
    until(project.ledger, what="the exit code")
    process.send(signal.SIGINT)
    assert process.wait() == 0, process.output
    assert project.ledger() == ["3"]
