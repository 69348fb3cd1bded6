"""The index of terms, and the totals of error groups and of types of exceptions, changed in one transaction
with the jobs.

The table has exactly the terms of `terms_of(record)` for each stored record. These totals are deleted when
they become zero, because new groups and types appear as long as code changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import Term, error_terms_of, terms_of

_ADD = "INSERT OR IGNORE INTO terms VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM terms WHERE name = ? AND value = ? AND job_id = ?"
_ADD_TOTAL = """
INSERT INTO totals VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_NONE_LEFT = "DELETE FROM totals WHERE kind = ? AND name = ? AND status = ? AND n = 0"


class TermChanges:
    """The changes of terms and of the totals of exceptions in one batch."""

    def __init__(self) -> None:
        self._added: list[tuple[str, str, str]] = []
        self._removed: list[tuple[str, str, str]] = []
        self._totals: dict[tuple[str, str, str], int] = {}
        """Changes of totals by kind, name and status."""

    def change(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Notes the change of a job. None: the job is not stored before, or not afterwards."""
        find_terms = terms_of
        if before is not None and after is not None and before.search_keys == after.search_keys:
            find_terms = error_terms_of
        old = frozenset[Term]() if before is None else find_terms(before)
        new = frozenset[Term]() if after is None else find_terms(after)
        if before is not None:
            self._removed += [(*term, before.id) for term in old - new]
            self._count(before, old, -1)
        if after is not None:
            self._added += [(*term, after.id) for term in new - old]
            self._count(after, new, 1)

    def write(self, connection: sqlite3.Connection) -> None:
        """Writes the changes."""
        connection.executemany(_REMOVE, self._removed)
        connection.executemany(_ADD, self._added)
        changed = [(*key, number) for key, number in self._totals.items() if number]
        connection.executemany(_ADD_TOTAL, changed)
        connection.executemany(_NONE_LEFT, [key for *key, number in changed if number < 0])

    def _count(self, record: JobRecord, terms: Iterable[Term], sign: int) -> None:
        names = [("group", value) for name, value in terms if name == "group"]
        if record.exception_type is not None:
            names.append(("type", record.exception_type))
        for kind, name in names:
            key = (kind, name, record.status.value)
            self._totals[key] = self._totals.get(key, 0) + sign
