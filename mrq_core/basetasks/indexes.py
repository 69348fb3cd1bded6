"""The task that creates missing indexes."""

from __future__ import annotations

from mrq_core.basetasks.params import is_dry, refuse_others
from mrq_core.client.ambient import current_client
from mrq_core.contract.codec import JsonObject
from mrq_core.running.context import log
from mrq_core.tasks.task import Task


class EnsureIndexes(Task):
    """Creates missing schema, indexes and scripts of the broker, as each worker does at its start."""

    timeout = 0.0

    def run(self, params: JsonObject) -> JsonObject:
        """Returns the number of ``problems`` that `mrq check` finds afterwards. ``dry_run`` only checks."""
        refuse_others(params, "dry_run")
        broker = current_client().broker
        if not is_dry(params):
            broker.prepare()
        problems = [finding for finding in broker.check() if finding.level != "ok"]
        for finding in problems:
            log.warning("%s: %s %s", finding.subject, finding.message, finding.advice)
        return {"problems": len(problems)}
