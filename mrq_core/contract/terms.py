"""The terms of a job: what an index finds it by, beside its columns.

A term is a value under a name. A job has these terms:

- `type`: the full name of its exception's type, and the short name after the last dot
- `word`: each of the first words of the exception's message, case-folded
- `group`: its error group
- `key <name>`: the value of each of its search keys, as JSON

The terms of an exception are those of the latest attempt: a claim, a requeue and a cancel remove them. A
driver keeps exactly the terms that `terms_of` names for the current record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from mrq_core.contract.codec import JsonObject, JsonValue, encode, storable
from mrq_core.contract.plain import is_mapping
from mrq_core.errors import InvalidValue, shown

if TYPE_CHECKING:
    from mrq_core.contract.queries import JobFilter
    from mrq_core.contract.record import JobRecord

MOST_KEYS = 8
"""The largest number of search keys of a job."""
MOST_WORDS = 20
"""The number of different words of a message that are terms."""
MESSAGE_LIMIT = 1000
"""Characters of an exception's message that a record keeps."""
_LONGEST = 200
"""Characters of a term's value. A longer value is represented by its start and a hash of the whole."""
_LARGEST = 65_536
"""Bytes of all search keys of a job."""
_BYTES_MOST = 12
"""The most bytes of a character in JSON."""
_WORD = re.compile(r"\w+")


class Term(NamedTuple):
    """A value under a name, neither of which contains the character NUL."""

    name: str
    value: str


Alternatives = frozenset[Term]
"""Terms of which a job needs at least one."""


def words_of(text: str) -> list[str]:
    """The first different words of the text, case-folded."""
    words: dict[str, None] = {}
    for match in _WORD.finditer(text.casefold()):
        words[_bounded(match[0])] = None
        if len(words) == MOST_WORDS:
            break
    return list(words)


def error_group(path: str, exception_type: str, frame: str = "") -> str:
    """The group of an error: the task, the type of the exception, and the frame of the user's code that
    raised the exception, such as ``billing:Invoice.charge``."""
    return _bounded(" ".join(filter(None, (path, exception_type, frame))))


def key_term(name: str, value: JsonValue) -> Term:
    """The term of a search key. A number and a text are different values: ``42``, ``"42"``."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # 1 and 1.0 are equal, as in `codec.is_equal`
    return Term(f"key {name}", _bounded(encode(value).decode()))


def check_keys(keys: object) -> JsonObject:
    """Returns the search keys of a job as plain values. Raises InvalidValue."""
    if not is_mapping(keys):
        raise InvalidValue(
            f"search_keys is {shown(keys)}: expected a dict of names and values", path="search_keys"
        )
    checked = storable(keys, name="search_keys", max_size=_LARGEST)
    assert isinstance(checked, dict)
    if len(keys) > MOST_KEYS:
        raise InvalidValue(
            f"a job has {len(keys)} search keys: expected up to {MOST_KEYS}", path="search_keys"
        )
    for name, value in checked.items():
        if not name or len(name) > _LONGEST or not name.isprintable():
            raise InvalidValue(
                f"{shown(name)} is the name of a search key: expected 1 to {_LONGEST} printable characters",
                path="search_keys",
            )
        if value is None or isinstance(value, list | dict):
            raise InvalidValue(
                f"the search key {shown(name)} has the value {shown(value)}: expected a text, a number, "
                "true or false",
                path="search_keys",
            )
    return checked


def keys_in(params: JsonObject, names: Iterable[str]) -> JsonObject:
    """The search keys of a job with these params. Names of missing values, lists and dicts are left out.

    A name with dots leads to a value inside dicts. A key that itself has dots comes first. Raises
    ValueTooLarge for keys of more than 65,536 bytes."""
    keys: JsonObject = {}
    for name in names:
        value = value_at(params, name)
        if value is not None and not isinstance(value, list | dict):
            keys[name] = value
    if sum(len(value) for value in keys.values() if isinstance(value, str)) > _LARGEST // _BYTES_MOST:
        check_keys(keys)
    return keys


def value_at(values: JsonValue, name: str) -> JsonValue:
    """The value under a name, inside dicts where the name has dots. None: there is no value."""
    if not isinstance(values, dict):
        return None
    if name in values:
        return values[name]
    end = name.find(".")
    while end != -1:  # each way to split the name, the shortest first
        found = value_at(values.get(name[:end]), name[end + 1 :])
        if found is not None:
            return found
        end = name.find(".", end + 1)
    return None


def error_terms_of(record: JobRecord) -> frozenset[Term]:
    """The terms of the exception of the latest attempt."""
    return frozenset(_error_terms(record)) if record.exception_type is not None else frozenset()


def key_terms_of(record: JobRecord) -> frozenset[Term]:
    """The terms of the search keys, which stay as long as the record exists."""
    return frozenset(key_term(name, value) for name, value in record.search_keys.items())


def terms_of(record: JobRecord) -> frozenset[Term]:
    """All terms of the record."""
    if record.exception_type is None and not record.search_keys:
        return frozenset()
    return error_terms_of(record) | key_terms_of(record)


def wanted_terms(wanted: JobFilter) -> list[Alternatives]:
    """The terms that a filter asks for. A job matches this part of the filter if it has one of each."""
    parts = [frozenset({Term("word", word)}) for word in wanted.error_words]
    if wanted.exception_types:
        parts.append(frozenset(Term("type", _bounded(name)) for name in wanted.exception_types))
    if wanted.error_groups:
        parts.append(frozenset(Term("group", _bounded(group)) for group in wanted.error_groups))
    parts += [frozenset({key_term(name, value)}) for name, value in wanted.search_keys.items()]
    return parts


def has_terms(record: JobRecord, parts: list[Alternatives]) -> bool:
    """Whether the record has one term of each part."""
    if not parts:
        return True
    terms = terms_of(record)
    return all(terms & part for part in parts)


def type_terms(exception_type: str) -> frozenset[Term]:
    """The terms of a type of exception: its full name and its short name."""
    names = (exception_type, exception_type.rpartition(".")[2])
    return frozenset(Term("type", _bounded(name)) for name in names)


def _error_terms(record: JobRecord) -> Iterator[Term]:
    yield from type_terms(record.exception_type or "")
    for word in words_of(record.exception_message or ""):
        yield Term("word", word)
    if record.error_group is not None:
        yield Term("group", _bounded(record.error_group))


def _bounded(text: str) -> str:
    """The text; a long one as its start and a hash, so that equal texts stay equal."""
    text = text.replace("\0", " ")
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=10).hexdigest()
    return f"{text[: _LONGEST - 21]}~{digest}"
