"""Connections for scripts and waits, without redis-py's client.

For each command, the client takes a connection from its pool, asks the operating system whether it is still
open, and wraps the call in several layers. Under gevent that takes longer than the script on the server.
A link keeps connections of the same pool, and sends commands through them directly.
"""

from __future__ import annotations

import os
from typing import Any

import redis.connection
from redis import exceptions

from mrq_core.clock import monotonic
from mrq_core.contract.exception_fields import frames_of

_CONNECTIONS = redis.connection.__file__
_FRESH = 1.0
"""Seconds after its last use during which a connection counts as open without a check."""


class Link:
    """A client of redis-py, and idle connections of its pool. Safe in threads and greenlets, and after a
    fork."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self.client = client
        self._pool: Any = None if is_cluster else client.connection_pool
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()

    def call(self, *command: Any) -> Any:
        """Sends a command and returns the unparsed answer of the server. Raises the errors of redis-py.

        A call that is killed or times out leaves no connection with a pending answer.
        """
        if self._pool is None:  # the client of the cluster finds the node
            return self.client.execute_command(*command)
        connection = self._take()
        pid = self._pid
        connection._parser.deadline = None  # see `DeadlineParser`
        try:
            connection.send_command(*command)
            answer = connection.read_response()
        except exceptions.ResponseError:  # the answer was read
            self._keep(connection, pid)
            raise
        except BaseException as error:
            connection.disconnect()
            self._pool.release(connection)
            if isinstance(error, exceptions.ConnectionError):
                self._give_back()
            raise
        self._keep(connection, pid)
        return answer

    def close(self) -> None:
        """Closes all connections, those in use too."""
        self.client.close()

    def _take(self) -> Any:
        if os.getpid() != self._pid:  # the parent uses these
            self._pid, self._idle = os.getpid(), []
        try:
            connection, used = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        if monotonic() - used < _FRESH:
            return connection
        self._pool.release(connection)
        return self._pool.get_connection()  # which checks that it is open

    def _keep(self, connection: Any, pid: int) -> None:
        """Keeps a connection for the next call, except in a forked child: the parent goes on using it."""
        if os.getpid() == pid:
            self._idle.append((connection, monotonic()))
        else:
            connection.disconnect()

    def _give_back(self) -> None:
        """Returns all idle connections to the pool: the server is away, and may have closed them too."""
        while self._idle:
            self._pool.release(self._idle.pop()[0])


def failed_to_connect(error: Exception) -> bool:
    """Whether redis-py was making a connection when other code than its own raised this. It raises such
    errors itself where it cannot read the answer to a login."""
    step, connects, reads_itself = frames_of(error), False, False
    while step is not None:
        code = step.tb_frame.f_code
        reads_itself = code.co_filename == _CONNECTIONS and code.co_name.startswith("on_connect")
        connects |= code.co_filename == _CONNECTIONS and code.co_name.lstrip("_").startswith("connect")
        step = step.tb_next
    return connects and not reads_itself
