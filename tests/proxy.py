"""A proxy between a client and a server that can lose a reply: the call is made, and nobody learns of it.

It can also let a server seem to be another one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Passes bytes on in both directions, until it is told to lose the reply to a call."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._lose: re.Pattern[bytes] | None = None
        self._seen: tuple[re.Pattern[bytes], bytes] | None = None
        self._drip: float | None = None
        self._refused: tuple[re.Pattern[bytes], bytes] | None = None
        self.refused = 0
        """How many calls were refused."""
        self.lost = 0
        """How many replies were lost."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for one in self._open:
            one.close()

    def lose_reply_to(self, call: bytes) -> None:
        """Loses the reply to the next call whose bytes match this expression, and the connection with it."""
        self._lose = re.compile(call, re.DOTALL)

    def show_instead(self, text: bytes, other: bytes) -> None:
        """Puts other bytes, as many, in place of what matches this expression in replies."""
        self._seen = re.compile(text), other

    def refuse(self, call: bytes, answer: bytes) -> None:
        """Gives this answer to calls whose bytes match the expression, in place of the server. Each has to be
        sent alone."""
        self._refused = re.compile(call, re.DOTALL), answer

    def refuse_nothing(self) -> None:
        """Passes all calls on again."""
        self._refused = None

    def drip(self, seconds: float) -> None:
        """Passes replies on one byte at a time from now on, each after this time."""
        self._drip = seconds

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            losing = threading.Event()
            threading.Thread(target=self._ask, args=(client, server, losing), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server, losing), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    if self._lose is not None and self._lose.search(data):
                        self._lose = None
                        losing.set()
                refused = self._refused
                if refused is not None and refused[0].search(data):
                    self.refused += 1
                    client.sendall(refused[1])
                else:
                    server.sendall(data)
        _end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():
                    self.lost += 1
                    break
                data = data if self._seen is None else self._seen[0].sub(self._seen[1], data)
                if self._drip is None:
                    client.sendall(data)
                    continue
                for byte in data:
                    time.sleep(self._drip)
                    client.sendall(bytes([byte]))
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
