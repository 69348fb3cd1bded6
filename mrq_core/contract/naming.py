"""Valid names of queues and times of jobs, the meaning of a queue's name, and lists of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.plain import has_type, is_utf8, number_of, text_of
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import InvalidValue, shown, shown_error, without_controls
from mrq_core.ids import is_id

_QUEUE_NAME_MAX = 200
BEHIND_NAMES = "\U0010ffff" * (_QUEUE_NAME_MAX + 1)
"""Added to a prefix, this is greater than every name of a queue with the prefix."""
_LOG_CURSOR = re.compile(r"(-1|\d{1,18})\.(-1|\d{1,18})\Z", re.ASCII)
MAX_SECONDS = 1e9
"""The longest accepted duration, about thirty years. Longer durations do not fit into a datetime."""


class RawKind(StrEnum):
    """The kinds of raw queues: the suffixes of their root names, longest first."""

    TIMED_SET = "_timed_set"
    SORTED_SET = "_sorted_set"
    SET = "_set"
    LIST = "_raw"


_RAW_SUFFIXES = tuple(RawKind)


def raw_kind(queue: str) -> RawKind | None:
    """The kind of raw queue that the name denotes. None: a regular queue of jobs."""
    root = queue.partition("/")[0]
    if not root.endswith(_RAW_SUFFIXES):  # nearly all names
        return None
    kind = next(kind for kind in RawKind if root.endswith(kind))
    return None if root == kind else kind


_REVERSE = "_reverse"


def in_order(name: str) -> tuple[str, bool]:
    """The name of the queue that a worker serves under this name, and whether it serves the newest jobs
    first: ``default_reverse`` is the queue ``default`` as a pile."""
    queue = name.removesuffix(_REVERSE)
    return (queue, True) if queue and queue != name else (name, False)


def is_tree(name: str) -> bool:
    """Whether the name denotes a tree: all queues whose names begin with it, and the queue with this name."""
    return name.endswith("/")


def is_in(queue: str, name: str) -> bool:
    """Whether a queue is the named queue, or belongs to the named tree."""
    return queue == name or (is_tree(name) and queue.startswith(name))


def is_covered(queue: str, names: Collection[str]) -> bool:
    """Whether the queue is in any of these queues and trees.

    Grows with the depth of the queue's name, and not with the number of names where these are a set."""
    if not names:
        return False
    return queue in names or any(
        queue[: index + 1] in names for index, letter in enumerate(queue) if letter == "/"
    )


def is_task_in(path: str, patterns: Collection[str]) -> bool:
    """Whether any of these patterns names the task: its path, or ``shop.*`` for all tasks whose paths begin
    with ``shop.``.

    Grows with the depth of the path, and not with the number of patterns where these are a set."""
    return path in patterns or any(
        path[: index + 1] + "*" in patterns for index, letter in enumerate(path) if letter == "."
    )


def check_queue_name(name: object) -> str:
    """Returns the name of a queue, or of a tree, as plain text. Raises InvalidValue for an invalid name.

    A name is any text of 1 to 200 characters without NUL, which environments and SQLite's JSON cannot hold.
    """
    text = text_of(name)
    if not text or len(text) > _QUEUE_NAME_MAX:
        raise InvalidValue(
            f"queue is {shown(name)}: expected a name of 1 to {_QUEUE_NAME_MAX} characters", path="queue"
        )
    if "\0" in text or not is_utf8(text):
        raise InvalidValue(
            f"queue is {shown(name)}: expected text that UTF-8 can hold, without NUL characters",
            path="queue",
        )
    return text


_QUOTED = re.compile(r'"((?:[^"]|"")*)"|' + r"'((?:[^']|'')*)'")
_BLANK = re.compile(r"\s*")


def names_in(text: str, *, by_spaces: bool = False) -> tuple[str, ...]:
    """The names in a list, which commas separate, and spaces too with `by_spaces`.

    A name in double or single quotes may contain both; a doubled quote inside stands for one. Spaces around a
    name are dropped, and with `by_spaces` empty items too. Raises InvalidValue for a quote without its end.
    """
    separator = re.compile(r"[\s,]" if by_spaces else ",")
    names: list[str] = []
    position = _after(text, 0, with_commas=by_spaces)
    while position < len(text) or not by_spaces:
        if text[position : position + 1] in ("'", '"'):
            name, position = _quoted_name(text, position, by_spaces=by_spaces)
        else:
            found = separator.search(text, position)
            end = len(text) if found is None else found.start()
            name, position = text[position:end].rstrip(), end
        names.append(name)
        position = _after(text, position, with_commas=by_spaces)
        if not by_spaces:
            if position == len(text):
                break
            position = _after(text, position + 1, with_commas=False)
    return tuple(names)


def _after(text: str, position: int, *, with_commas: bool) -> int:
    """The first position behind spaces, and behind commas too if asked."""
    while position < len(text) and (text[position].isspace() or (with_commas and text[position] == ",")):
        position += 1
    return position


