"""What holds for each request and each answer, whatever its page: the host, the sizes, the headers."""

from __future__ import annotations

import secrets
from urllib.parse import unquote_to_bytes

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mrq_dashboard.hosts import Hosts, is_from_this_machine

API = "/api/"
"""The beginning of the paths that programs use, where errors are JSON."""
PROBE = "/healthz"
"""The path that probes ask, by whatever name they reach this machine. It tells only that it answers."""
NOT_UTF_8 = "mrq.not_utf_8"
"""The mark that `wsgi_app` leaves in the environment of a request whose path is not UTF-8."""
MOST_URL = 16_384
"""Bytes of a path with its query."""
MOST_BODY = 2 * 1_048_576
"""Bytes of a body: params of a job take at most 1 MiB by default."""
BODY_PAUSE = 10.0
"""Seconds without a byte of a body."""
BODY_WITHIN = 60.0
"""Seconds from the head of a request to the end of its body."""
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class BodyRefused(Exception):
    """The body of a request is not read to its end."""


class TooLarge(BodyRefused):
    """It is larger than MOST_BODY."""


class TooSlow(BodyRefused):
    """It does not come in time."""


class Guard:
    """Refuses requests for other hosts and from other machines, long URLs, and bodies that are large or do
    not come; adds the headers of safety to answers.

    `hosts`: the names that the Host header may have. `is_local_only`: whether requests of other machines are
    refused, because each visitor has all rights.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, *, is_local_only: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._is_local_only = is_local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        has_begun = is_complete = is_cut_off = False

        async def send_safely(message: Message) -> None:
            nonlocal has_begun, is_complete
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", _POLICY.format(nonce=nonce))
                headers.setdefault("cache-control", "no-store")
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_safely)
            return
        body = _Body(scope, receive)

        async def receive_bounded() -> Message:
            nonlocal is_cut_off
            try:
                return await body.receive()
            except BodyRefused:
                if not has_begun:  # as a rule: a handler answers after it has read the body
                    raise
                is_cut_off = True  # such as a stream, which ends
                return {"type": "http.disconnect"}

        try:
            await self._app(scope, receive_bounded, send_safely)
            if is_cut_off and not is_complete:
                await send({"type": "http.response.body", "body": b""})
        except TooLarge:
            await _too_large(scope)(scope, receive, send_safely)
        except TooSlow:
            refusal = _refused(scope, 408, "the body of the request did not come in time")
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if _path(scope) != PROBE and (foreign := self._foreign(scope, headers)) is not None:
            return _refused(scope, 403, foreign)
        raw_path = scope.get("raw_path") or scope["path"].encode()
        if len(raw_path) + len(scope.get("query_string", b"")) > MOST_URL:
            return _refused(scope, 414, f"the address is longer than {MOST_URL} bytes")
        is_marked = NOT_UTF_8 in scope.get("wsgi_environ", ())
        if is_marked or not is_utf8(raw_path) or not is_utf8(scope.get("query_string", b"")):
            return _refused(scope, 400, "the address has bytes that are not UTF-8, such as %ff")
        length = headers.get("content-length") or "0"  # WSGI: an empty text
        if not length.isdecimal() or int(length[:20]) > MOST_BODY:
            return _too_large(scope)
        return None

    def _foreign(self, scope: Scope, headers: Headers) -> str | None:
        """Why this visitor may see nothing, whatever the address."""
        if not self._hosts.has(headers.get("host", "")):
            return (
                "this dashboard does not answer for the host of this address: set DASHBOARD_HOSTS to the "
                "names of its hosts, such as mrq.example.com"
            )
        if self._is_local_only and not is_from_this_machine(scope):
            return (
                "this dashboard has no login, and answers no other machines: set "
                "DASHBOARD_HTTPAUTH=user:password or DASHBOARD_TOKEN"
            )
        return None


class _Body:
    """The messages of one request, until its body is whole: with limits of size and time."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._is_wsgi = "wsgi_environ" in scope
        self._taken = 0
        self._is_whole = False
        self._deadline = anyio.current_time() + BODY_WITHIN

    async def receive(self) -> Message:
        """The next message. Raises BodyRefused."""
        if self._is_whole:  # the next one says that the client has left, which may be hours later
            return await self._receive()
        message = await self._next()
        if self._is_wsgi and message.get("more_body") and not message.get("body"):
            return {"type": "http.disconnect"}  # the body ended early: a2wsgi would read on without end
        self._taken += len(message.get("body", b""))
        if self._taken > MOST_BODY:
            raise TooLarge
        self._is_whole = not message.get("more_body")
        return message

    async def _next(self) -> Message:
        if self._is_wsgi:  # its server waits for the body, in a thread
            return await self._receive()
        try:
            with anyio.fail_after(min(BODY_PAUSE, max(self._deadline - anyio.current_time(), 0))):
                return await self._receive()
        except TimeoutError as error:
            raise TooSlow from error


def is_utf8(text: bytes) -> bool:
    """Whether a part of an address, or a form, is UTF-8 behind its escapes. Other bytes would be replaced,
    and the request would name another thing."""
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return True


def is_of_api(path: str) -> bool:
    """Whether programs use this path, and get errors as JSON; also for a path that leads nowhere."""
    return f"{path}/".startswith(API)


def _too_large(scope: Scope) -> Response:
    return _refused(scope, 413, f"the body is larger than {MOST_BODY} bytes")


def _refused(scope: Scope, status: int, text: str) -> Response:
    if is_of_api(_path(scope)):
        return JSONResponse({"error": {"status": status, "message": text}}, status_code=status)
    return PlainTextResponse(f"{text}\n", status_code=status)


def _path(scope: Scope) -> str:
    """The path below the place where a host application mounts the dashboard."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path
