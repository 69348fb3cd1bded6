"""`mrq scheduler`."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType

from mrq_core.cli.options import Given, command


@command("broker", "scheduler", "tasks", "logs", "plugins", has_result=False)
def scheduler(given: Given) -> None:
    """Queues the jobs of schedules, until it is told to stop. Any number may run at once.

    The schedules are those of SCHEDULER_TASKS, of tasks with `every` or `cron`, and of `mrq schedules add`.
    `mrq worker --scheduler` does the same inside a worker. Ctrl-C and SIGTERM stop it.
    """
    from mrq_core.running.logs import set_up_logging
    from mrq_core.scheduler.firing import Scheduler
    from mrq_core.tasks.scheduled import schedules_of

    config = given.config()
    definitions = schedules_of(config)
    set_up_logging(config.log_level, config.log_format, quiet=config.quiet)
    with given.client() as client:
        wait, wake = _sleep_until_woken()
        made = Scheduler(client, definitions, wait=wait)

        def stop(number: int, frame: FrameType | None) -> None:
            made.stop()
            wake()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)
        client.broker.prepare()
        made.start()
        made.run()
        made.close()


def _sleep_until_woken() -> tuple[Callable[[float], object], Callable[[], object]]:
    """A function that sleeps some seconds, and one that ends its sleeps: a signal handler may call it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wake() -> None:
        os.write(writer, b"x")

    return (lambda seconds: select.select([reader], [], [], seconds)), wake
