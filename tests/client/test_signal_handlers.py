"""Signal handlers of the program that interrupt a call, and raise, or call the same client."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, tzinfo
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mrq_core import failpoints
from mrq_core.client.ambient import configure
from mrq_core.client.client import Client
from mrq_core.contract.messages import Wanted
from mrq_core.contract.record import Status
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import BrokerUnavailable
from tests.support import PATIENCE

KINDS = (TimeoutError, ConnectionError, ValueError, KeyError, sqlite3.OperationalError)


@contextmanager
def handler(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Sets the handler of SIGUSR1."""
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def signal_at_first_point() -> Iterator[None]:
    """Sends SIGUSR1 once, in the middle of the next call of the broker."""

    def send(_: str) -> None:
        failpoints.hook = None
        signal.raise_signal(signal.SIGUSR1)

    failpoints.hook = send
    try:
        yield
        assert failpoints.hook is None, "the call reached no point"
    finally:
        failpoints.hook = None


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_a_handler_in_a_call_reaches_the_caller_unchanged(
    each_client: Client, kind: type[Exception]
) -> None:
    each_client.queue_job("tasks.x")  # which connects
    raised = kind("by the handler")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise raised

    with handler(interrupt):
        with pytest.raises(kind) as caught, signal_at_first_point():
            each_client.queue_job("tasks.x")
        assert caught.value is raised
    assert each_client.fetch(each_client.queue_job("tasks.x")).path == "tasks.x"


def test_an_exception_of_a_handler_ends_a_wait_for_the_server(each_client: Client) -> None:
    def alarm(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("by the handler")

    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeoutError, match=r"^by the handler$"):
            each_client.broker.wait([Wanted(name="nothing")], 30.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    each_client.queue_job("tasks.x")


class Interrupted(set[int]):
    """A set in which a signal arrives after each addition."""

    def add(self, item: int) -> None:
        super().add(item)
        signal.raise_signal(signal.SIGUSR1)


def connections_of(client: Client) -> list[Any]:
    parts = (client.broker, *vars(client.broker).values())
    return [part._connection for part in parts if hasattr(part, "_connection")]


def raising(raised: Exception) -> Callable[[int, FrameType | None], None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise raised

    return interrupt


@pytest.mark.parametrize("kind", [KeyError, RuntimeError])
def test_an_exception_of_a_handler_that_a_library_replaces_reaches_the_caller(
    each_client: Client, kind: type[Exception]
) -> None:
    """`Thread.start` raises such errors in place of the handler's, and pymongo starts threads."""
    if not any(hasattr(one, "_inside") for one in connections_of(each_client)):
        pytest.skip("only pymongo starts threads")
    each_client.queue_job("tasks.x")
    raised = LookupError("by the handler")

    def library(point: str) -> None:
        if point != "jobs.before":  # inside a call to MongoDB
            return
        failpoints.hook = None
        try:
            signal.raise_signal(signal.SIGUSR1)
        except LookupError:
            raise kind("of the library")  # noqa: B904

    failpoints.hook = library
    try:
        with handler(raising(raised)), pytest.raises(LookupError) as caught:
            each_client.queue_job("tasks.x")
    finally:
        failpoints.hook = None
    assert caught.value is raised
    assert each_client.fetch(each_client.queue_job("tasks.x")).path == "tasks.x"


def test_a_handler_that_raises_as_a_call_begins_refuses_no_later_call(each_client: Client) -> None:
    connections = [one for one in connections_of(each_client) if hasattr(one, "_inside")]
    if not connections:
        pytest.skip("only MongoDB refuses calls inside calls")
    each_client.queue_job("tasks.x")
    for connection in connections:
        connection._inside = Interrupted()
        with handler(raising(LookupError("by the handler"))), pytest.raises(LookupError):
            connection.on_database(lambda database: None)
    with handler(lambda number, frame: None):
        assert each_client.fetch(each_client.queue_job("tasks.x")).path == "tasks.x"


def test_an_exception_of_a_handler_that_the_caller_has_caught_replaces_no_later_error() -> None:
    """It is the context of each error that is raised while the caller handles it."""
    with handler(raising(LookupError("by the handler"))):
        try:
            signal.raise_signal(signal.SIGUSR1)
        except LookupError:
            with pytest.raises(OSError) as caught:
                raise OSError("of a library")  # noqa: B904
            assert caught.value.__context__ is not None
            assert raised_by_handler(caught.value) is None


def test_ctrl_c_counts_as_an_exception_of_a_handler() -> None:
    def library() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise KeyError("of a library")  # noqa: B904

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyError) as caught:
            library()
        assert isinstance(raised_by_handler(caught.value), KeyboardInterrupt)
    finally:
        signal.signal(signal.SIGINT, before)


class Signalling(dict[str, object]):
    """Params that send a signal while mrq copies them."""

    def items(self):  # type: ignore[no-untyped-def]
        signal.raise_signal(signal.SIGUSR1)
        return super().items()


class SignallingZone(tzinfo):
    """A time zone that sends a signal."""

    def utcoffset(self, moment: datetime | None) -> None:
        signal.raise_signal(signal.SIGUSR1)

    dst = tzname = utcoffset


class SignallingList(list[dict[str, object]]):
    """Items of `queue_jobs` that send a signal."""

    def __iter__(self) -> Iterator[dict[str, object]]:
        signal.raise_signal(signal.SIGUSR1)
        return super().__iter__()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.queue_job("tasks.x", Signalling(a=1)),
        lambda client: client.queue_job("tasks.x", at=datetime(2030, 1, 1, tzinfo=SignallingZone())),
        lambda client: client.queue_jobs("tasks.x", SignallingList()),
    ],
)
def test_an_exception_of_a_handler_while_arguments_are_checked_reaches_the_caller(
    each_client: Client, call: Callable[[Client], object]
) -> None:
    raised = LookupError("by the handler")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise raised

    with handler(interrupt), pytest.raises(LookupError) as caught:
        call(each_client)
    assert caught.value is raised


