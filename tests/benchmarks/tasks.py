"""The tasks that are measured."""

from __future__ import annotations

import time

from mrq_core.codec import JsonObject
from mrq_core.tasks import Task, task


class Nothing(Task):
    """Returns a small result, which is stored."""

    def run(self, params: JsonObject) -> int:
        return 1


class Now(Task):
    """Returns when it was started, by its own clock."""

    def run(self, params: JsonObject) -> float:
        return time.time()


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)
