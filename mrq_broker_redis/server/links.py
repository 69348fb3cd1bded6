"""Connections that scripts and waits use without redis-py's client in between.

The client takes a connection from its pool for each command, asks the operating system whether it still
stands, and wraps the call in several layers. Under gevent that takes longer than the script on the
server. A link keeps the connections that it took from the same pool, and talks through them directly.
"""

from __future__ import annotations

import os
import time
from typing import Any

from redis import exceptions

_FRESH = 1.0
"""Seconds since its last use for which a connection is taken to stand still, without looking."""


class Link:
    """A client of redis-py with the connections that are kept out of its pool. Safe in threads and greenlets,
    and after a fork."""

    def __init__(self, client: Any, *, is_cluster: bool) -> None:
        self.client = client
        self._pool: Any = None if is_cluster else client.connection_pool
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()

    def call(self, *command: Any) -> Any:
        """Sends a command and reads its answer, as the server gives it. Raises what redis-py raises.

        A call that is killed or times out leaves no connection with a pending answer.
        """
        if self._pool is None:  # which node it is for, the client of the cluster finds out
            return self.client.execute_command(*command)
        connection = self._take()
        pid = self._pid
        try:
            connection.send_command(*command)
            answer = connection.read_response()
        except exceptions.ResponseError:  # an answer as well
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
        if time.monotonic() - used < _FRESH:
            return connection
        self._pool.release(connection)
        return self._pool.get_connection()  # which looks whether it stands

    def _keep(self, connection: Any, pid: int) -> None:
        """For the next call; not in a forked child, where a greenlet of the parent goes on that had it."""
        if os.getpid() == pid:
            self._idle.append((connection, time.monotonic()))
        else:
            connection.disconnect()

    def _give_back(self) -> None:
        """To the pool: the server has gone away, and may have closed the others too."""
        while self._idle:
            self._pool.release(self._idle.pop()[0])
