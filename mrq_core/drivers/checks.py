"""Findings of `Broker.check` that all drivers have."""

from __future__ import annotations

from collections.abc import Callable

from mrq_core.contract.queries import Finding
from mrq_core.errors import BrokerError


def tried_write(write: Callable[[], object], *, where: str) -> Finding:
    """Whether the broker takes changes. `write` changes nothing, and is refused where changes are. `where`:
    what takes them, such as "the server"."""
    try:
        write()
    except BrokerError as error:
        return Finding(
            level="error",
            subject="writes",
            message=str(error),
            advice="until then nothing can be enqueued, claimed or settled",
        )
    return Finding(level="ok", subject="writes", message=f"{where} takes changes")
