"""Public names are built from the words of the glossary, which explains each term in one sentence."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import NamedTuple

import pytest

import mrq_core
from mrq_core import contract
from mrq_core.contract.broker import Broker
from tests.docs.pages import DOCS

PLAIN_WORDS = {"new", "run"}
"""Words of names in their everyday meaning."""

OTHER_NAMES = {
    "ClaimRef": "a short reference to a claim, which is in every batch of a worker",
    "MrqError": "the root of the errors, named after the project",
    "Order": "the everyday word for the order of a list",
    "RawItem": "a parameter of a raw queue with its score; RawParameters is the interface of all of them",
    "RunBlocking": "the type of a function that runs blocking work, named like its argument",
    "StateItem": "a value of shared state with its name and version",
    "configure": "the usual word for setting up a library",
    "hookimpl": "pluggy's name for the mark of an implementation",
    "spawn": "gevent's name for starting a greenlet",
    "subpool_map": "MRQ 0.9's name",
}
"""Public names that are not built from the words of the glossary, each with the reason. Only shrinks."""
MOST_OTHER_NAMES = 10

_ROW = re.compile(r"^\| (?P<term>[^|]+) \| (?P<meaning>[^|]+) \|$", re.MULTILINE)
_HEADS = {("term", "meaning"), ("operation", "meaning"), ("---", "---")}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class Term(NamedTuple):
    """A row of the glossary. An operation stands in backticks."""

    term: str
    meaning: str

    @property
    def is_operation(self) -> bool:
        return self.term.startswith("`")

    def words(self) -> list[str]:
        return re.findall(r"[a-z]+", self.term)


def glossary() -> list[Term]:
    rows = [Term(row["term"], row["meaning"]) for row in _ROW.finditer((DOCS / "glossary.md").read_text())]
    return [row for row in rows if (row.term, row.meaning) not in _HEADS]


def public_names() -> set[str]:
    names = set(mrq_core.__all__)
    for info in pkgutil.iter_modules(contract.__path__):
        module = importlib.import_module(f"{contract.__name__}.{info.name}")
        names |= {
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
    return names


def operations() -> list[str]:
    values = {"is_shared", "location", "supports_denied_tasks", "has_separate_entries"}
    return [name for name in dir(Broker) if not name.startswith("_") and name not in values]


def forms(word: str) -> set[str]:
    """The word, and the words of which it may be the plural or the past tense."""
    found = {word, word.removesuffix("s"), word.removesuffix("d"), word.removesuffix("ed")}
    return found | {re.sub("(ies|ied)$", "y", word)}


def unknown_words(name: str, known: set[str]) -> list[str]:
    return [word for word in map(str.lower, _WORD.findall(name)) if not forms(word) & known]


def glossary_words() -> set[str]:
    return {word for term in glossary() for word in term.words()}


@pytest.fixture(scope="module")
def known() -> set[str]:
    return PLAIN_WORDS | glossary_words()


def test_every_public_name_is_built_from_the_words_of_the_glossary(known: set[str]) -> None:
    unknown = {name: unknown_words(name, known) for name in public_names() - OTHER_NAMES.keys()}
    assert {name: words for name, words in unknown.items() if words} == {}


def test_the_list_of_other_names_only_shrinks(known: set[str]) -> None:
    assert OTHER_NAMES.keys() - public_names() == set()
    assert [name for name in OTHER_NAMES if not unknown_words(name, known)] == []
    assert all(OTHER_NAMES.values())
    assert len(OTHER_NAMES) == MOST_OTHER_NAMES


def test_every_operation_of_a_broker_has_an_entry() -> None:
    described = [term.term for term in glossary() if term.is_operation]
    assert sorted(described) == sorted(f"`{name}`" for name in operations())


def test_every_term_has_one_meaning_in_one_sentence() -> None:
    terms = glossary()
    assert len(terms) > 100
    for term in terms:
        assert re.fullmatch(r"[A-Z][^.]*(?:\.[^\s.][^.]*)*\.", term.meaning), term
    names = [term.term for term in terms]
    assert sorted(names) == sorted(set(names))


def test_every_plain_word_is_needed() -> None:
    words = glossary_words()
    assert {word for name in public_names() for word in unknown_words(name, words)} >= PLAIN_WORDS


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("ClaimedEntries", []),
        ("JobPlace", ["place"]),
        ("get_current_turn", ["turn"]),
        ("HTTPJob", ["http"]),
        ("AppliedMetrics", []),
    ],
)
def test_an_unknown_word_in_a_name_is_noticed(name: str, unknown: list[str], known: set[str]) -> None:
    assert unknown_words(name, known) == unknown
