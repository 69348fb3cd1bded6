"""Log lines on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from datetime import UTC, datetime

import pytest

from mrq_core.config.settings import Config
from mrq_core.running.log_handlers import LocklessHandler
from mrq_core.running.logs import set_up_logging

WORKER = Config().worker_name(os.getpid())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(logging.root, "handlers", [])
    return io.StringIO()


def log_to(terminal: io.StringIO, format: str) -> None:
    with contextlib.redirect_stderr(terminal):
        set_up_logging(Config(log_format=format))


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


def test_no_message_and_no_traceback_forges_a_line(terminal: io.StringIO) -> None:
    log_to(terminal, "%(levelname)s %(job)s %(message)s")
    try:
        raise ValueError("one\nERROR - forged\r\u2028ERROR")
    except ValueError:
        logging.getLogger("a").exception("two\nERROR - forged", stack_info=True)
    first, *others = terminal.getvalue().splitlines()
    assert first == "ERROR - two"
    assert len(others) > 5
    assert all(line.startswith("    ") for line in others)


def test_a_line_of_json_has_the_values_of_its_record(terminal: io.StringIO) -> None:
    log_to(terminal, "json")
    logger = logging.getLogger("shop")
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        extra = {"customer": 7, "odd": float("nan"), "job": "j"}
        logger.exception("sold %s\n{", "\x1b\x9b\u20ac", extra=extra)
    logging.getLogger("mrq.worker").info("worker.stopped name=%s", "w")
    logging.getLogger("mrq.worker").error("worker.given_up: %s", "reason")
    first, second, third = map(json.loads, terminal.getvalue().splitlines())
    assert terminal.getvalue().isascii()
    now = datetime.now(UTC)
    assert abs((datetime.fromisoformat(first.pop("time")) - now).total_seconds()) < 60
    error = first.pop("exception")
    assert first == {
        "level": "ERROR", "logger": "shop", "event": "sold \x1b\x9b\u20ac\n{", "job": "j", "worker": WORKER,
        "extra": {"customer": 7, "odd": "nan"},
    }  # fmt: skip
    assert (error["type"], error["message"]) == ("ValueError", "one\ntwo")
    assert error["traceback"].startswith("Traceback (most recent call last):\n")
    assert error["traceback"].endswith("ValueError: one\ntwo")
    assert (second["event"], second["message"]) == ("worker.stopped", "worker.stopped name=w")
    assert second.keys() == {"time", "level", "logger", "event", "message", "worker"}
    assert (third["event"], third["message"]) == ("worker.given_up", "worker.given_up: reason")


class Raising(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        raise ValueError("odd")


def test_a_formatter_that_raises_loses_no_line(
    terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(terminal, "%(message)s")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LocklessHandler):  # the others are those of pytest
            handler.setFormatter(Raising())
    logging.getLogger("shop").info("sold %s", "it")
    assert "cannot be formatted (ValueError: odd): 'sold %s' with ('it',)" in terminal.getvalue()
    assert capsys.readouterr().err == ""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "extra",
    [
        {"value": Unprintable()},
        {"value": nested(5000)},
        {"value": {1: Unprintable()}},
        {"value": 10**5000},
        {"value": True},
        {"duration": float("inf")},
        {"duration": float("nan")},
        {"error_type": Unprintable()},
    ],
    ids=["raises", "deep", "inside", "huge", "bool", "inf", "nan", "type"],
)
def test_no_value_of_a_caller_keeps_a_line_from_the_json_log(
    extra: dict[str, object], terminal: io.StringIO
) -> None:
    log_to(terminal, "json")
    logging.getLogger("shop").error("here", exc_info=Unprintable("x"), extra=extra)
    [line] = map(json.loads, terminal.getvalue().splitlines())
    assert line["event"] == "here"
    assert "Unprintable" in line["exception"]["traceback"]


def test_the_time_of_a_line_has_the_milliseconds_of_its_record(terminal: io.StringIO) -> None:
    log_to(terminal, "%(asctime)s")
    for created in (1_700_000_000.25, 1_700_000_000.75, 1_700_000_061.5):
        record = logging.makeLogRecord({"created": created, "msecs": created % 1 * 1000, "levelno": 30})
        logging.root.handle(record)
    shown = terminal.getvalue().splitlines()
    expected = [
        f"{datetime.fromtimestamp(second, UTC).astimezone():%Y-%m-%d %H:%M:%S},{rest}"
        for second, rest in ((1_700_000_000, 250), (1_700_000_000, 750), (1_700_000_061, 500))
    ]
    assert shown == expected


def test_every_handler_gets_the_job_and_a_caller_keeps_its_own(terminal: io.StringIO) -> None:
    log_to(terminal, "%(message)s")
    other = io.StringIO()
    handler = logging.StreamHandler(other)
    handler.setFormatter(logging.Formatter("%(job)s %(message)s"))
    logging.root.addHandler(handler)
    logging.getLogger("a").warning("outside")
    logging.getLogger("a").warning("own", extra={"job": "mine"})
    assert other.getvalue() == "- outside\nmine own\n"


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
