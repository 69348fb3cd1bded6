"""What names of queues and times of jobs have to look like."""

from __future__ import annotations

from datetime import datetime

from mrq_core.errors import InvalidValue

_QUEUE_NAME_MAX = 200


def check_queue_name(name: object) -> None:
    if not isinstance(name, str) or not name or len(name) > _QUEUE_NAME_MAX:
        raise InvalidValue(
            f"queue is {name!r}: expected a name of 1 to {_QUEUE_NAME_MAX} characters", path="queue"
        )
    if name.endswith("/") or name.startswith("/") or "//" in name:
        raise InvalidValue(
            f"queue is {name!r}: expected a queue, such as 'main' or 'main/sub'; a name that ends with / "
            "stands for all subqueues, and jobs go to one of them",
            path="queue",
        )
    if not name.isprintable() or any(character in name for character in " ,"):
        raise InvalidValue(
            f"queue is {name!r}: expected printable characters without spaces and commas", path="queue"
        )


def check_times(delay: float | None, at: datetime | None) -> None:
    if delay is not None and at is not None:
        raise InvalidValue("delay and at are both given: expected one of them", path="at")
    if delay is not None and not 0 <= delay <= 10**9:
        raise InvalidValue(
            f"delay is {delay!r}: expected seconds, from 0 to a thousand million", path="delay"
        )
    if at is not None and at.tzinfo is None:
        raise InvalidValue(
            f"at is {at.isoformat()}, without a timezone: expected an aware datetime, such as "
            "datetime.now(timezone.utc) + timedelta(hours=1)",
            path="at",
        )
