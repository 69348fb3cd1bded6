"""Calls to the server: with errors of the broker, the server's time, and repetitions where they are safe.

Connections come from pymongo's pool, which is safe in threads and in greenlets. A forked child opens its
own client.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.errors import BSONError
from bson.int64 import Int64
from pymongo import MongoClient, ReadPreference
from pymongo import timeout as limited
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mrq_broker_mongo.server.arrangement import WHOLE, Arrangement
from mrq_broker_mongo.server.clients import apart, is_of_pymongo
from mrq_broker_mongo.server.failures import (
    is_duplicate,
    is_login_failure,
    is_lost,
    is_unread,
    lacks_threads,
    passed_on,
    translated,
    without_threads,
)
from mrq_broker_mongo.server.location import Doc, Location
from mrq_core.clock import DATETIMES, Clock, SystemClock, from_ms, monotonic, to_ms
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers import answers
from mrq_core.drivers.exits import too_late
from mrq_core.drivers.forks import left_in_parent, start_anew_in_children
from mrq_core.drivers.open_files import reserve_standard_descriptors
from mrq_core.drivers.stack import ensure_stack
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable
from mrq_core.failpoints import reach

T = TypeVar("T")
Jobs = Collection[Doc]

_REPEATS = 5
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 1.0
_KNOCK_SECONDS = 1.0
_FAILURES = (PyMongoError, BSONError, OSError, SystemError)
"""SystemError: code of pymongo in C has not seen what a signal handler has raised."""
_TIME_KEPT = 5.0
"""For how many seconds the difference between the server's clock and ours is relied on."""
_READ = ReadConcern("local")
_SOFT = WriteConcern(w=1, j=False)
_HINT = WriteConcern(w=0)
_inherited: list[MongoClient[Doc]] = []
"""Clients of a parent process: never used, and never taken down, since their sockets are the parent's too."""


# Decoding runs no Python code but that of ObjectId: pymongo drops an exception that a signal handler raises
# in such code, and raises InvalidBSON.


class _PlainInt(TypeDecoder):
    """Decodes integers of 64 bits as int."""

    bson_type: Any = Int64
    transform_bson: Any = staticmethod(int)


class _AwareTime(TypeDecoder):
    """Decodes times as UTC."""

    bson_type: Any = DATETIMES[0]
    transform_bson: Any = staticmethod(partial(DATETIMES[0].replace, tzinfo=UTC))


_OPTIONS: CodecOptions[Doc] = CodecOptions(
    tz_aware=False, type_registry=TypeRegistry([_PlainInt(), _AwareTime()])
)


