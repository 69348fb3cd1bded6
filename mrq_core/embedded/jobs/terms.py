"""The index of terms, and the totals of error groups, changed in one transaction with the jobs.

The table has exactly the terms of `terms_of(record)` for each stored record. A total of a group is deleted
when it becomes zero, because new groups appear for as long as code changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import Term, error_terms_of, terms_of

_ADD = "INSERT OR IGNORE INTO terms VALUES (?, ?, ?)"
_REMOVE = "DELETE FROM terms WHERE name = ? AND value = ? AND job_id = ?"
_ADD_TOTAL = """
INSERT INTO totals VALUES ('group', ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_NONE_LEFT = "DELETE FROM totals WHERE kind = 'group' AND name = ? AND status = ? AND n = 0"


class TermChanges:
    """The changes of terms and of the totals of groups in one batch."""

    def __init__(self) -> None:
        self._added: list[tuple[str, str, str]] = []
        self._removed: list[tuple[str, str, str]] = []
        self._groups: dict[tuple[str, str], int] = {}
        """Changes of totals by group and status."""

    def change(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Notes the change of a job. None: the job is not stored before, or not afterwards."""
        # A stored job keeps its search keys.
        find_terms = terms_of if before is None or after is None else error_terms_of
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
        changed = [(*key, number) for key, number in self._groups.items() if number]
        connection.executemany(_ADD_TOTAL, changed)
        connection.executemany(
            _NONE_LEFT, [(group, status) for group, status, number in changed if number < 0]
        )

    def _count(self, record: JobRecord, terms: Iterable[Term], sign: int) -> None:
        for name, group in terms:
            if name == "group":
                key = (group, record.status.value)
                self._groups[key] = self._groups.get(key, 0) + sign
