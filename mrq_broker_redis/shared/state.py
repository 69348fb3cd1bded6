"""Shared state: small named values. Every operation is one script.

Versions come from one counter, so that a name which was deleted and written again never has an old
version, and a compare-and-set with one is refused.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence

from mrq_broker_redis.jobs.records import binary
from mrq_broker_redis.server.connection import Connection
from mrq_core.contract import codec, rules
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import StateItem
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.drivers.state_items import item_of
from mrq_core.errors import BrokerError

_STORED = re.compile(rb"(\d{1,15}) (\d{0,15}) (.*)", re.DOTALL)


@names_unreadable_answers()
class RedisState(SharedState):
    """The shared state under one prefix."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, namespace: str, name: str) -> StateItem | None:
        found = self._connection.run("state", ["get", namespace, name], repeatable=True)
        return None if found is None else _item(namespace, name, found)

    def put(self, namespace: str, name: str, value: JsonValue, ttl: float | None = None) -> StateItem:
        arguments = ["put", namespace, name, binary(codec.encode(value)), _ms(ttl), -1, _is_rule(namespace)]
        return _item(namespace, name, self._connection.run("state", arguments, repeatable=True))

    def compare_and_set(
        self, namespace: str, name: str, value: JsonValue, *, version: int, ttl: float | None = None
    ) -> StateItem | None:
        arguments = ["put", namespace, name, binary(codec.encode(value)), _ms(ttl), version]
        arguments.append(_is_rule(namespace))
        written = self._connection.run("state", arguments)
        return None if written is None else _item(namespace, name, written)

    def add(self, namespace: str, name: str, amount: int, ttl: float | None = None) -> int:
        is_counter, value = self._connection.run(
            "state", ["add", namespace, name, amount, _ms(ttl), _is_rule(namespace)]
        )
        if not is_counter:
            raise BrokerError(
                f"the state {namespace}/{name} holds {value.decode()[:80]}: expected a counter; "
                "delete it, or use another name"
            )
        return int(value)

    def delete(self, namespace: str, names: Sequence[str]) -> list[bool]:
        found = self._connection.run("state", ["delete", namespace, list(names), _is_rule(namespace)])
        return [bool(answer) for answer in found]

    def list(self, namespace: str) -> list[StateItem]:
        found = self._connection.run("state", ["list", namespace], repeatable=True)
        return items_in(namespace, found)


def items_in(namespace: str, found: Sequence[bytes]) -> builtins.list[StateItem]:
    """The values that a script has listed, by name."""
    items = zip(found[::2], found[1::2], strict=True)
    return sorted(
        (_item(namespace, name.decode("utf-8", "backslashreplace"), value) for name, value in items),
        key=lambda item: item.name,
    )


def value_in(stored: bytes) -> JsonValue:
    """The value as a script returns it."""
    return _item("", "", stored).value


def _is_rule(namespace: str) -> bool:
    return namespace in rules.NAMESPACES


def _ms(ttl: float | None) -> int:
    return -1 if ttl is None else round(ttl * 1000)


def _item(namespace: str, name: str, stored: bytes) -> StateItem:
    found = _STORED.fullmatch(stored)
    if found is None:
        return item_of(namespace, name, None, None, None)
    version, expiry, value = found.groups()
    return item_of(namespace, name, value, int(version), int(expiry) if expiry else None)
