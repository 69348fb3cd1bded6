"""A server that answers with documents of another form: a proxy, or data that were changed by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_core.contract.messages import Cancel, Settlement
from mrq_core.contract.metrics import Metric
from mrq_core.errors import BrokerCorrupt, BrokerError, MrqError
from tests.cli.conftest import in_another_process
from tests.mongo.kit import Place, claim, new_job, open_broker, open_store
from tests.redis.test_odd_answers import BROKER_CALLS, ENTRY, ID, NOW, OUTCOME

HELLO = {
    "helloOk": True, "isWritablePrimary": True, "ismaster": True, "maxBsonObjectSize": 16777216,
    "maxMessageSizeBytes": 48000000, "maxWriteBatchSize": 100000, "localTime": datetime.now(UTC),
    "minWireVersion": 0, "maxWireVersion": 21, "ok": 1.0,
}  # fmt: skip
ANSWERS: list[dict[str, Any]] = [
    {"ok": 1.0},
    {"ok": 1.0, "n": "two", "nModified": None, "value": 7},
    {"ok": 1.0, "cursor": 1, "value": "x", "n": 1},
    {"ok": 1.0, "cursor": {"id": 0, "ns": "mrq.x", "firstBatch": [1, 2]}, "n": 0, "value": {}},
    {"ok": 1.0, "cursor": {"id": 0, "ns": "mrq.x", "firstBatch": [{"a": 1}]}, "n": 1, "value": {"a": 1}},
    {
        "ok": 1.0,
        "n": 1,
        "cursor": {"id": 0, "ns": "mrq.x", "firstBatch": [{"_id": 5, "v": "x", "version": 1, "n": []}]},
        "value": {"_id": "y", "v": None, "queue": 4, "rank": "z", "n": "m"},
    },
]
STORE_CALLS: dict[str, Callable[[MongoStore], object]] = {
    "insert": lambda store: store.insert([new_job()]),
    "start": lambda store: store.start([ENTRY], worker="w", lease=5.0, now=NOW),
    "succeed": lambda store: store.succeed([Settlement(id=ID, token="1.a", outcome=OUTCOME)], NOW),
    "read": lambda store: store.read([ID]),
    "now": lambda store: store.now(),
    "find": BROKER_CALLS["find"],  # type: ignore[dict-item]
    "totals": BROKER_CALLS["totals"],  # type: ignore[dict-item]
}


@contextmanager
def parrot(answer: dict[str, Any]) -> Iterator[str]:
    """The URL of a server that gives this answer to every command but hello."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as requests:
            while True:
                size, number, _, operation = struct.unpack("<iiii", requests.read(16))
                body = requests.read(size - 16)
                if operation == 2013:
                    command = bson.decode(body[5 : 5 + struct.unpack_from("<i", body, 5)[0]])
                    said = HELLO if next(iter(command)).lower() in ("hello", "ismaster") else answer
                    data = struct.pack("<iB", 0, 0) + bson.encode(said)
                    client.sendall(struct.pack("<iiii", len(data) + 16, 1, number, 2013) + data)
                else:  # the first hello comes as a query
                    data = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(HELLO)
                    client.sendall(struct.pack("<iiii", len(data) + 16, 1, number, 1) + data)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"mongodb://127.0.0.1:{listener.getsockname()[1]}/mrq"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_of_another_form_is_an_error_of_the_broker(answer: dict[str, Any]) -> None:
    with parrot(answer) as url:
        broker = open_broker(Place(url, "mrq"), timeout=2.0)
        for name, call in BROKER_CALLS.items():
            for is_prepared in (False, True):
                broker._connection.is_prepared = is_prepared
                _call(name, partial(call, broker))  # type: ignore[arg-type]
        broker.close()
        store = open_store(Place(url, "mrq"), timeout=2.0)
        for name, ask in STORE_CALLS.items():
            for is_prepared in (False, True):
                store._connection.is_prepared = is_prepared
                _call(name, partial(ask, store))
        store.close()


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


@pytest.mark.parametrize(
    "change",
    [
        {"$unset": {"v": ""}},
        {"$set": {"rank": "high"}},
        {"$set": {"v": "many"}},
        {"$set": {"queue": 7}},
        {"$set": {"renamed": 5}},
        {"$set": {"lease_until": "soon", "status": "started"}},
        {"$unset": {"status": ""}},
        {"$unset": {"queued_at": ""}},
    ],
)
def test_a_document_that_was_changed_by_hand_is_named_or_read(place: Place, change: dict[str, Any]) -> None:
    broker = place.open()
    [job] = broker.enqueue([new_job()])
    with pymongo.MongoClient[dict[str, Any]](place.url) as client:
        client.get_default_database()[f"{place.prefix}_jobs"].update_one({}, change)
    calls: list[Callable[[MongoBroker], object]] = [
        lambda broker: broker.get([job.id]),
        claim,
        *(BROKER_CALLS[name] for name in ("find", "apply", "prune", "totals", "counts")),  # type: ignore[list-item]
        lambda broker: broker.cancel([job.id], Cancel()),
        lambda broker: broker.remove([job.id]),
    ]
    for call in calls:
        _call("call", partial(call, broker))
    broker.close()


def test_an_error_about_the_arguments_stays(place: Place) -> None:
    broker = place.open()
    with pytest.raises(ValueError, match="timezone"):
        broker.record_metrics([Metric(name="m", at=datetime(2030, 1, 1), total=1.0)])  # noqa: DTZ001
    broker.close()


def test_an_answer_of_another_form_names_the_error_and_the_server() -> None:
    with parrot({"ok": 1.0, "cursor": 1}) as url:
        broker = open_broker(Place(url, "mrq"), timeout=2.0)
        with pytest.raises(BrokerCorrupt, match=rf"{url}.* cannot read .*AttributeError.*another program"):
            broker.get([ID])
        assert [finding.level for finding in broker.check()][-1] == "error"
        broker.close()


@pytest.mark.parametrize("code", [1, 11, 13, 189])
def test_the_text_of_an_error_of_the_server_is_escaped_and_on_one_line(code: int) -> None:
    said = {"ok": 0.0, "errmsg": "\x1b[31mred\nline\r\x07\u202e\x9b2J\tend", "code": code, "codeName": "X"}
    with parrot(said) as url:
        broker = open_broker(Place(url, "mrq"), timeout=2.0)
        with pytest.raises(BrokerError, match=r"\\x1b\[31mred line.*\\x07\\u202e\\x9b2J end") as caught:
            broker.get([ID])
        assert str(caught.value).isprintable()
        assert all(finding.message.isprintable() for finding in broker.check())
        broker.close()


def test_the_version_of_a_server_is_shown_on_the_line_of_its_finding(tmp_path: Path) -> None:
    with parrot({"ok": 1.0, "version": "7.0\n\x1b[31mred\tend"}) as url:
        said = in_another_process(("check", "--broker", url), tmp_path, dict(os.environ))
    [line] = [line for line in said.out.splitlines() if "version: MongoDB" in line]
    assert f"version: MongoDB 7.0\\n\\x1b[31mred\\tend at {url}" in line