def _elapsed() -> float:
    """Seconds that also pass while the machine sleeps, where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return monotonic()


class Connection:
    """The way to one deployment, for the collections of one prefix.

    The time is the server's: its difference to ours is measured every few seconds, and so exact to half
    a round trip. A clock that is not the host's own stands for the server's: tests set it.
    """

    def __init__(
        self, location: Location, *, clock: Clock, timeout: float, arrangement: Arrangement = WHOLE
    ) -> None:
        self.location = location
        self.arrangement = arrangement
        self._clock = None if isinstance(clock, SystemClock) else clock
        self._timeout = timeout
        self._client: MongoClient[Doc] | None = None
        self._collections: dict[tuple[str, str], Jobs] = {}
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        """The threads, or greenlets, that are in a call."""
        self._closed = False
        self.knocks = False
        """Whether a call of a server that was away has little patience. Set for workers, which try again."""
        self._is_away = False
        self._measured: tuple[float, float] | None = None
        self.is_prepared = False
        """Whether it is known that collections and indexes are there: see `layout.ensure`."""
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """See `StartsAnew`."""
        if self._client is not None:
            _inherited.append(self._client)
        self._client = None
        self._collections = {}
        self._lock = threading.Lock()
        self._inside = set()

    def name(self, collection: str) -> str:
        """The full name of a collection of this prefix."""
        return f"{self.location.prefix}_{collection}"

    def now(self) -> datetime:
        """The server's time."""
        return from_ms(self.now_ms())

    def now_ms(self) -> int:
        """The same as Unix milliseconds."""
        if self._clock is not None:
            return self._clock.now_ms()
        measured = self._measured
        here = _elapsed()
        if measured is None or not 0 <= here - measured[0] < _TIME_KEPT:
            measured = self._measured = self._measure()
            here = _elapsed()
        return int(measured[1] + (here - measured[0]) * 1000)

    def _measure(self) -> tuple[float, float]:
        def look(database: Database[Doc]) -> tuple[float, float]:
            before = _elapsed()
            told = database.command("hello")["localTime"].replace(tzinfo=UTC)
            return (before + _elapsed()) / 2, to_ms(told) + 0.5  # the server cuts its milliseconds off

        return self.on_database(look)

    def run(self, collection: str, work: Callable[[Jobs], T], *, repeatable: bool = True) -> T:
        """Does something with a collection. `repeatable`: it may be done again after a lost connection,
        whether or not it was done."""
        return self._call(collection, lambda: work(self._collection(collection, "")), repeatable)

    def run_soft(self, collection: str, work: Callable[[Jobs], T]) -> T:
        """The same for what no job depends on: it is not waited for that it is safe on disk."""
        return self._call(collection, lambda: work(self._collection(collection, "soft")), False)

    def wake(self, queues: Iterable[str]) -> None:
        """Wakes the processes that wait for these queues or their trees, by a hint for each root.

        Waits for no answer: a hint may get lost.
        """
        roots = {queue.partition("/")[0] for queue in queues}
        if roots:
            hints: list[Doc] = [{"root": root} for root in sorted(roots)]
            self._call("wake", lambda: self._collection("wake", "hint").insert_many(hints), False)

    def on_database(self, work: Callable[[Database[Doc]], T]) -> T:
        """Does something with the database itself; may be repeated."""
        return self._call("database", lambda: work(self._database()), True)

    def unreadable(self, error: Exception) -> BrokerCorrupt:
        """The error for an answer in a form that mrq does not expect."""
        where = f"MongoDB at {self.location.shown}"
        return answers.unreadable(error, where, "correct the URL, or see `mrq check`")

    @property
    def wait_most(self) -> float:
        """How long one call may wait for news, in seconds."""
        return self._timeout / 2

    def close(self) -> None:
        """Closes all connections: inside a call of the same thread when that call ends, see `_call`."""
        self._closed = True
        if threading.get_ident() in self._inside:
            return
        client, self._client = self._client, None
        self._collections = {}
        if client is not None:
            apart(client.close, lambda _: None)

    def _call(self, name: str, work: Callable[[], T], repeatable: bool) -> T:
        """Raises BrokerUnavailable while the interpreter ends: pymongo needs its threads.

        Raises BrokerUnavailable also inside another call of the same thread, in which a signal handler, a
        finalizer or a handler of pymongo's log lines runs: the interrupted call may hold a lock of pymongo,
        for which a second call would wait without end. So may a thread of pymongo that logs."""
        if sys.is_finalizing():
            raise too_late(f"MongoDB at {self.location.shown}")
        ensure_stack()
        thread = threading.get_ident()  # not imported by name: gevent may patch it later
        if thread in self._inside:
            raise BrokerUnavailable(
                f"MongoDB at {self.location.shown} cannot be called inside another call of the same thread, "
                "which a signal handler, a finalizer or a log handler has interrupted: repeat the call after "
                "that call, or in a thread"
            )
        if is_of_pymongo(thread):
            raise BrokerUnavailable(
                f"MongoDB at {self.location.shown} cannot be called in a thread of pymongo, as by a handler "
                "of its log lines: set the logger pymongo to INFO, or make the call in another thread"
            )
        lock = self._lock  # a forked child has another one
        try:
            self._inside.add(thread)  # not before the block: a signal handler may raise between
            if self._is_away and self.knocks:
                self._knock()
            deadline = monotonic() + self._timeout
            backoff = _BACKOFF_FIRST
            for left in range(_REPEATS if repeatable else 0, -1, -1):
                try:
                    reach(f"{name}.before")
                    answer = work()
                    reach(f"{name}.after")
                    self._is_away = False
                    if lock is self._lock:
                        return answer
                    raise self._left_in_parent()
                except (*_FAILURES, AttributeError) as error:
                    raised = raised_by_handler(error)
                    if raised is not None:
                        raise passed_on(raised, self.location.shown) from raised.__cause__
                    if lock is not self._lock:
                        raise self._left_in_parent() from error
                    if is_duplicate(error) or (isinstance(error, AttributeError) and not is_unread(error)):
                        raise  # which is an answer, or a mistake of ours
                    self._measured = None  # there may be another primary now
                    if not (left and is_lost(error) and monotonic() + backoff < deadline):
                        self._is_away = isinstance(error, AutoReconnect)
                        if is_login_failure(error):  # pymongo takes the server to be away from now on
                            self._leave_client()
                        raise translated(error, self.location, self._timeout) from error
                # Jitter, so that all who lost the server do not come back at the same moment.
                time.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_MOST)
                if lock is not self._lock:
                    raise self._left_in_parent()
            raise AssertionError("the last attempt returns or raises")
        except BaseException as error:
            raised = raised_by_handler(error)
            if raised is not None:
                self._leave_client()
            if raised is not None and raised is not error:  # of `threading`: pymongo starts threads
                raise passed_on(raised, self.location.shown) from raised.__cause__
            # A copy of a greenlet gives back a lock that pymongo has freed for the child.
            if lock is not self._lock and isinstance(error, RuntimeError):
                raise self._left_in_parent() from error
            if raised is None and lacks_threads(error):
                raise without_threads(error, self.location) from error
            raise
        finally:
            self._inside.discard(thread)
            if self._closed:
                self.close()

    def _left_in_parent(self) -> BrokerUnavailable:
        return left_in_parent(f"MongoDB at {self.location.shown}")

    def _leave_client(self) -> None:
        """The next call makes another client. After an exception of a signal handler, this one may have a
        lock for ever: it can be raised between the taking of a lock and the block that gives it back
        (python/cpython#74174)."""
        client, self._client = self._client, None
        self._collections = {}
        if client is not None:  # the end of its threads may wait for that lock
            with suppress(RuntimeError):  # no thread can be started
                threading.Thread(target=client.close, daemon=True).start()

    def _knock(self) -> None:
        """Calls a server that was away, with little patience: processes that all wait for it inside pymongo
        would come back at the same moment. Raises BrokerUnavailable."""
        try:
            with limited(min(_KNOCK_SECONDS, self._timeout)):
                self._database().client.admin.command("ping")
        except _FAILURES as error:
            raised = raised_by_handler(error)
            if raised is not None:
                raise passed_on(raised, self.location.shown) from raised.__cause__
            if isinstance(error, AutoReconnect):
                raise translated(error, self.location, _KNOCK_SECONDS) from error

    @contextmanager
    def calls_inside(self) -> Iterator[None]:
        """Lets the work of a call make other calls, between its own commands."""
        thread = threading.get_ident()
        self._inside.discard(thread)
        try:
            yield
        finally:
            self._inside.add(thread)

    def _collection(self, name: str, concern: str) -> Jobs:
        found = self._collections.get((name, concern))
        if found is None:
            database = self._database(_OPTIONS)
            kept: dict[str, Any] = {"soft": _SOFT, "hint": _HINT}
            written = kept.get(concern, self.location.concern)
            found = database.get_collection(self.name(name), write_concern=written)
            self._collections[name, concern] = found
        return found

    def _database(self, options: CodecOptions[Doc] | None = None) -> Database[Doc]:
        """The database, read from the primary whatever the URL says: a secondary may not know yet what was
        written, and a job that was just queued would be unknown."""
        return self._connected().get_database(
            self.location.database,
            codec_options=options,
            read_preference=ReadPreference.PRIMARY,
            read_concern=_READ,
        )

    def _connected(self) -> MongoClient[Doc]:
        if self._closed:
            raise BrokerUnavailable(f"the broker of {self.location.shown} was closed: open another one")
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._collections = {}
                    self._client = apart(self._new_client, MongoClient.close)
        return self._client

    def _new_client(self) -> MongoClient[Doc]:
        """In this thread or another one, in which a log handler may be called as well: see `_call`."""
        inside = {threading.get_ident()} - self._inside
        self._inside |= inside
        try:
            reserve_standard_descriptors()
            return self.location.connect()
        finally:
            self._inside -= inside
