"""What may stand at a position of a query: names of parts, and values that the broker knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Totals
from mrq_core.contract.record import Status
from mrq_core.operations.explaining.reasons import jobs_text
from mrq_core.operations.queries.query_parts import (
    IS,
    LISTS,
    LONGEST,
    NAMES,
    Token,
    exact_value,
    quoted_value,
    tokens_in,
)
from mrq_core.operations.schedules import SCHEDULES
from mrq_core.operations.task_descriptions import published_tasks, searchable_names
from mrq_core.operations.workers import list_workers

MOST = 20
"""The most suggestions of one call."""
_DETAILS = {
    "status": "such as failed,timeout",
    "queue": "a queue, or a tree such as main/",
    "path": "a task, such as shop.tasks.*",
    "worker": "a worker, its NAME or its host",
    "error": "the type of the exception",
    "message": "words of the exception's message",
    "group": "an error group",
    "schedule": "the schedule that made the job",
    "id": "the id of a job",
    "key.": "a search key, such as key.user_id:42",
    "params.": "a param, such as params.user_id:42",
    "since": "queued since, such as 2h or 2026-01-02",
    "until": "queued until, such as 15m or 2026-01-02",
    "duration": "such as >5s",
    "is": ", ".join(IS),
}
_EXAMPLES = {
    "since": (("15m", "the last 15 minutes"), ("1h", "the last hour"), ("24h", "the last day"), ("7d", "")),
    "until": (("15m", "before the last 15 minutes"), ("1h", "before the last hour"), ("24h", "")),
    "duration": ((">1s", ""), (">10s", ""), (">1m", ""), (">10m", ""), ("<100ms", "")),
}


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A text that may replace the characters from `start` to `end` of the query. `kind` is ``name`` for the
    name of a part, else that name; `detail` is a remark, such as the number of jobs."""

    text: str
    kind: str
    detail: str
    start: int
    end: int


def suggestions(broker: Broker, text: str, position: int | None = None) -> list[Suggestion]:
    """Up to 20 texts for the part at a position of the query, the likeliest first. Without a position: at its
    end.

    Reads totals, and no jobs: the cost grows with the number of queues, tasks, workers and error groups.
    Never refuses a text: an unknown part has no suggestions.
    """
    position = len(text) if position is None else max(0, min(position, len(text)))
    if len(text) > LONGEST:
        return []
    begun = _token_before(text[:position], position)
    ends = [token.end for token in tokens_in(text) if token.start == begun.start]
    end = max(ends[0] if ends else position, position)
    made: Iterable[tuple[str, str, str]]
    if begun.colon < 0:
        made = _of_word(broker, begun.text)
    else:
        made = ((value, begun.name, detail) for value, detail in _of_value(broker, text, begun))
    found: dict[str, Suggestion] = {}
    for suggested, kind, detail in made:
        if suggested not in found:
            found[suggested] = Suggestion(
                text=suggested, kind=kind, detail=detail, start=begun.start, end=end
            )
            if len(found) == MOST:
                break
    return list(found.values())


def _token_before(text: str, position: int) -> Token:
    """The part that is being written at the end of the text; an empty one behind a space."""
    tokens = list(tokens_in(text))
    if tokens and tokens[-1].end == position:
        return tokens[-1]
    return Token(text="", start=position, end=position)


def _of_word(broker: Broker, word: str) -> Iterator[tuple[str, str, str]]:
    """Names that begin with the word, and then values of names that do."""
    for name in NAMES:
        if name.startswith(word.lower()):
            yield (name if name.endswith(".") else f"{name}:"), "name", _DETAILS[name]
    if word.lower().startswith(("key.", "params.")):
        yield from _of_keys(broker, word)
    elif word:
        totals = broker.totals()
        for name in ("status", "is", "queue", "path", "error"):
            for value, detail in _matching(word, _known(broker, name, totals)):
                yield f"{name}:{exact_value(value)}", name, detail


def _of_value(broker: Broker, text: str, token: Token) -> Iterator[tuple[str, str]]:
    """Values of the part whose name is written already. In a list, values of its last item."""
    name = token.name
    items = token.items() if name in LISTS else [token.text[token.colon + 1 :]]
    exact = token.exact_items()
    before = "".join(f"{quoted_value(item, force=at in exact)}," for at, item in enumerate(items[:-1]))
    known = _known(broker, name, broker.totals()) if name in _DETAILS else ()
    for value, detail in _matching(items[-1], known):
        if value not in items[:-1]:
            yield f"{name}:{before}{exact_value(value)}", detail


def _matching(word: str, known: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The values that begin with the word, and then those that contain it."""
    wanted = word.casefold()
    rest = []
    for value, detail in known:
        folded = value.casefold()
        if folded.startswith(wanted):
            yield value, detail
        elif wanted in folded:
            rest.append((value, detail))
    yield from rest


def _known(broker: Broker, name: str, totals: Totals) -> Iterable[tuple[str, str]]:
    """The known values of a part with a remark on each, the most frequent first."""
    match name:
        case "status":
            numbers = totals.by_status()
            return [(str(status), jobs_text(numbers.get(status, 0))) for status in Status]
        case "is":
            return [(value, "") for value in IS]
        case "queue":
            return _numbered({**_trees(totals), **_sums(totals.by_queue)})
        case "path":
            return _numbered(_sums(totals.by_path))
        case "group":
            return _numbered(_sums(totals.by_error_group))
        case "error":
            return _numbered(_by_type(totals))
        case "worker":
            return [(report.name, report.status) for report in list_workers(broker)]
        case "schedule":
            return [(item.name, "") for item in broker.state.list(SCHEDULES)]
    return _EXAMPLES.get(name, ())


def _sums(totals: Mapping[str, Mapping[Status, int]]) -> dict[str, int]:
    return {name: sum(numbers.values()) for name, numbers in totals.items()}


def _trees(totals: Totals) -> dict[str, int]:
    """The numbers of jobs in the outermost trees."""
    trees: dict[str, int] = {}
    for queue, numbers in totals.by_queue.items():
        root, separator, _ = queue.partition("/")
        if separator:
            trees[f"{root}/"] = trees.get(f"{root}/", 0) + sum(numbers.values())
    return trees


def _by_type(totals: Totals) -> dict[str, int]:
    """The numbers of jobs by exception type, which is the second word of an error group."""
    types: dict[str, int] = {}
    for group, numbers in totals.by_error_group.items():
        words = group.split(" ")
        if len(words) > 1:
            types[words[1]] = types.get(words[1], 0) + sum(numbers.values())
    return types


def _numbered(numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    ordered = sorted(numbers, key=lambda name: (-numbers[name], name))
    return [(name, jobs_text(numbers[name])) for name in ordered]


def _of_keys(broker: Broker, word: str) -> Iterator[tuple[str, str, str]]:
    """Names of search keys, or of arguments, that workers have published."""
    stem, _, begun = word.partition(".")
    paths: dict[str, list[str]] = {}
    for path, task in published_tasks(broker).items():
        if stem.lower() == "key":
            names = sorted(searchable_names(task))
        else:
            names = [argument.name for argument in task.arguments or ()]
        for name in names:
            paths.setdefault(name, []).append(path)
    for name, detail in _matching(begun, ((name, _paths_text(paths[name])) for name in sorted(paths))):
        yield f"{stem.lower()}.{quoted_value(name)}:", stem.lower(), detail


def _paths_text(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
