"""`mrq scheduler`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from mrq_core.cli.options import Given, command, opened_client
from mrq_core.clock import monotonic

_STOPS_WITHIN = 2.0
"""Seconds for the scheduler's process to end after a signal."""


@command("broker", "scheduler", "tasks", "logs", "plugins", has_result=False)
def scheduler(given: Given) -> None:
    """Queues the jobs of schedules, until it is told to stop. Any number may run at once.

    The schedules are those of SCHEDULER_TASKS, of tasks with `every` or `cron`, and of `mrq schedules add`.
    `mrq worker --scheduler` does the same inside a worker. Ctrl-C and SIGTERM stop it.
    """
    from mrq_core.running.logs import is_logging_intact, logging_kept, restore_logging, set_up_logging
    from mrq_core.scheduler.firing import Scheduler
    from mrq_core.tasks.scheduled import schedules_of
    from mrq_core.worker.guards.called_code import guard_called_code
    from mrq_core.worker.guards.process_end import end_process_within
    from mrq_core.worker.guards.signals import STOP_SIGNALS, SignalReader

    config = given.config()
    definitions = schedules_of(config)
    guard_called_code()
    set_up_logging(config, follows_file=True)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a program that rotates logs sends it to each process
    with contextlib.ExitStack() as opened:
        with logging_kept():
            client = opened.enter_context(opened_client(config))
        sleep, wake = _sleep_until_woken()
        report = _ReportFile(config.report_file, config.report_interval)

        def wait(seconds: float) -> None:
            if not is_logging_intact():  # the module of a task may set logging up for itself
                restore_logging()
            report.write_when_due()
            sleep(seconds)

        made = Scheduler(client, definitions, wait=wait)

        def stop(number: int) -> None:
            made.stop()
            wake()
            # A call to a broker that does not answer is cut off: the next scheduler makes what it left.
            name = signal.Signals(number).name
            end_process_within(_STOPS_WITHIN, 0, f"the scheduler was told to stop by {name}")

        SignalReader(stop).start(STOP_SIGNALS)
        client.broker.prepare()
        made.start()
        report.write_when_due()
        made.run()
        report.remove()
        made.close()


class _ReportFile:
    """REPORT_FILE, which a probe on this machine reads: it is new as long as the scheduler lives. Errors are
    ignored, and the probe finds an old file."""

    def __init__(self, path: str, interval: float) -> None:
        self._path = path
        self._interval = interval
        self._written_at = -interval

    def write_when_due(self) -> None:
        now = monotonic()
        if self._path and now - self._written_at >= self._interval:
            self._written_at = now
            with contextlib.suppress(OSError):
                Path(self._path).write_text(json.dumps({"pid": os.getpid(), "at": time.time()}))

    def remove(self) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _sleep_until_woken() -> tuple[Callable[[float], object], Callable[[], object]]:
    """A function that sleeps some seconds, and one that ends its sleeps: a signal handler may call it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wake() -> None:
        os.write(writer, b"x")

    return (lambda seconds: select.select([reader], [], [], seconds)), wake
