"""HTTP with one client of `mrq dashboard`, who may be slow, or send nothing.

uvicorn limits only the time between two requests of a connection. Without further limits, clients that begin
requests and do not end them would hold all file descriptors of the process. `guard.py` limits the time of a
body that a page reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_WITHIN = 10.0
"""Seconds for the head of a request."""
REST_WITHIN = 5.0
"""Seconds for the rest of a request that is answered already. A client that sends does not read the answer
before, if the connection is closed at once."""
UNFINISHED_MOST = 128
"""Connections without a whole request. For the next one, the oldest is closed if it has waited for
`UNFINISHED_LEAST` seconds: many clients may connect at one moment."""
UNFINISHED_LEAST = 1.0


class Protocol(H11Protocol):
    """Speaks with one client."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._unfinished: dict[Protocol, float] = vars(self.server_state).setdefault("unfinished", {})
        """The connections of the server without a whole request, the oldest first, and since when."""
        self._limit: asyncio.TimerHandle | None = None
        self._waits_for = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._wait_for("")
        self._unfinished.pop(self, None)

    def handle_events(self) -> None:
        """Looks at what has come."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """The answer is sent."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that cannot be read. If the answer has begun, nothing else can be said."""
        self._refuse(400, msg)

    def _watch(self) -> None:
        """Limits the time for the part of a request that has not come yet."""
        state = self.conn.their_state
        is_between = self.timeout_keep_alive_task is not None  # uvicorn limits that
        if self.transport.is_closing() or is_between or state not in (h11.IDLE, h11.SEND_BODY):
            self._wait_for("")
        elif state is h11.IDLE:
            self._wait_for("head", HEAD_WITHIN)
        elif self.cycle.response_complete:
            self._wait_for("rest", REST_WITHIN)
        else:
            self._wait_for("body")

    def _wait_for(self, part: str, seconds: float = 0.0) -> None:
        if part == self._waits_for:
            return
        self._waits_for = part
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(seconds, self._give_up) if seconds else None
        self._unfinished.pop(self, None)
        if part:
            self._unfinished[self] = now = self.loop.time()
            oldest, since = next(iter(self._unfinished.items()))
            if len(self._unfinished) > UNFINISHED_MOST and now - since >= UNFINISHED_LEAST:
                oldest._give_up()

    def _give_up(self) -> None:
        """Closes the connection. Says why, unless the client has sent nothing yet, as browsers do that
        connect before they have a request, or has its answer."""
        if self._waits_for == "body" or (self._waits_for == "head" and self.conn.trailing_data[0]):
            self._refuse(408, "The request did not come in time.")
        self._wait_for("")
        self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        if self.cycle is not None:  # a page that waits for the body has no client any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=text.encode()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()