class Handler:
    """A handler that is an object."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise ValueError("by the object")

    def method(self, number: int, frame: FrameType | None) -> None:
        raise ValueError("by the method")

    def with_more(self, more: int, number: int, frame: FrameType | None) -> None:
        raise ValueError("by the partial")


def library() -> None:
    """Replaces the exception of a handler."""
    try:
        signal.raise_signal(signal.SIGUSR1)
    except ValueError:
        raise OSError("of a library")  # noqa: B904


@pytest.mark.parametrize("handle", [Handler(), Handler().method, partial(Handler().with_more, 1)])
def test_every_form_of_a_handler_is_recognized(handle: Callable[[int, FrameType | None], object]) -> None:
    with handler(handle):
        with pytest.raises(OSError) as caught:
            library()
        wrapped, direct = caught.value, caught.value.__context__
        assert isinstance(direct, ValueError)
        assert raised_by_handler(direct) is direct
        assert raised_by_handler(wrapped) is direct
    with pytest.raises(ValueError) as unknown:
        Status("unknown")
    assert raised_by_handler(unknown.value) is None, "no code of the default handlers"
    assert raised_by_handler(OSError("of a library")) is None
    assert raised_by_handler(wrapped) is None, "no handler is set any more"


@pytest.mark.parametrize("call", ["queue", "fetch", "close"])
def test_a_call_in_a_handler_that_interrupts_another_call_ends(each_client: Client, call: str) -> None:
    job_id = each_client.queue_job("tasks.x")
    calls: dict[str, Callable[[], object]] = {
        "queue": lambda: each_client.fetch(each_client.queue_job("tasks.y")).path,
        "fetch": lambda: each_client.fetch(job_id).path,
        "close": each_client.close,
    }
    answers: list[object] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            answers.append(calls[call]())
        except BrokerUnavailable as error:
            answers.append(str(error))

    with handler(handle), signal_at_first_point(), suppress(BrokerUnavailable):
        each_client.queue_job("tasks.x")
    refusal = "inside another call of the same thread"
    [answer] = answers
    if call == "close":
        assert answer is None
        return
    assert answer in ("tasks.x", "tasks.y") or refusal in str(answer)
    match each_client.broker.name:
        case "redis":
            assert answer in ("tasks.x", "tasks.y")
        case "mongo":
            assert refusal in str(answer)
        case "sqlite":
            assert (refusal in str(answer)) == (call == "queue")
    assert each_client.fetch(each_client.queue_job("tasks.x")).path == "tasks.x"


def test_a_call_in_a_handler_that_interrupts_the_first_connection_ends(
    each_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler runs while the interrupted call holds the lock under which it connects."""
    connections = [
        part._connection
        for part in (each_client.broker, *vars(each_client.broker).values())
        if hasattr(part, "_connection")
    ]
    if not connections:
        pytest.skip("SQLite connects without a lock")
    answers: list[object] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            answers.append(each_client.fetch(each_client.queue_job("tasks.y")).path)
        except BrokerUnavailable as error:
            answers.append(str(error))

    connection = connections[0]
    connect = connection.location.connect

    def interrupted() -> object:
        connection.location = connection.location._replace(connect=connect)
        signal.raise_signal(signal.SIGUSR1)
        return connect()

    connection.location = connection.location._replace(connect=interrupted)
    with handler(handle):
        assert each_client.fetch(each_client.queue_job("tasks.x")).path == "tasks.x"
    [answer] = answers
    assert answer == "tasks.y" or "inside another call of the same thread" in str(answer)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_of_a_handler_while_the_task_is_imported_reaches_the_caller(
    each_client: Client, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"slow_{kind.__name__.lower()}"
    code = "import signal\nfrom mrq_core import task\n@task\ndef x(): pass\n"
    (tmp_path / f"{name}.py").write_text(f"{code}signal.raise_signal(signal.SIGUSR1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    raised = kind("by the handler")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise raised

    with handler(interrupt), pytest.raises(kind) as caught:
        each_client.queue_job(f"{name}.x")
    assert caught.value is raised
    assert sum(each_client.broker.totals().by_status().values()) == 0


SLOW = {
    "config file": ("import signal\nsignal.raise_signal(signal.SIGUSR1)\n", None),
    "plugin": ("PLUGINS = ['slow_plugin']\n", "import signal\nsignal.raise_signal(signal.SIGUSR1)\n"),
    "driver": (
        "PLUGINS = ['slow_plugin']\n",
        "import signal\nfrom mrq_core import hookimpl\n@hookimpl\ndef mrq_driver():\n"
        "    signal.raise_signal(signal.SIGUSR1)\n",
    ),
}


@pytest.mark.parametrize("loaded", SLOW)
def test_an_exception_of_a_handler_while_the_first_call_loads_reaches_the_caller(
    loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, plugin = SLOW[loaded]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_plugin", raising=False)
    (tmp_path / "mrq-config.py").write_text(config)
    if plugin is not None:
        (tmp_path / "slow_plugin.py").write_text(plugin)
    raised = TimeoutError("by the handler")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise raised

    with handler(interrupt):
        with pytest.raises(TimeoutError) as caught:
            configure()
        assert caught.value is raised
    with handler(lambda number, frame: None):
        configure().close()  # the next call loads again


AT_ANY_MOMENT = """
import json, signal, sys
from mrq_core import configure, queue_job

class Alarm(Exception):
    pass

def handle(number, frame):
    raise Alarm

configure(**json.loads(sys.argv[1]))
queue_job("tasks.x", {})  # connects
signal.signal(signal.SIGALRM, handle)
alarms, others = 0, []
def interrupted(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        queue_job("tasks.x", {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

for number in range(4000):
    try:
        interrupted(0.00005 + 0.00002 * (number % 60))
    except Alarm:
        alarms += 1
    except Exception as error:
        others.append(repr(error))
print(json.dumps([alarms, others]))
"""


@pytest.mark.campaign
def test_exceptions_of_a_handler_at_any_moment_of_a_call_reach_the_caller(each_client: Client) -> None:
    config = each_client.config
    settings = json.dumps({"broker": config.broker, "store": config.store})
    program = [sys.executable, "-c", AT_ANY_MOMENT, settings]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    alarms, others = json.loads(done.stdout)
    assert alarms > 5
    if "mongo" in f"{config.broker}{config.store}":  # pymongo drops some of them
        others = [one for one in others if not ("BrokerUnavailable" in one and "signal handler" in one)]
    assert others == []
