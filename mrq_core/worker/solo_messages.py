"""The messages between a worker and the solo process of a job, and the socket that carries them.

A message is msgpack after its length in four bytes. Only the two sides of one version of mrq talk to each
other: they run in the same interpreter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mrq_core.contract.messages import LogLine, Outcome
from mrq_core.contract.record import JobRecord

MESSAGES, HEARTBEATS = 3, 4
"""The file descriptors of a solo process: a socket for messages, and a pipe for heartbeats."""
HEARTBEAT = 0.1
"""Seconds between two heartbeats."""
_LENGTH = 4


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first message to the process: everything that it needs."""

    folder: str
    """The working directory in which the worker started."""
    config_file: str
    settings: dict[str, Any]
    """The settings that differ from the defaults."""
    worker: str
    record: JobRecord


class Interrupting(msgspec.Struct, frozen=True, tag="interrupt"):
    """Asks the process to interrupt the job. `kind` is the name of a class of `mrq_core.errors`."""

    kind: str
    message: str


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


class StopRequested(msgspec.Struct, frozen=True, tag="stop"):
    """The task asked the worker to stop."""

    why: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The outcome of the attempt. The last message of the process."""

    outcome: Outcome


ToProcess = Start | Interrupting
FromProcess = Running | Logged | Progressed | StopRequested | Ended

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


def to_process(frame: bytes) -> ToProcess:
    """Decodes a message of the worker."""
    return _to_process.decode(frame)


def from_process(frame: bytes) -> FromProcess:
    """Decodes a message of the process. Raises msgspec.DecodeError."""
    return _from_process.decode(frame)
