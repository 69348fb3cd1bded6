"""The arguments of raw queues: checked before a driver sees them, so that each broker refuses the same values
with the same words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

from msgspec.structs import replace

from mrq_core.contract.messages import CHUNK, RawClaim, RawItem
from mrq_core.contract.naming import MAX_SECONDS, RawKind
from mrq_core.contract.plain import has_type, is_utf8, number_of, text_of, whole_of
from mrq_core.contract.raw import RawParameters
from mrq_core.contract.record import JobRecord
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.contract.values import check_job_id
from mrq_core.errors import InvalidValue, shown, shown_error

Kind = TypeVar("Kind", bound=type[RawParameters])

_OFFSET_MOST = 10**12
_TIME_LEAST, _TIME_MOST = -62_135_596_800, 253_402_300_799
"""The Unix times of the years 1 to 9999."""


def checks_raw_arguments(kind: Kind) -> Kind:
    """Decorates a driver's raw queue: its methods get plain values, or raise InvalidValue before the driver
    does anything."""
    for name, check in _CHECKS.items():
        if name in vars(kind):
            setattr(kind, name, _checking(vars(kind)[name], check))
    return kind


def _checking(method: Callable[..., Any], check: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: RawParameters, *args: Any, **more: Any) -> Any:
        return method(self, *check(self, *args, **more))

    return call


# --- the methods, with their signatures ---------------------------------------------------------------


def push(queue: RawParameters, items: object) -> tuple[list[RawItem]]:
    """Plain parameters and scores."""
    checked = []
    for item in _listed(items, "items", "RawItem"):
        if not has_type(item, RawItem):
            raise InvalidValue(f"items has {shown(item)}: expected a RawItem", path="items")
        checked.append(RawItem(param=_param(item.param), score=_score(item.score, queue.kind)))
    return (checked,)


def claim(
    queue: RawParameters, limit: object, lease: object, worker: object, pushback: object = None
) -> tuple[int, float, str, float | None]:
    """A limit, a lease and a pushback that the queue can have."""
    name = text_of(worker)
    if name is None or not is_utf8(name):
        raise InvalidValue(f"worker is {shown(worker)}: expected the name of a worker", path="worker")
    if pushback is not None and queue.kind is not RawKind.TIMED_SET:
        raise InvalidValue(
            f"pushback is {shown(pushback)} for {queue.name!r}: expected it for timed sets only",
            path="pushback",
        )
    again = None if pushback is None else _seconds(pushback, "pushback")
    return _whole(limit, "limit", 0, CHUNK), _seconds(lease, "lease"), name, again


def renew(queue: RawParameters, claims: object, lease: object) -> tuple[list[RawClaim], float]:
    """Whole claims, and a lease."""
    return [_claim(one) for one in _listed(claims, "claims", "RawClaim")], _seconds(lease, "lease")


def settle(
    queue: RawParameters, claims: object, due_again: object
) -> tuple[list[RawClaim], list[float | None]]:
    """Whole claims, and as many delays."""
    checked = [_claim(one) for one in _listed(claims, "claims", "RawClaim")]
    delays = _listed(due_again, "due_again", "seconds or None")
    if len(delays) != len(checked):
        raise InvalidValue(
            f"due_again has {len(delays)} items for {len(checked)} claims: expected one for each claim",
            path="due_again",
        )
    return checked, [None if delay is None else _seconds(delay, "due_again") for delay in delays]


def admit(
    queue: RawParameters, claims: object, lease: object
) -> tuple[list[tuple[RawClaim, JobRecord]], float]:
    """Whole claims with their records, and a lease."""
    checked = []
    for pair in _listed(claims, "claims", "pairs of RawClaim and JobRecord"):
        if not has_type(pair, tuple) or len(pair) != 2 or not has_type(pair[1], JobRecord):
            raise InvalidValue(
                f"claims has {shown(pair)}: expected a pair of RawClaim and JobRecord", path="claims"
            )
        checked.append((_claim(pair[0]), pair[1]))
    return checked, _seconds(lease, "lease")


def peek(queue: RawParameters, limit: object, offset: object = 0) -> tuple[int, int]:
    """A part of the queue of bounded size."""
    return _whole(limit, "limit", 0, CHUNK), _whole(offset, "offset", 0, _OFFSET_MOST)


def remove(queue: RawParameters, params: object) -> tuple[list[str]]:
    """Plain parameters."""
    return ([_param(param) for param in _listed(params, "params", "text")],)


def histogram(queue: RawParameters, start: object, stop: object, buckets: object) -> tuple[float, float, int]:
    """A range that can be divided."""
    first, last, number = _finite(start, "start"), _finite(stop, "stop"), _whole(buckets, "buckets", 1, CHUNK)
    if not math.isfinite((last - first) * number):
        raise InvalidValue(
            f"start is {first!r} and stop is {last!r}: expected numbers that are not so far apart",
            path="stop",
        )
    return first, last, number


_CHECKS: Mapping[str, Callable[..., tuple[Any, ...]]] = {
    check.__name__: check for check in (push, claim, renew, settle, admit, peek, remove, histogram)
}


# --- values -------------------------------------------------------------------------------------------


def _listed(values: Any, name: str, what: str) -> Sequence[Any]:
    """The items of an iterable."""
    hint = ""
    try:
        if not any(has_type(values, kind) for kind in (str, bytes, Mapping)):
            return list(values)
    except TypeError:  # not iterable
        pass
    except Exception as error:  # code of the value
        if raised_by_handler(error) is not None:
            raise
        hint = f"; its __iter__ raised {shown_error(error)}"
    raise InvalidValue(f"{name} is {shown(values)}: expected a list of {what}{hint}", path=name)


def _claim(value: object) -> RawClaim:
    if not has_type(value, RawClaim):
        raise InvalidValue(f"claims has {shown(value)}: expected a RawClaim", path="claims")
    token = text_of(value.token)
    if token is None or not is_utf8(token):
        raise InvalidValue(f"token is {shown(value.token)}: expected that of a claim", path="token")
    return replace(value, param=_param(value.param), job_id=check_job_id(value.job_id), token=token)


def _param(value: object) -> str:
    text = text_of(value)
    if text is None or not is_utf8(text):
        raise InvalidValue(f"param is {shown(value)}: expected text that UTF-8 can hold", path="param")
    return text


def _score(value: object, kind: RawKind) -> float | None:
    if value is None:
        return None
    score = _finite(value, "score")
    if kind is RawKind.TIMED_SET and not _TIME_LEAST <= score <= _TIME_MOST:
        raise InvalidValue(
            f"score is {shown(value)}: expected a Unix time in seconds, of the years 1 to 9999, because the "
            "queue is a timed set",
            path="score",
        )
    return score


def _finite(value: object, name: str) -> float:
    number = number_of(value)
    try:
        if number is not None and math.isfinite(number):
            return float(number)
    except OverflowError:  # an int that no float holds
        pass
    raise InvalidValue(f"{name} is {shown(value)}: expected a finite number", path=name)


def _seconds(value: object, name: str) -> float:
    number = number_of(value)
    if number is None or not 0 <= number <= MAX_SECONDS:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected seconds, from 0 to {MAX_SECONDS:.0e}", path=name
        )
    return float(number)


def _whole(value: object, name: str, least: int, most: int) -> int:
    number = whole_of(value)
    if number is None or not least <= number <= most:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected a whole number from {least} to {most}", path=name
        )
    return number
