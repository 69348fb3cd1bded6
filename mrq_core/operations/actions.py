"""Changes of many jobs: those named by id, or all that match a filter, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Action, Cancel, ChangeResult, JobFilter, Move, Remove, Requeue


def apply_to_ids(broker: Broker, ids: Sequence[str], action: Action) -> list[tuple[str, ChangeResult]]:
    """Acts on these jobs, each once, and tells for each what became of it."""
    unique = list(dict.fromkeys(ids))
    answers: list[tuple[str, ChangeResult]] = []
    for start in range(0, len(unique), CHUNK):
        chunk = unique[start : start + CHUNK]
        answers += zip(chunk, _apply(broker, chunk, action), strict=True)
    return answers


def apply_to_matching(
    broker: Broker,
    wanted: JobFilter,
    action: Action,
    *,
    on_step: Callable[[Counter[ChangeResult]], None] = lambda done: None,
) -> Counter[ChangeResult]:
    """Acts on all jobs that match, in bounded steps, and counts what became of them.

    `on_step` is called after each step with the counts so far. A step that fails keeps the changes of
    earlier steps; starting again is harmless.
    """
    done: Counter[ChangeResult] = Counter()
    cursor: str | None = None
    while True:
        applied = broker.apply(wanted, action, limit=CHUNK, cursor=cursor)
        done.update(applied.changes)
        on_step(done)
        cursor = applied.cursor
        if cursor is None:
            return done


def _apply(broker: Broker, ids: Sequence[str], action: Action) -> list[ChangeResult]:
    match action:
        case Requeue():
            return broker.requeue(ids, action)
        case Cancel():
            return broker.cancel(ids, action)
        case Move():
            return broker.move(ids, action)
        case Remove():
            return broker.remove(ids)
