"""Log lines on a terminal."""

from __future__ import annotations

import contextlib
import io
import logging

import pytest

from mrq_core.running.logs import set_up_logging


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(logging.root, "handlers", [])
    return io.StringIO()


def log_to(terminal: io.StringIO, format: str) -> None:
    with contextlib.redirect_stderr(terminal):
        set_up_logging("INFO", format, quiet=False)


def test_control_characters_of_messages_and_tracebacks_are_escaped_and_those_of_the_format_stay(
    terminal: io.StringIO,
) -> None:
    log_to(terminal, "\x1b[32m%(message)s\x1b[0m")
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError:
        logging.getLogger("mrq.test").exception("cleared \x1b[2J\x9b2J \u202e %s", "\r")
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[32mcleared \\x1b[2J\\x9b2J \\u202e \\x0d\x1b[0m\n")
    assert "ValueError: \\x1b]0;title\\x07" in shown


def test_other_handlers_get_the_traceback_as_it_was(terminal: io.StringIO) -> None:
    log_to(terminal, "%(message)s")
    other = io.StringIO()
    logging.root.addHandler(logging.StreamHandler(other))
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("mrq.test").exception("broken")
    assert "ValueError: \\x1b[2J" in terminal.getvalue()
    assert "ValueError: \x1b[2J" in other.getvalue()
