"""Packs commands for the server, with hiredis, from texts and bytes only.

hiredis ends the process with a segmentation fault if a signal handler raises while hiredis makes the text of
a number: Python runs handlers then, and hiredis goes on without the text. Here Python makes the texts.
"""

from __future__ import annotations

from typing import Any

import hiredis
from redis.connection import HiredisRespSerializer

_PLAIN = frozenset({str, bytes})


class Packer(HiredisRespSerializer):
    """Replaces the packer of redis-py, as fast."""

    def pack(self, *words: Any) -> list[bytes]:
        """The command in the form of the protocol. A name may have several words, such as ``CLIENT SETNAME``.
        Raises TypeError for an argument that is no text, bytes or number."""
        name = words[0].encode() if isinstance(words[0], str) else words[0]
        rest = [word if type(word) in _PLAIN else _plain(word) for word in words[1:]]
        return [hiredis.pack_command((*name.split(), *rest))]


def _plain(word: Any) -> str | bytes:
    if isinstance(word, str | bytes):
        return word
    if isinstance(word, int | float):
        return repr(word)
    if isinstance(word, bytearray | memoryview):
        return bytes(word)
    raise TypeError(
        f"an argument of a command is of type {type(word).__name__}: expected text, bytes or a number"
    )


def set_packer(connection: Any) -> None:
    """Gives a connection this packer, if redis-py has chosen that of hiredis for it."""
    if type(connection._command_packer) is HiredisRespSerializer:
        connection._command_packer = Packer()
