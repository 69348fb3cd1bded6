"""Rules, and requests to a worker: the answers that each process polls once a second."""

from __future__ import annotations

from msgspec.structs import replace

from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.shared.state import items_in, value_in
from mrq_core.contract import rules
from mrq_core.contract.shared_state import PollResult, Versions


def poll(connection: Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. Three look-ups in one script without changes. The worker repeats it, and spreads the
    repetitions of many workers."""
    again = -1 if versions.rules_until_ms is None else versions.rules_until_ms
    arguments = [worker, versions.rules, versions.signals, again, rules.REQUESTS, rules.NAMESPACES]
    now_ms, version, found, request, listed = connection.run("poll", arguments)
    signals = int(found[-1]) if found else versions.signals
    changed = None
    after = replace(versions, signals=signals)
    if listed is not None:
        items = dict(zip(rules.NAMESPACES, listed, strict=True))
        changed = rules.read(lambda namespace: items_in(namespace, items[namespace]))
        after = rules.versions_after(version, signals, changed)
    return PollResult(
        versions=after,
        rules=changed,
        interrupts=tuple(job_id.decode() for job_id in found[::2]),
        requests=() if request is None else rules.requests_in(value_in(request), int(now_ms)),
    )
