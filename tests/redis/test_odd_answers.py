"""A server that gives the same answer to every command: another program on the port, or a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.queue import RedisQueue
from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.messages import (
    Cancel,
    ClaimRef,
    ClaimRequest,
    Move,
    Note,
    Outcome,
    RawItem,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.metrics import Metric
from mrq_core.contract.pair import Entry, KeyHolder, KeyRequest, Removal
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import BrokerError, MrqError
from mrq_core.ids import new_id
from tests.redis.kit import Place, open_broker, open_queue
from tests.redis.test_connection import new_job

ID = new_id()
NOW = from_ms(SystemClock().now_ms())
REQUEST = ClaimRequest(worker="w", wanted=(Wanted(name="q"), Wanted(name="t/")), limit=3, lease=10.0)
OUTCOME = Outcome(status=Status.SUCCESS)
ANSWERS = [
    b":1\r\n",
    b"+OK\r\n",
    b"$-1\r\n",
    b"$3\r\nabc\r\n",
    b"*0\r\n",
    b"*1\r\n:1\r\n",
    b"*2\r\n:1\r\n:2\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:7\r\n",
    b"*7\r\n" + b":1\r\n" * 7,
    b"%1\r\n+a\r\n+b\r\n",
    b",1.5\r\n",
    b"#t\r\n",
]

BROKER_CALLS: dict[str, Callable[[RedisBroker], object]] = {
    "enqueue": lambda broker: broker.enqueue([new_job()]),
    "enqueue unique": lambda broker: broker.enqueue([new_job(unique=Unique(key="k"))]),
    "claim": lambda broker: broker.claim(REQUEST),
    "renew": lambda broker: broker.renew([ClaimRef(id=ID, token="1.a")], 5.0),
    "annotate": lambda broker: broker.annotate([Note(id=ID, token="1.a", progress=0.5)]),
    "settle": lambda broker: broker.settle([Settlement(id=ID, token="1.a", outcome=OUTCOME)]),
    "requeue": lambda broker: broker.requeue([ID], Requeue()),
    "cancel": lambda broker: broker.cancel([ID], Cancel()),
    "move": lambda broker: broker.move([ID], Move(queue="q")),
    "remove": lambda broker: broker.remove([ID]),
    "prune": lambda broker: broker.prune(),
    "apply": lambda broker: broker.apply(JobFilter(queues=("q",)), Cancel()),
    "now": lambda broker: broker.now(),
    "get": lambda broker: broker.get([ID]),
    "find": lambda broker: broker.find(JobFilter(queues=("q",))),
    "totals": lambda broker: broker.totals(),
    "counts": lambda broker: broker.counts(["q"]),
    "queue_names": lambda broker: broker.queue_names(),
    "wait": lambda broker: broker.wait([Wanted(name="q")], 0.05),
    "poll": lambda broker: broker.poll("w", Versions()),
    "pause": lambda broker: broker.pause(["q"]),
    "paused": lambda broker: broker.paused(),
    "append_logs": lambda broker: broker.append_logs(
        [LogLine(job_id=ID, attempt=1, seq=1, at=NOW, level="INFO", message="m")], 1000
    ),
    "read_logs": lambda broker: broker.read_logs(ID),
    "record_metrics": lambda broker: broker.record_metrics([Metric(name="m", at=NOW, total=1.0)]),
    "read_metrics": lambda broker: broker.read_metrics(["m"], NOW, NOW),
    "raw push": lambda broker: broker.raw("q_set").push([RawItem(param="a")]),
    "raw claim": lambda broker: broker.raw("q_timed_set").claim(2, 5.0, "w"),
    "raw peek": lambda broker: broker.raw("q_sorted_set").peek(5),
    "raw peek set": lambda broker: broker.raw("q_set").peek(5),
    "raw remove": lambda broker: broker.raw("q_raw").remove(["a"]),
    "raw size": lambda broker: broker.raw("q_raw").size(),
    "raw histogram": lambda broker: broker.raw("q_sorted_set").histogram(0.0, 9.0, 2),
    "state get": lambda broker: broker.state.get("n", "a"),
    "state put": lambda broker: broker.state.put("n", "a", 1),
    "state add": lambda broker: broker.state.add("n", "a", 1),
    "state delete": lambda broker: broker.state.delete("n", ["a"]),
    "state list": lambda broker: broker.state.list("n"),
    "check": lambda broker: broker.check(),
    "prepare": lambda broker: broker.prepare(),
}
ENTRY = Entry(id=ID, queue="q", version=1, due_at=None)
QUEUE_CALLS: dict[str, Callable[[RedisQueue], object]] = {
    "now": lambda queue: queue.now(),
    "reserve": lambda queue: queue.reserve([KeyRequest(id=ID, unique=Unique(key="k"))]),
    "free": lambda queue: queue.free([("k", KeyHolder(id=ID, since=NOW))]),
    "push": lambda queue: queue.push([ENTRY]),
    "claim": lambda queue: queue.claim(REQUEST),
    "reclaim": lambda queue: queue.reclaim([(ENTRY, "2.a")], REQUEST),
    "release": lambda queue: queue.release([ClaimRef(id=ID, token="1.a")]),
    "renew": lambda queue: queue.renew([ClaimRef(id=ID, token="1.a")], 5.0),
    "remove": lambda queue: queue.remove([Removal(id=ID)]),
    "entries": lambda queue: queue.entries([ID]),
}


@contextmanager
def parrot(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives this answer to every command but those of a login."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client, client.makefile("rb") as commands:
            while head := commands.readline():
                words = []
                for _ in range(int(head[1:])):
                    words.append(commands.read(int(commands.readline()[1:]) + 2).strip().upper())
                is_login = words[0] in (b"HELLO", b"CLIENT", b"SELECT", b"AUTH")
                client.sendall(b"+OK\r\n" if is_login and words[0] != b"HELLO" else answer)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_of_another_form_is_an_error_of_the_broker(answer: bytes) -> None:
    with parrot(answer) as url:
        for protocol in ("", "?protocol=2"):
            broker = open_broker(Place(url + protocol, "mrq"), timeout=0.3)
            for name, call in BROKER_CALLS.items():
                _call(name, partial(call, broker))
                # Without the check of the layout, which comes before the first write.
                broker._connection.is_prepared = True
                _call(name, partial(call, broker))
            broker.close()
            queue = open_queue(Place(url + protocol, "mrq"), timeout=0.3)
            for name, ask in QUEUE_CALLS.items():
                _call(name, partial(ask, queue))
            queue.close()


def _call(name: str, call: Callable[[], object]) -> None:
    """Raises nothing but errors of mrq in one line."""
    try:
        call()
        return
    except MrqError as error:
        text = str(error)
    except Exception as error:
        raise AssertionError(f"{name} raised {error!r}") from error
    assert text, name
    assert "\n" not in text, name


def test_an_answer_of_another_form_names_the_error_and_the_server() -> None:
    with parrot(b":1\r\n") as url:
        broker = open_broker(Place(url + "?protocol=2", "mrq"), timeout=0.3)
        with pytest.raises(BrokerError, match=rf"{url}.* cannot read .*TypeError.*another program"):
            broker.get([ID])
        assert [finding.level for finding in broker.check()] == ["error"]
        broker.close()


def test_an_error_about_the_arguments_stays(place: Place) -> None:
    broker = place.open()
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValueError, match="timezone"):
        broker.record_metrics([Metric(name="m", at=naive, total=1.0)])
    broker.close()


def test_the_text_of_an_error_of_the_server_is_escaped_and_on_one_line() -> None:
    with parrot(b"-ERR \x1b[31mred\x07\x08\x7f and more\r\n") as url:
        broker = open_broker(Place(url, "mrq"), timeout=0.3)
        with pytest.raises(BrokerError, match=r"\\x1b\[31mred\\x07\\x08\\x7f and more$") as caught:
            broker.get([ID])
        assert str(caught.value).isprintable()
        assert all(finding.message.isprintable() for finding in broker.check())
        broker.close()
