"""Splits the text of a query into parts, as a search box of jobs has it.

A part is ``name:value``, or a free word. Spaces separate parts. Quotes and backslashes work as in a shell:
``"..."`` keeps spaces, with ``\\"`` and ``\\\\`` for themselves; ``'...'`` keeps every character. Wildcards
in quotes or behind a backslash stand for themselves. This module does no I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

import msgspec

from mrq_core.errors import InvalidQuery, shown
from mrq_core.ids import is_id

LONGEST = 4000
"""Characters of a query."""
MOST_PARTS = 50
IS = ("running", "waiting", "ended", "still-failing")
"""The values of ``is:``."""
NAMES = ("status", "queue", "path", "worker", "error", "message", "group", "schedule", "id", "key.",
         "params.", "since", "until", "duration", "is")  # fmt: skip
"""The names of parts. A name that ends with a dot takes the name of a value, such as ``key.user_id``."""
LISTS = frozenset({"status", "queue", "path", "worker", "error", "id", "is"})
"""Names whose value is a list that commas separate."""
PATTERNS = frozenset({"queue", "path", "worker"})
"""Names whose values may have wildcards."""
WILDCARDS = "*?"
_ONCE = frozenset({"since", "until"})
_SYNONYMS = {
    "task": "path",
    "state": "status",
    "exception": "error",
    "type": "error",
    "text": "message",
    "after": "since",
    "before": "until",
    "param": "params.",
    "time": "duration",
}
_SPECIAL = frozenset("\"'\\,:")


class QueryPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a query.

    `name` is empty for a free word. `values` has the items of a list, else one text, without quotes. `start`
    and `end` are indexes into the text that the part was split from. `is_quoted`: quotes mark the value as
    text, where it could be a number.
    """

    name: str
    values: tuple[str, ...]
    start: int
    end: int
    is_quoted: bool = False
    exact: frozenset[int] = frozenset()
    """The indexes of the values of queues, tasks and workers whose wildcards stand for themselves."""

    @property
    def value(self) -> str:
        """The values as one text, joined by commas."""
        return ",".join(self.values)

    @property
    def text(self) -> str:
        """The part in its canonical form."""
        value = ",".join(map(self._text_of, range(len(self.values))))
        if self.name:
            return f"{_quoted_name(self.name)}:{value}"
        return value if not value.startswith("-") else f'"{value}"'

    def _text_of(self, index: int) -> str:
        value = self.values[index]
        if self.name in PATTERNS and index not in self.exact and any(letter in value for letter in WILDCARDS):
            special = _SPECIAL | frozenset(filter(str.isspace, value))
            return "".join(f"\\{letter}" if letter in special else letter for letter in value)
        return quoted_value(value, force=self.is_quoted or index in self.exact)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """The characters of a part without quotes. `colon`: the index of the first colon outside quotes, or -1.
    `commas`: the indexes of the commas outside quotes. `is_open`: the part ends inside quotes."""

    text: str
    start: int
    end: int
    colon: int = -1
    commas: tuple[int, ...] = ()
    quotes: int = -1
    """The index at which the first quoted character stands."""
    literals: tuple[int, ...] = ()
    """The indexes of wildcards that stand for themselves."""
    is_open: bool = False

    @property
    def name(self) -> str:
        """The name before the colon. Empty: a free word."""
        return self.text[: self.colon] if self.colon >= 0 else ""

    def items(self) -> list[str]:
        """The texts between the commas behind the colon."""
        return [self.text[start:end] for start, end in self._spans()]

    def exact_items(self) -> frozenset[int]:
        """The indexes of the items that have wildcards which stand for themselves."""
        spans = enumerate(self._spans())
        return frozenset(i for i, (start, end) in spans if any(start <= at < end for at in self.literals))

    def _spans(self) -> list[tuple[int, int]]:
        commas = [index for index in self.commas if index > self.colon]
        starts = [self.colon + 1, *(index + 1 for index in commas)]
        return list(zip(starts, [*commas, len(self.text)], strict=True))


def tokens_in(text: str) -> Iterator[Token]:
    """The parts of a text as tokens; the last may end inside quotes."""
    index, length = 0, len(text)
    while True:
        while index < length and text[index].isspace():
            index += 1
        if index == length:
            return
        token = _token_at(text, index)
        yield token
        index = token.end


def _token_at(text: str, start: int) -> Token:
    characters: list[str] = []
    commas: list[int] = []
    literals: list[int] = []
    colon = quotes = -1
    quote, index = "", start
    while index < len(text):
        letter = text[index]
        if not quote and letter.isspace():
            break
        escaped = letter == "\\" and quote != "'" and index + 1 < len(text)
        if escaped and (not quote or text[index + 1] in '"\\'):
            index += 1
            if text[index] in WILDCARDS:
                literals.append(len(characters))
            characters.append(text[index])
        elif letter == quote:
            quote = ""
        elif not quote and letter in "\"'":
            quote = letter
            quotes = quotes if quotes >= 0 else len(characters)
        else:
            if not quote and letter == ":" and colon < 0:
                colon = len(characters)
            elif not quote and letter == ",":
                commas.append(len(characters))
            elif quote and letter in WILDCARDS:
                literals.append(len(characters))
            characters.append(letter)
        index += 1
    return Token(
        text="".join(characters),
        start=start,
        end=index,
        colon=colon,
        commas=tuple(commas),
        quotes=quotes,
        literals=tuple(literals),
        is_open=bool(quote),
    )


