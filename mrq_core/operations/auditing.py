"""The audit log: who has changed what from the dashboard. Shared state keeps the newest 1,000 entries of the
last 30 days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.plain import printable
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import InvalidValue, on_one_line, shown
from mrq_core.ids import new_id

AUDIT_NAMESPACE = "audit"
MOST = 1000
"""The most entries that are kept."""
TTL = 30 * 86_400.0
"""Seconds for which an entry is kept."""
COUNTER_NAMESPACE = "audit_counters"
_TRIM_EACH = 50
"""Entries after which older entries above MOST are deleted."""
_LONGEST = {"who": 200, "action": 100, "target": 1000}
_MOST_COUNTS = 20


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An action: by whom, on what, and how many jobs or queues it has changed, such as ``{"done": 3}``."""

    id: str
    at: datetime
    who: str
    action: str
    target: str
    counts: Mapping[str, int] = {}


def audit(
    broker: Broker,
    who: str,
    action: str,
    target: str,
    counts: Mapping[str, int] | None = None,
    entry_id: str | None = None,
) -> AuditEntry:
    """Adds an entry, with the broker's time. Long texts are cut. One write; each 50th deletes old entries.

    Call it after the action, with what the action did. A call with the `entry_id` of an earlier one replaces
    that entry. Raises BrokerError.
    """
    texts = {"who": who, "action": action, "target": target}
    entry = AuditEntry(
        id=entry_id or new_id(),
        at=broker.now(),
        counts={
            printable(str(name))[:100]: number for name, number in list((counts or {}).items())[:_MOST_COUNTS]
        },
        **{name: _cut(text, _LONGEST[name]) for name, text in texts.items()},
    )
    state = broker.state
    state.put(AUDIT_NAMESPACE, entry.id, msgspec.to_builtins(entry), ttl=TTL)
    if state.add(COUNTER_NAMESPACE, "entries", 1) % _TRIM_EACH == 0:
        old = _read(state.list(AUDIT_NAMESPACE))[MOST:]
        if old:
            state.delete(AUDIT_NAMESPACE, [entry.id for entry in old])
    return entry


def read_audit(
    broker: Broker, *, limit: int = 100, cursor: str | None = None, wanted_text: str = ""
) -> tuple[list[AuditEntry], str | None]:
    """The newest entries first, and the cursor of the next page; None: there are no more entries.

    `wanted_text`: words that an entry has, in any case, among its texts. Reads all entries, about 1,000.
    Raises InvalidValue for a `limit` outside 1 to 1,000, and for a cursor whose entry is gone.
    """
    if not 1 <= limit <= MOST:
        raise InvalidValue(f"limit is {shown(limit)}: expected 1 to {MOST:,}", path="limit")
    entries = _read(broker.state.list(AUDIT_NAMESPACE))[:MOST]
    if cursor is not None:
        index = next((index for index, entry in enumerate(entries) if entry.id == cursor), None)
        if index is None:
            raise InvalidValue(f"cursor is {shown(cursor)}: expected the id of an entry", path="cursor")
        entries = entries[index + 1 :]
    words = wanted_text.casefold().split()
    found = [entry for entry in entries if all(word in _text_of(entry) for word in words)]
    page = found[:limit]
    return page, (page[-1].id if len(found) > limit else None)


def _read(items: list[StateItem]) -> list[AuditEntry]:
    """The entries, newest first, without those that this version cannot read."""
    entries = []
    for item in items:
        try:
            entries.append(msgspec.convert(item.value, AuditEntry))
        except msgspec.ValidationError:
            continue
    return sorted(entries, key=lambda entry: (entry.at, entry.id), reverse=True)


def _text_of(entry: AuditEntry) -> str:
    return f"{entry.who} {entry.action} {entry.target}".casefold()


def _cut(text: str, most: int) -> str:
    text = on_one_line(printable(text))
    return text if len(text) <= most else f"{text[: most - 3]}..."