def _quoted_name(text: str, position: int, *, by_spaces: bool) -> tuple[str, int]:
    """The name in quotes at this position, and the position after it."""
    quote, found = text[position], _QUOTED.match(text, position)
    if found is None:
        raise InvalidValue(
            f"the list {shown(text)} has a name that begins with {quote} and does not end with it: "
            "expected the same quote at its end",
            path="queue",
        )
    end = found.end()
    blank = _BLANK.match(text, end)
    after = end if blank is None else blank.end()
    is_over = after == len(text) or text[after] == "," or (by_spaces and after > end)
    if not is_over:
        raise InvalidValue(
            f"the list {shown(text)} has {shown(text[end : end + 20])} after a name in quotes: "
            "expected a comma" + (" or a space" if by_spaces else ""),
            path="queue",
        )
    return (found[1] if quote == '"' else found[2]).replace(quote * 2, quote), end


def quoted_name(name: str) -> str:
    """The name as an item of a list, in quotes if it needs them."""
    is_plain = name and name[0] not in "\"'" and "," not in name and not any(map(str.isspace, name))
    return name if is_plain else '"' + name.replace('"', '""') + '"'


def shown_names(names: Iterable[str]) -> str:
    """The names as a list for people, in one line: control characters become escapes."""
    text = without_controls(", ".join(map(quoted_name, names)))
    return text.replace("\n", "\\n").replace("\t", "\\t")


def check_raw_queue_name(name: object) -> tuple[str, RawKind]:
    """Returns the name of a raw queue as plain text, and its kind. Raises InvalidValue for another name."""
    name = check_queue_name(name)
    kind = raw_kind(name)
    if kind is None:
        raise InvalidValue(
            f"queue is {shown(name)}, which does not name a raw queue: expected a root that ends with one of "
            f"{', '.join(RawKind)}",
            path="queue",
        )
    return name, kind


def check_served_name(name: object) -> str:
    """Returns the name of the queue or tree that workers serve under this name, such as ``mail`` for
    ``mail_reverse``. Raises InvalidValue."""
    return in_order(check_queue_name(name))[0]


def check_job_queue_name(name: object) -> str:
    """Returns the name of a queue of jobs as plain text, without ``_reverse``. Raises InvalidValue, also for
    a raw queue."""
    name = check_served_name(name)
    kind = raw_kind(name)
    if kind is not None:
        raise InvalidValue(
            f"queue is {shown(name)}, and a name that ends with {kind} is a raw queue, which holds "
            "parameters and no jobs: use another name",
            path="queue",
        )
    return name


def check_page_cursor(cursor: str | None) -> None:
    """Raises InvalidValue unless this is the cursor of a page of jobs: the id of its last job."""
    if cursor is not None and not is_id(cursor):
        raise InvalidValue(f"cursor is {shown(cursor)}: expected one that came with a page", path="cursor")


def log_position(cursor: str | None) -> tuple[int, int]:
    """The attempt and seq of the last line before the cursor of a log; -1 and -1 for the beginning.

    Raises InvalidValue."""
    if cursor is None:
        return -1, -1
    found = _LOG_CURSOR.match(cursor)
    if found is None:
        raise InvalidValue(
            f"cursor is {shown(cursor)}: expected one that came with a page of this log", path="cursor"
        )
    return int(found[1]), int(found[2])


def check_times(delay: object, at: object) -> datetime | None:
    """Returns `at` in UTC, to the millisecond. Raises InvalidValue unless at most one of delay and at is
    given, with a valid value."""
    if delay is not None and at is not None:
        raise InvalidValue("delay and at are both given: expected one of them", path="at")
    seconds = 0 if delay is None else number_of(delay)
    if seconds is None or not 0 <= seconds <= MAX_SECONDS:
        raise InvalidValue(
            f"delay is {shown(delay)}: expected seconds, from 0 to {MAX_SECONDS:.0e}", path="delay"
        )
    return None if at is None else check_time(at, "at")


def check_time(moment: object, name: str) -> datetime:
    """Returns an aware time in UTC, to the millisecond. Raises InvalidValue, which calls the time `name`."""
    if not has_type(moment, datetime):
        raise InvalidValue(f"{name} is {shown(moment)}: expected a datetime with a timezone", path=name)
    try:
        has_zone = moment.utcoffset() is not None
        utc = from_ms(to_ms(moment)) if has_zone else None
    except Exception as error:  # code of a tzinfo, or of a subclass of datetime
        if raised_by_handler(error) is not None:
            raise
        raise InvalidValue(
            f"{name} is {shown(moment)}, which has no time in UTC from the year 1 to 9999 "
            f"({shown_error(error)}): expected an aware datetime",
            path=name,
        ) from error
    if utc is None:
        raise InvalidValue(
            f"{name} is {shown(moment)}, without a timezone: expected an aware datetime, such as "
            "datetime.now(timezone.utc) + timedelta(hours=1)",
            path=name,
        )
    return utc
