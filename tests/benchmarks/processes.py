"""The processes of a system, in its own environment: its workers, and the sender of its jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.benchmarks import marks
from tests.benchmarks.systems import Place, System

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600.0
END_SECONDS = 5.0
"""What a worker has for its end, before it is killed."""


class Refused(Exception):
    """There is no figure: not all jobs were run, or a process of the system ended with an error."""


class Bench(NamedTuple):
    """A system with an empty place, ready to be measured."""

    system: System
    python: Path
    place: Place
    folder: Path
    marks: Path

    def environ(self) -> dict[str, str]:
        """That of its processes. Of ours nothing else has a say: settings from outside are left out."""
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("MRQ_", "PYTHON"))
        }
        own = {**self.place.environ, **self.system.environ, **marks.environ_of(self.marks)}
        return {**outside, "PYTHONPATH": str(ROOT), **own}

    def send(self, how: str, task: str, number: int) -> Any:
        """Enqueues in a process of its own; answers with what `send.py` prints."""
        words = ("-m", "tests.benchmarks.send", self.system.application, how, task, str(number))
        try:
            done = subprocess.run(
                [self.python, *words],
                cwd=self.folder,
                env=self.environ(),
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"its sender has not ended after {PATIENCE_SECONDS:g} s") from None
        if done.returncode:
            raise Refused(f"its sender ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def until(self, condition: Callable[[], bool], workers: Workers, what: str) -> None:
        """Waits. Raises Refused when a worker ends before, or when it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if workers.has_ended() or time.monotonic() > deadline:
                why = "its worker ended" if workers.has_ended() else f"{PATIENCE_SECONDS:g} s are over"
                raise Refused(f"{what}: {why}; it said: {self.log()[-2000:]}")
            time.sleep(0.005)

    def log(self) -> str:
        """What its workers have printed."""
        return "".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("worker-*.log")))


class Workers(NamedTuple):
    """Running workers of one system."""

    processes: list[subprocess.Popen[bytes]]

    def has_ended(self) -> bool:
        """Whether any of them is not there any more."""
        return any(process.poll() is not None for process in self.processes)

    def memory(self) -> int:
        """Bytes of all their processes; what several share is counted once."""
        trees = [psutil.Process(process.pid) for process in self.processes]
        every = [one for tree in trees for one in (tree, *tree.children(recursive=True))]
        return sum(one.memory_full_info().pss for one in every)


@contextlib.contextmanager
def workers(bench: Bench, concurrency: int, processes: int = 1) -> Iterator[Workers]:
    """Starts the system's worker, or several; ends them with all that they have started."""
    environ = {**bench.environ(), "BENCH_CONCURRENCY": str(concurrency)}
    with contextlib.ExitStack() as stack:
        started = []
        for index in range(processes):
            name, *arguments = (
                word.format(concurrency=concurrency, index=index) for word in bench.system.command
            )
            log = stack.enter_context((bench.folder / f"worker-{index}.log").open("wb"))
            process = subprocess.Popen(
                [bench.python.parent / name, *arguments],
                cwd=bench.folder, env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)
            started.append(process)
        yield Workers(started)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # it waits for a server and for nothing else
        pass
    with contextlib.suppress(ProcessLookupError):  # what it has started; the group is its own
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
