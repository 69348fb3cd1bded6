"""A scheduler in a process, on a fast clock: `python -m tests.scheduler.child`."""

from __future__ import annotations

import sys
import time
from datetime import datetime

from mrq_core.client.client import Client
from mrq_core.clock import from_ms
from mrq_core.config.sources import load_config
from mrq_core.scheduler.firing import Scheduler


def main(broker: str, store: str, began: float, start_ms: int, factor: float) -> None:
    """Schedules until it is killed. At the machine's time `began`, the clock shows `start_ms`; it runs
    `factor` times as fast."""

    def now() -> datetime:
        return from_ms(start_ms + round((time.time() - began) * factor * 1000))

    client = Client(load_config({"broker": broker, "store": store}, environ={}))
    scheduler = Scheduler(client, None, now=now, wait=lambda seconds: time.sleep(seconds / factor))
    scheduler.start()
    print("started", flush=True)
    scheduler.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
