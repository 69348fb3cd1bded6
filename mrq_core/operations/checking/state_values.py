"""The findings of `mrq check` about values of shared state that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping

from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.naming import shown_names
from mrq_core.contract.queries import Finding
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import BrokerError
from mrq_core.operations import auditing, requests, schedules, task_descriptions, workers
from mrq_core.operations.bulk import bulk_actions
from mrq_core.operations.queries import saved_views, search_keys
from mrq_core.operations.receipts import RECEIPTS_NAMESPACE

OF_PEOPLE: Mapping[str, str] = {
    rules.PAUSED_QUEUES: "the pauses hold; `mrq queues resume` ends them",
    rules.PAUSED_TASKS: "the pauses hold; `mrq tasks resume` ends them",
    rules.LIMITS: "these limits have no effect; `mrq limits set` sets them again, `mrq limits remove` "
    "deletes them",
    schedules.SCHEDULES: "these schedules do not fire; `mrq schedules add` adds them again, and a scheduler "
    "restores those of its config",
    saved_views.VIEWS_NAMESPACE: "save these views again",
}
"""Namespaces with values that people set, and what to do about values that cannot be read."""
OF_MRQ = (
    *(rules.REQUESTS, requests.ANSWERS, workers.WORKERS_NAMESPACE, task_descriptions.TASKS_NAMESPACE),
    *(schedules.SCHEDULERS, schedules.CHANGES, auditing.AUDIT_NAMESPACE, auditing.COUNTER_NAMESPACE),
    *(RECEIPTS_NAMESPACE, bulk_actions.BULK_NAMESPACE, search_keys.NAMESPACE),
)
"""Namespaces with values that mrq writes again, or does without."""


def state_findings(broker: Broker) -> list[Finding]:
    """Names the values that cannot be read. Reads all values."""
    findings: list[Finding] = []
    for namespace in (*OF_PEOPLE, *OF_MRQ):
        try:
            names = _unreadable(broker, namespace)
        except BrokerError as error:
            advice = "Fix the named problem, and check again."
            findings.append(_finding("error", f"{namespace} cannot be read: {error}", advice))
            continue
        if names:
            message = f"values of {namespace} cannot be read: {shown_names(names)}"
            advice = OF_PEOPLE.get(namespace, "`mrq check --fix` deletes them")
            findings.append(_finding("warning", message, advice))
    return findings


def delete_unreadable(broker: Broker) -> int:
    """Deletes the values that cannot be read, other than those that people set, and returns their number."""
    return sum(
        sum(broker.state.delete(namespace, names))
        for namespace in OF_MRQ
        if (names := _unreadable(broker, namespace))
    )


def _unreadable(broker: Broker, namespace: str) -> list[str]:
    return [item.name for item in broker.state.list(namespace) if not _is_readable(item)]


def _is_readable(item: StateItem) -> bool:
    if item.namespace == rules.LIMITS:
        return rules.stored_limit(item.value) is not None
    if item.namespace == schedules.SCHEDULES:
        return schedules.read_schedule(item) is not None
    return item.value is not None


def _finding(level: str, message: str, advice: str) -> Finding:
    return Finding(level=level, subject="shared state", message=message, advice=advice)
