"""Reads from the frames of a greenlet for which server its socket waits. Needs no tracing."""

from __future__ import annotations

import _socket
from contextlib import suppress
from types import FrameType
from typing import Any

import gevent.socket
import gevent.ssl

from mrq_core.contract.plain import printable
from mrq_core.debug import io_texts
from mrq_core.errors import on_one_line
from mrq_core.frames import reading_frames

VERBS = {
    **dict.fromkeys(("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg"), "recv from"),
    **dict.fromkeys(("recvmsg_into", "read"), "recv from"),
    **dict.fromkeys(("send", "sendall", "sendto", "sendmsg", "sendfile", "write"), "send to"),
    "_internal_connect": "connect to",
    "accept": "accept at",
    "do_handshake": "handshake with",
    "unwrap": "shut down with",
}
"""What a socket waits for, by the name of the function of gevent that waits."""
LOOKUPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr")
"""The functions of a resolver, and of gevent, that look names up."""
_SOCKET: Any = gevent.socket.socket
SOCKETS: Any = next((one for one in _SOCKET.__mro__ if "_wait" in vars(one)), _SOCKET)
"""The class of gevent whose method `_wait` lets all sockets wait. Its sockets have the attribute `_sock`."""
_functions: list[Any] = [gevent.socket.getaddrinfo, _SOCKET.accept, gevent.ssl.SSLSocket.read]
_codes = [getattr(function, "__code__", None) for function in _functions]
_FILES = frozenset(code.co_filename for code in _codes if code is not None)
"""The files of gevent's sockets."""
_FRAMES_MOST = 12
_TEXT_MOST = 160


@reading_frames
def peer_of(frame: FrameType | None) -> str | None:
    """What a suspended greenlet waits for, such as ``recv from 127.0.0.1:6379``. None: for no socket of
    gevent. `frame`: its innermost frame."""
    with suppress(Exception):  # a socket may be closed meanwhile
        for _ in range(_FRAMES_MOST):
            if frame is None:
                return None
            code = frame.f_code
            if code.co_filename in _FILES and (code.co_name in VERBS or code.co_name in LOOKUPS):
                return printable(on_one_line(_text_of(frame)))[:_TEXT_MOST] or None
            frame = frame.f_back
    return None


def _text_of(frame: FrameType) -> str:
    name, values = frame.f_code.co_name, frame.f_locals
    if name in LOOKUPS:
        host = next((values[one] for one in ("host", "hostname", "ip_address") if one in values), None)
        return f"lookup of {io_texts.host_lookup(host)}"
    socket = values.get("self")
    return socket_text((name, socket, values.get("address"))) if isinstance(socket, SOCKETS) else ""


def socket_text(subject: tuple[str, Any, object]) -> str:
    """``recv from 127.0.0.1:6379``: what a socket of gevent waits for. `subject`: the name of the function
    that waits, the socket, and the address to which it connects. In any thread."""
    name, socket, target = subject
    verb = VERBS.get(name, "wait for")
    place = io_texts.address(target)
    if not place:
        raw = socket._sock
        try:
            found = _socket.socket.getsockname(raw) if name == "accept" else _socket.socket.getpeername(raw)
            place = io_texts.address(found)
        except OSError:  # closed, or not connected
            return verb.partition(" ")[0]
    return f"{verb} {place or 'a local socket'}"
