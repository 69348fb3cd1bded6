"""A parser whose timeout counts for a whole reply.

The timeout of redis-py counts for each read: a server that sends a byte now and then would hold a call for
ever.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis._parsers import _HiredisParser
from redis.exceptions import AskError, ConnectionError, ResponseError, TimeoutError, TryAgainError

from mrq_broker_redis.server.packing import set_packer
from mrq_core.clock import monotonic
from mrq_core.drivers.child_sockets import keep_from_children

_UNSET: Any = inspect.signature(_HiredisParser.read_from_socket).parameters["timeout"].default
"""What redis-py passes for the timeout of the connection; versions keep it in different modules."""


class DeadlineParser(_HiredisParser):
    """Raises TimeoutError if the reads of a call take longer together than the timeout, after the first read,
    which has the timeout for itself.

    Nearly all replies come in one read, which takes no longer here than in redis-py.
    """

    _buffer: Any
    _reader: Any = None
    """None: not connected. The parser of redis-py lacks the attribute before the first login: the check of a
    connection whose first login a signal handler has interrupted would fail, each time."""
    deadline: float | None = None
    """The end of the reads of this call, by the monotonic clock. None: the next read is the first; `Link` and
    the checks of the pool set None before a call. 0: one read was enough so far."""

    def on_connect(self, connection: Any, **more: Any) -> None:
        """Begins to read from a new connection."""
        self.deadline = None
        super().on_connect(connection, **more)  # type: ignore[no-untyped-call]

    def can_read(self, timeout: float = 0) -> bool:
        """Whether data wait. The pool asks for this before each call."""
        self.deadline = None
        return bool(super().can_read(timeout))

    def read_from_socket(self, timeout: Any = _UNSET, raise_on_timeout: bool = True) -> bool:
        """Reads once. Returns whether there were data."""
        sock, reader = self._sock, self._reader
        if timeout is not _UNSET or sock is None or reader is None:
            return bool(super().read_from_socket(timeout, raise_on_timeout))  # type: ignore[no-untyped-call]
        if self.deadline is not None:
            return self._read_more()
        self.deadline = 0
        size = sock.recv_into(self._buffer)
        if size == 0:
            raise ConnectionError("Connection closed by server.")
        reader.feed(self._buffer, 0, size)
        return True

    def _read_more(self) -> bool:
        now = monotonic()
        self.deadline = self.deadline or now + self._socket_timeout
        left = self.deadline - now
        if left <= 0:
            raise TimeoutError("Timeout reading from socket")
        return bool(super().read_from_socket(left))  # type: ignore[no-untyped-call]


class SlotMoves(ResponseError):
    """The keys of a prefix are being moved to another node."""


class ClusterParser(DeadlineParser):
    """The same for a node of a cluster, whose client does not follow a key that is being moved: there, a
    script would find none of the other keys, and would make them anew."""

    @classmethod
    def parse_error(cls, response: str) -> Any:
        """The exception for an error that the node has answered."""
        error = super().parse_error(response)  # type: ignore[no-untyped-call]
        return SlotMoves(response) if isinstance(error, AskError | TryAgainError) else error


def set_up(connection: Any, parser: type[DeadlineParser] = DeadlineParser) -> None:
    """Gives a connection this parser and the packer before its login, where redis-py has chosen those of
    hiredis: the clients of sentinels and of clusters do not take them as options."""
    keep_in_process(connection, connection._sock)
    set_packer(connection)
    if type(connection._parser) is _HiredisParser:
        connection.set_parser(parser)


def keep_in_process(connection: Any, sock: Any) -> None:
    """Keeps a connection, which has connected this socket, from forked children. Raises ConnectionError in a
    child that was forked while it connected."""
    if connection.pid != os.getpid():
        raise ConnectionError("the parent of this process has opened the connection")
    keep_from_children(sock.fileno())


def log_in(connection: Any) -> None:
    """Sends the login and the database of a new connection, through this parser.

    Whatever interrupts this closes the connection. redis-py closes it after its own errors only, and keeps it
    after others: the next call would use database 0, or read a reply of the login.
    """
    with closed_if_interrupted(connection):
        set_up(connection)
        connection.on_connect()


@contextmanager
def closed_if_interrupted(connection: Any) -> Iterator[None]:
    """Closes a connection whose login any exception interrupts."""
    try:
        yield
    except BaseException:
        connection.disconnect()
        raise
