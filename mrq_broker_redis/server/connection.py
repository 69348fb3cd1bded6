"""Calls of scripts and commands: translates errors, and repeats calls where that is safe.

Connections come from redis-py's pool, which is safe in threads, in greenlets, and after a fork; see `Link`.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis import exceptions

from mrq_broker_redis.server.failures import code_of, translated
from mrq_broker_redis.server.links import Link, failed_to_connect
from mrq_broker_redis.server.location import Location
from mrq_broker_redis.server.scripts import OPENING, script
from mrq_core import failpoints
from mrq_core.clock import Clock, SystemClock, monotonic
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers import answers
from mrq_core.drivers.exits import has_stopped_threads, too_late
from mrq_core.drivers.forks import left_in_parent, start_anew_in_children
from mrq_core.drivers.open_files import reserve_standard_descriptors
from mrq_core.drivers.stack import ensure_stack
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable, MrqError, shown_error

T = TypeVar("T")

_REPEATS = 3
_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 0.4
_PAUSE_FOR_CONNECTION = 0.01
"""Seconds between two looks for a free connection of the pool."""
_pack = msgspec.msgpack.Encoder().encode
_inherited: list[Link | None] = []
"""Links of a parent process."""
_FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)


class Connection:
    """The connection to one server, for the keys of one prefix.

    With `SystemClock`, the scripts use the time of the server. The time of any other clock is passed to them,
    which tests need.
    """

    def __init__(self, location: Location, *, clock: Clock, timeout: float) -> None:
        self.prefix = "{" + location.prefix + "}"
        self.location = location
        self.is_prepared = False
        """Whether this broker has checked the layout of the prefix: see `layout.ensure`."""
        self._clock = None if isinstance(clock, SystemClock) else clock
        self._timeout = timeout
        self._link: Link | None = None
        self._lock = threading.RLock()
        self._closed = False
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """See `StartsAnew`."""
        _inherited.append(self._link)
        self._link = None
        self._lock = threading.RLock()

    def key(self, name: str) -> str:
        """The name of a key of this prefix."""
        return f"{self.prefix}:{name}"

    def run(
        self, name: str, arguments: object, *, repeatable: bool = False, even_if_full: bool = False
    ) -> Any:
        """Runs a script. `repeatable`: it may run a second time after a lost connection. `even_if_full`: it
        runs on a server that has reached its maxmemory, too; see `scripts.OPENING`."""
        code = script(name)
        # Texts only: for a number hiredis calls repr, which raises what a signal handler raises; it crashes.
        now = "0" if self._clock is None else str(self._clock.now_ms())
        packed = _pack(arguments)

        def call(link: Link) -> Any:
            failpoints.reach(f"{name}.before")
            try:
                try:
                    answer = link.call("EVALSHA", code.digest, "1", self.prefix, now, packed)
                except exceptions.NoScriptError:  # the server was restarted, or its scripts were flushed
                    answer = link.call("EVAL", code.source, "1", self.prefix, now, packed)
            except exceptions.ResponseError as error:
                if not even_if_full or code_of(error) != "OOM":
                    raise
                answer = link.call("EVAL", OPENING + code.source, "1", self.prefix, now, packed)
            failpoints.reach(f"{name}.after")
            return answer

        return self._call(call, repeatable)

    def execute(self, *command: Any, repeatable: bool = True) -> Any:
        """Runs one command. Reads, and most other commands, may be repeated."""
        texts = [word if isinstance(word, str | bytes) else repr(word) for word in command]  # see `run`
        return self._call(lambda link: link.client.execute_command(*texts), repeatable)

    def use(self, work: Callable[[Any], T], *, repeatable: bool = True) -> T:
        """Calls `work` with the client of redis-py."""
        return self._call(lambda link: work(link.client), repeatable)

    def wait_for(self, keys: Sequence[str], seconds: float) -> bytes | None:
        """Waits for a token in one of the lists, and takes it. None: none came in time."""
        # The server rounds up to its ticks, and the timeout of the socket must not end first.
        seconds = max(0.001, min(seconds, self._timeout / 2))
        command = ("BLPOP", *keys, f"{seconds:.3f}")
        found = self._call(lambda link: link.call(*command), False)
        return None if found is None else bytes(found[1])

    def unreadable(self, error: Exception) -> BrokerCorrupt:
        """The error for an answer in a form that mrq does not expect."""
        return answers.unreadable(
            error, f"Redis at {self.location.shown}", "correct the URL, or see `mrq check`"
        )

    @property
    def wait_most(self) -> float:
        """The longest wait of one call of `wait_for`, in seconds."""
        return self._timeout / 2

    def close(self) -> None:
        """Closes all connections."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _call(self, work: Callable[[Link], T], repeatable: bool) -> T:
        # A stopped thread may hold a lock of redis-py. The first connection imports modules.
        if sys.is_finalizing() and (self._link is None or has_stopped_threads()):
            raise too_late(f"Redis at {self.location.shown}")
        ensure_stack()
        deadline = monotonic() + self._timeout
        left, backoff = _REPEATS if repeatable else 0, _BACKOFF_FIRST
        lock = self._lock  # a forked child has another one
        while True:
            try:
                answer = work(self._connected())
                if lock is self._lock:
                    return answer
                raise self._left_in_parent()
            except exceptions.MaxConnectionsError as error:  # nothing was sent
                if monotonic() >= deadline:
                    raise translated(error, self.location.shown, self._timeout) from error
                pause = _PAUSE_FOR_CONNECTION
            except _FAILURES as error:
                raised = raised_by_handler(error)
                if raised is not None:
                    raise raised from raised.__cause__
                if lock is not self._lock:
                    raise self._left_in_parent() from error
                if code_of(error) == "READONLY":  # a failover has made it a replica: find the new primary
                    self._disconnect()
                lost = isinstance(error, exceptions.ConnectionError) and not isinstance(
                    error, exceptions.AuthenticationError | exceptions.TimeoutError
                )
                if not (left and lost and monotonic() + backoff < deadline):
                    raise translated(error, self.location.shown, self._timeout) from error
                left, pause, backoff = left - 1, backoff, min(backoff * 2, _BACKOFF_MOST)
            except Exception as error:  # of code that stands for the network, such as that of a test library
                is_ours = isinstance(error, MrqError) or raised_by_handler(error) is not None
                if is_ours or not failed_to_connect(error):
                    raise
                why = shown_error(error)
                raise BrokerUnavailable(
                    f"Redis at {self.location.shown} cannot be reached, because other code of this process "
                    f"has replaced its sockets: {why}"
                ) from error
            # Jitter, so that not all clients come back at the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            if lock is not self._lock:
                raise self._left_in_parent()

    def _left_in_parent(self) -> BrokerUnavailable:
        return left_in_parent(f"Redis at {self.location.shown}")

    def _disconnect(self) -> None:
        link = self._link
        if link is not None:
            link.close()

    def _connected(self) -> Link:
        if self._closed:
            raise BrokerUnavailable(f"the broker of {self.location.shown} was closed: open another one")
        link = self._link
        if link is None:
            with self._lock:
                link = self._link
                if link is None:
                    reserve_standard_descriptors()
                    made = Link(self.location.connect(), is_cluster=self.location.is_cluster)
                    link = self._link  # of a signal handler that has interrupted this thread
                    if link is None:
                        link = self._link = made
                    else:
                        made.close()
        return link
