"""Tasks that repair the effects of crashes."""

from __future__ import annotations

from mrq_core.client.client import current_client
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import WAITING, Status
from mrq_core.operations.actions import repair_all
from mrq_core.running.context import log, set_current_job_progress
from mrq_core.tasks.task import Task

_SHOWN = 20


class RequeueLostJobs(Task):
    """Puts unfinished jobs back into their queues that have lost their entry.

    Jobs lose their entry only if queue and records are on two servers: a process died between its writes to
    the two, or the queue's server lost its data. Safe at any time, beside running workers; no running job is
    started twice. With other brokers the task changes nothing.
    """

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Examines all unfinished jobs, 1,000 at a time. Returns the numbers of examined and repaired."""
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
