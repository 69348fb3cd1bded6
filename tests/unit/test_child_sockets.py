"""Sockets that forked children do not use."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from mrq_core.drivers import child_sockets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return True
    return False


def passes_in_child(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if not child:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_each_call_of_a_child_fails_and_the_parent_gets_what_was_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    child_sockets.keep_from_children(ours.fileno())
    theirs.sendall(b"reply")

    def check() -> bool:
        return fails(lambda: ours.recv(9)) and fails(lambda: ours.send(b"x")) and not fails(ours.close)

    assert passes_in_child(check)
    assert passes_in_child(check)  # of each child
    assert ours.recv(9) == b"reply"
    ours.send(b"request")
    assert theirs.recv(9) == b"request"


def test_a_descriptor_that_is_used_again_is_left_to_a_child(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    other, _ = kept = socket.socketpair()
    child_sockets.keep_from_children(other.fileno())
    os.dup2(ours.fileno(), other.fileno())
    with kept[0], kept[1]:
        assert passes_in_child(lambda: other.send(b"x") == 1)
    assert theirs.recv(9) == b"x"


def test_a_closed_descriptor_and_a_file_are_not_kept(pair: tuple[socket.socket, socket.socket]) -> None:
    number = pair[0].detach()
    os.close(number)
    child_sockets.keep_from_children(number)
    child_sockets.keep_from_children(-1)
    file = os.open(os.devnull, os.O_RDONLY)
    child_sockets.keep_from_children(file)
    assert passes_in_child(lambda: os.read(file, 1) == b"")
    os.close(file)


def test_a_child_without_a_free_descriptor_closes_the_sockets(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    def check() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        child_sockets.replace([pair[0].fileno()])
        return fails(lambda: os.fstat(pair[0].fileno()))

    assert passes_in_child(check)
    assert not fails(lambda: pair[0].send(b"x"))
