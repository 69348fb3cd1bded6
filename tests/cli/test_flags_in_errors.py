"""Errors name the flags that were typed, instead of the keys that programs use."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Shell
from tests.support import Project

LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("jobs list --since x", "--since is 'x'"),
        ("jobs list --since 1h --until 2h", "--since ("),
        ("jobs list --key x", "--key is 'x'"),
        ("jobs list --params x", "--params is 'x'"),
        ("jobs list --cursor x", "--cursor is 'x'"),
        ("jobs list --status x", "'x' is no status"),
        ("jobs list --status ,", "--status has an empty value"),
        (f"jobs list --queue {LONG}", "--queue is 'xx"),
        ("jobs list --path ,", "--path has an empty value"),
        ("jobs cancel --worker ,", "--worker has an empty value"),
        ("jobs move --queue a --to b_raw", "--to is 'b_raw'"),
        ("jobs move --to b --queue ,", "--queue has an empty value"),
        (f"jobs requeue --queue a --to {LONG}", "--to is 'xx"),
        ("jobs edit ID --priority 9", "--priority is 9"),
        ("jobs edit ID --at x", "--at is 'x'"),
        ("jobs edit ID --in 1m --at 2090-01-01", "--in and --at are both given"),
        ("jobs edit ID --params x", "--params is not valid JSON"),
        (f"queues move a --to {LONG}", "--to is 'xx"),
        ("queues move a --to a", "--to is 'a', which is the queue itself"),
        ("queues move a_raw --to b", "queue is 'a_raw', a raw queue"),
        ("queues pause a --until 2001-01-01", "--until is 2001-01-01"),
        ("tasks pause tasks.greet --until 2001-01-01", "--until is 2001-01-01"),
        ("limits set k", "nothing to limit is named: expected --concurrency, --rate, or both"),
        ("limits set k --per 1m", "nothing to limit is named"),
        ("run tasks.greet --queue a_raw", "--queue is 'a_raw'"),
        (f"run tasks.greet --async --idempotency-key {LONG}", "--idempotency-key is 'xx"),
    ],
)
def test_errors_name_the_flags(words: str, expected: str, mrq: Shell, project: Project) -> None:
    job = project.queue("tasks.greet", {"name": "Anna"})
    said = mrq(*words.replace("ID", job).split(), code=2)
    assert said.err.removeprefix("mrq: ").startswith(expected)
