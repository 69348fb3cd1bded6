"""Children that the code which mrq loads or calls forks: they end where this code raises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import brokers

FORKS = """
import os
import sys

def fork():
    if not os.fork():
        {end}
    os.wait()

"""
ENDS = {"exit": "sys.exit(5)", "error": "raise ValueError('in the child')"}
PLACES = {
    "module": ("job", "fork()\n"),
    "plugin": ("plugged", "fork()\n"),
    "config file": ("mrq-config", "fork()\nPLUGINS = []\n"),
    "hook": (
        "plugged",
        "from mrq_core import hookimpl\n\n@hookimpl\ndef mrq_before_enqueue(record):\n    fork()\n",
    ),
    "encoding": (
        "plugged",
        "from mrq_core import hookimpl\n\n@hookimpl\ndef mrq_encode(value):\n    fork()\n",
    ),
}
PROGRAM = """
from mrq_core import Queue, queue_job
queue_job("job.run", {"a": 1})
print(Queue("default").size())
"""


@pytest.mark.parametrize("name", brokers.PARAMS)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_child_that_loaded_code_forks_ends_where_the_code_raises(
    name: str, place: str, end: str, tmp_path: Path
) -> None:
    address = brokers.address_of(name, tmp_path)
    (tmp_path / "job.py").write_text("from mrq_core import task\n\n@task\ndef run(a):\n    pass\n")
    (tmp_path / "plugged.py").write_text("")
    file, code = PLACES[place]
    with (tmp_path / f"{file}.py").open("a") as out:
        out.write(FORKS.format(end=ENDS[end]) + code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", PROGRAM],
        cwd=tmp_path,
        env={
            **os.environ,
            "MRQ_BROKER": address.broker,
            "MRQ_STORE": address.store,
            **({} if place == "config file" else {"MRQ_PLUGINS": "plugged"}),
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    if end == "exit":
        assert done.stderr == ""
    else:
        assert "ValueError: in the child" in done.stderr
