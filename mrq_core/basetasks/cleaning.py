"""Tasks that repair what crashes left behind."""

from __future__ import annotations

from mrq_core.client.client import current_client
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import WAITING, Status
from mrq_core.operations.repairing import repair_all
from mrq_core.running.context import log, set_current_job_progress
from mrq_core.tasks.task import Task

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
        examined = repaired = 0
        for step in repair_all(broker):
            examined += step.examined
            repaired += len(step.repaired)
            if step.repaired:
                more = " ..." if len(step.repaired) > _SHOWN else ""
                log.info(
                    "%d back in their queues: %s%s",
                    len(step.repaired),
                    " ".join(step.repaired[:_SHOWN]),
                    more,
                )
            set_current_job_progress(min(1.0, examined / expected) if expected else 1.0)
        return {"examined": examined, "repaired": repaired}