def split_query(text: str) -> list[QueryPart]:
    """The parts of a query. Raises InvalidQuery for an unknown name, a negation and a quote without its end;
    the values are not examined yet."""
    if len(text) > LONGEST:
        raise InvalidQuery(
            f"the query has {len(text):,} characters: expected at most {LONGEST:,}", part="", start=0, end=0
        )
    parts = [_part_of(text, token) for token in tokens_in(text)]
    if len(parts) > MOST_PARTS:
        part = parts[MOST_PARTS]
        raise query_error(part, f"the query has {len(parts)} parts: expected at most {MOST_PARTS}", text)
    for name in _ONCE:
        twice = [part for part in parts if part.name == name]
        if len(twice) > 1:
            raise query_error(twice[1], f"{name} is given twice: expected it once", text)
    return parts


def canonical(parts: Iterable[QueryPart]) -> tuple[str, tuple[QueryPart, ...]]:
    """The canonical text of the parts, and the parts with their indexes in it."""
    texts: list[str] = []
    placed: list[QueryPart] = []
    index = 0
    for part in parts:
        text = part.text
        placed.append(msgspec.structs.replace(part, start=index, end=index + len(text)))
        texts.append(text)
        index += len(text) + 1
    return " ".join(texts), tuple(placed)


def _part_of(text: str, token: Token) -> QueryPart:
    raw = text[token.start : token.end]
    part = QueryPart(name="", values=(token.text,), start=token.start, end=token.end)
    if token.is_open:
        raise query_error(
            part, f"{shown(raw)} has a quote without its end: expected the same quote again", text
        )
    if raw.startswith("-"):
        raise query_error(
            part,
            f"{shown(raw)} begins with -, and a query cannot exclude jobs: name what the jobs have instead, "
            "or put a word that begins with - in quotes",
            text,
        )
    if token.colon < 0:
        return msgspec.structs.replace(part, name="id" if is_id(token.text) else "")
    name = _known_name(token, part, text)
    values = tuple(token.items()) if name in LISTS else (token.text[token.colon + 1 :],)
    part = msgspec.structs.replace(part, name=name, values=values)
    if not all(values):
        raise query_error(part, f"{name} has an empty value: expected a value, or no part of that name", text)
    is_text = name.startswith(("key.", "params.")) and token.quotes == token.colon + 1
    exact = token.exact_items() if name in PATTERNS else frozenset()
    return msgspec.structs.replace(part, is_quoted=is_text, exact=exact)


def _known_name(token: Token, part: QueryPart, text: str) -> str:
    name = token.name
    if name in NAMES and not name.endswith("."):
        return name
    stem, dot, key = name.partition(".")
    if dot and key and f"{stem}." in NAMES:
        return name
    near = near_names(name)
    if stem in ("key", "params"):
        message = f"{shown(name)} names no value: expected the name of a value, such as {stem}.user_id:42"
    else:
        known = f"did you mean {' or '.join(near)}" if near else f"expected one of {', '.join(NAMES)}"
        message = f"{shown(name)} is no part of a query: {known}; a word with a colon needs quotes"
    raise query_error(part, message, text, near)


def near_names(name: str) -> tuple[str, ...]:
    """Names of parts that a wrong name may mean, the likeliest first."""
    if name.lower() in _SYNONYMS:
        return (_SYNONYMS[name.lower()],)
    return tuple(difflib.get_close_matches(name.lower(), NAMES, n=3))


def query_error(part: QueryPart, message: str, text: str, suggestions: tuple[str, ...] = ()) -> InvalidQuery:
    """The error of a part, with the position of the part in the text of the query."""
    return InvalidQuery(
        f"{message} (at character {part.start + 1})",
        part=part.name or text[part.start : part.end],
        start=part.start,
        end=part.end,
        suggestions=suggestions,
    )


def quoted_value(value: str, *, force: bool = False) -> str:
    """The value in quotes, if it needs them."""
    if not force and value and not any(letter.isspace() or letter in _SPECIAL for letter in value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def exact_value(name: str) -> str:
    """The name of a queue, task or worker as a value that means this name only."""
    return quoted_value(name, force=any(letter in name for letter in WILDCARDS))


def _quoted_name(name: str) -> str:
    stem, dot, key = name.partition(".")
    return f"{stem}{dot}{quoted_value(key)}" if dot else name
