"""The messages between a worker and the solo process of a job, and the socket that carries them.

A message is msgpack after its length in four bytes. Only the two sides of one version of mrq talk to each
other: they run in the same interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mrq_core.contract.messages import Outcome
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord
from mrq_core.operations.workers import IoState

MESSAGES, HEARTBEATS = 3, 4
"""The file descriptors of a solo process: a socket for messages, and a pipe for heartbeats and stacks, which
native threads of both processes serve while a job blocks the hub."""
HEARTBEAT = 0.1
"""Seconds between two heartbeats."""
_BEAT, _PART, _LAST = b".", b"[", b"]"
_PART_SIZE = 2_000
"""Bytes of a part of a stack: a pipe takes so much in one piece or not at all."""
_STACK_MOST = 30_000
"""Bytes of a stack."""
_LENGTH = 4


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first message to the process: everything that it needs."""

    folder: str
    """The working directory in which the worker started."""
    config_file: str
    """The path of the worker's config file, or a file without settings."""
    config_source: bytes | None
    """The content of the config file when the worker read it. None: the process reads the file."""
    settings: dict[str, Any]
    """The settings that were given, or differ from the defaults."""
    worker: str
    record: JobRecord


class Interrupting(msgspec.Struct, frozen=True, tag="interrupt"):
    """Asks the process to interrupt the job. `kind` is the name of a class of `mrq_core.errors`."""

    kind: str
    message: str


class StackWanted(msgspec.Struct, frozen=True, tag="stack"):
    """Asks the process for its stacks, which come through the pipe."""


class Running(msgspec.Struct, frozen=True, tag="running"):
    """The task was loaded, and its code is about to run. `timeout`: seconds; `memory`: bytes. 0: no limit."""

    timeout: float
    memory: int


class Logged(msgspec.Struct, frozen=True, tag="log"):
    """A line of the job's log."""

    line: LogLine


class Progressed(msgspec.Struct, frozen=True, tag="progress"):
    """The progress of the job, from 0 to 1."""

    ratio: float


class Traced(msgspec.Struct, frozen=True, tag="io"):
    """What the I/O of the job waits for now, with TRACE_IO. Sent when that changes."""

    io: IoState


class StopRequested(msgspec.Struct, frozen=True, tag="stop"):
    """The task asked the worker to stop."""

    why: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The outcome of the attempt. The last message of the process."""

    outcome: Outcome
    is_logged: bool = True
    """Whether the process has logged that the attempt has ended."""


ToProcess = Start | Interrupting | StackWanted
FromProcess = Running | Logged | Progressed | Traced | StopRequested | Ended

_encoder = msgspec.msgpack.Encoder()
_to_process: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)
_from_process: msgspec.msgpack.Decoder[FromProcess] = msgspec.msgpack.Decoder(FromProcess)


def framed(message: ToProcess | FromProcess) -> bytes:
    """The message after its length."""
    data = _encoder.encode(message)
    return len(data).to_bytes(_LENGTH, "big") + data


class Inbox:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._received = bytearray()

    def add(self, data: bytes) -> None:
        self._received += data

    def next_frame(self) -> bytes | None:
        """The next complete message, encoded. None: more bytes are needed."""
        if len(self._received) < _LENGTH:
            return None
        end = _LENGTH + int.from_bytes(self._received[:_LENGTH], "big")
        if len(self._received) < end:
            return None
        frame = bytes(self._received[_LENGTH:end])
        del self._received[:end]
        return frame


class Beats:
    """Reads the pipe of a solo process: heartbeats, and stacks in parts."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._parts = bytearray()
        self.stack: str | None = None
        """The latest complete stack."""

    def add(self, data: bytes) -> None:
        received = self._received
        received += data
        while received:
            kind = received[:1]
            if kind not in (_PART, _LAST):  # a heartbeat, or a byte that the task has written
                del received[0]
                continue
            end = 3 + int.from_bytes(received[1:3], "big")
            if len(received) < end:
                return
            self._parts += received[3:end]
            del received[:end]
            if kind == _LAST:
                self.stack = self._parts.decode(errors="replace")
            if kind == _LAST or len(self._parts) > 2 * _STACK_MOST:
                self._parts.clear()


def beats_of(stack: str | None = None) -> Iterator[bytes]:
    """A heartbeat, and the parts of a stack, to be written one by one."""
    yield _BEAT
    if stack is None:
        return
    data = stack.encode("utf-8", "replace")[-_STACK_MOST:]
    for start in range(0, len(data) or 1, _PART_SIZE):
        part = data[start : start + _PART_SIZE]
        kind = _PART if start + _PART_SIZE < len(data) else _LAST
        yield kind + len(part).to_bytes(2, "big") + part


def to_process(frame: bytes) -> ToProcess:
    """Decodes a message of the worker."""
    return _to_process.decode(frame)


def from_process(frame: bytes) -> FromProcess:
    """Decodes a message of the process. Raises msgspec.DecodeError."""
    return _from_process.decode(frame)
