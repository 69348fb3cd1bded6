"""Tasks that put right what crashes have left."""

from __future__ import annotations

from mrq_core.client import current_client
from mrq_core.codec import JsonObject
from mrq_core.context import log, set_current_job_progress
from mrq_core.job import WAITING, Status
from mrq_core.operations.mending import mend_all
from mrq_core.tasks import Task

_SHOWN = 20


class RequeueLostJobs(Task):
    """Gives unfinished jobs back the places in their queues that they have lost.

    That happens only where queue and records are on two servers: a process died between the two, or the
    queue's server lost its data. It is safe at any time, beside running workers; no running job is
    started twice. Elsewhere it finds nothing to do.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Looks at all unfinished jobs, a thousand at a time; answers with how many, and how many had lost
        their place."""
        broker = current_client().broker
        totals = broker.totals().by_status()
        expected = sum(totals.get(status, 0) for status in (*WAITING, Status.STARTED))
        looked = mended = 0
        for step in mend_all(broker):
            looked += step.looked
            mended += len(step.mended)
            if step.mended:
                more = " ..." if len(step.mended) > _SHOWN else ""
                log.info(
                    "%d back in their queues: %s%s", len(step.mended), " ".join(step.mended[:_SHOWN]), more
                )
            set_current_job_progress(min(1.0, looked / expected) if expected else 1.0)
        return {"looked": looked, "mended": mended}
