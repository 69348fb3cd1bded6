"""Handlers of log lines that queue jobs, in a program that logs at DEBUG."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrq_core.contract.queries import JobFilter
from tests.brokers import address_of
from tests.support import open_project

HANDLER = """
import logging
from mrq_core import MrqError, queue_job

refused = []

class Handler(logging.Handler):
    def emit(self, record):
        try:
            queue_job("tasks.of_handler")
        except MrqError as error:
            refused.append(error)
            if not catches:
                raise
"""
ROOT_AT_DEBUG = """
catches = False
logging.basicConfig(level=logging.DEBUG, handlers=[Handler()])
queue_job("tasks.of_program")
queue_job("tasks.of_program")
assert not refused
"""
PYMONGO_AT_DEBUG = """
catches = True
logging.getLogger("pymongo").setLevel(logging.DEBUG)
logging.getLogger("pymongo").addHandler(Handler())
queue_job("tasks.of_program")
queue_job("tasks.of_program")
assert refused
"""


@pytest.mark.parametrize("program", [ROOT_AT_DEBUG, PYMONGO_AT_DEBUG], ids=["root", "pymongo"])
@pytest.mark.parametrize("arrangement", ["mongo", pytest.param("redis+mongo", marks=pytest.mark.campaign)])
def test_a_handler_that_queues_jobs_neither_hangs_nor_fails_the_calls_of_the_program(
    tmp_path: Path, arrangement: str, program: str
) -> None:
    with open_project(tmp_path, *address_of(arrangement, tmp_path)) as project:
        flags = project.address
        env = {**os.environ, "MRQ_BROKER": flags.broker, "MRQ_STORE": flags.store}
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", HANDLER + program],
                env=env, cwd=tmp_path, timeout=30, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
        assert len(project.client.broker.find(JobFilter(paths=("tasks.of_program",))).records) == 6
