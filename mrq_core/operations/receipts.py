"""Receipts of actions: an action with a key is done once, however often its request arrives. Its answer is
kept, so that a repeated request and the next page can show it.

A receipt is a value of shared state, under a digest of the key and of the person who sent it.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import BrokerError, InvalidValue, RepeatRefused, shown

RECEIPTS_NAMESPACE = "receipts"
TTL = 3600.0
"""Seconds for which a receipt is kept."""
MOST_VALUE = 4096
"""Bytes of an answer that a receipt keeps; a repeated request gets only the text of a larger one."""
_KEY = re.compile(r"[\x21-\x7e]{8,200}")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """An action, done or begun. `text` says what was done; None: the action has begun, and has not ended."""

    id: str
    who: str
    request: str
    begun_at: datetime
    text: str | None = None
    tone: str = ""
    value: JsonObject = {}
    url: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the action has ended."""
        return self.text is not None


def receipt_id(key: str, who: str) -> str:
    """The id of the receipt for a key. Raises InvalidValue for a malformed key."""
    if not _KEY.fullmatch(key):
        raise InvalidValue(
            f"the key is {shown(key)}: expected 8 to 200 visible characters of ASCII", path="idempotency-key"
        )
    return hashlib.blake2b(f"{who}\0{key}".encode(), digest_size=16).hexdigest()


def begin_receipt(broker: Broker, key: str, who: str, request: bytes) -> tuple[Receipt, bool]:
    """Begins an action: its receipt, and whether the caller has to act. False: another request with this key
    came first, and the receipt has its answer.

    `request` is what the action depends on. Of two calls at once, one acts. Raises RepeatRefused if the first
    action has not ended, and for a key that belongs to another request; InvalidValue.
    """
    found = receipt_id(key, who)
    digest = hashlib.blake2b(request, digest_size=16).hexdigest()
    made = Receipt(id=found, who=who, request=digest, begun_at=broker.now())
    state = broker.state
    if state.compare_and_set(RECEIPTS_NAMESPACE, found, _stored(made), version=0, ttl=TTL) is not None:
        return made, True
    first = read_receipt(broker, found)
    if first is None:  # released or expired just now
        raise RepeatRefused("the same request was refused at the same time: send it again")
    if first.request != digest:
        raise RepeatRefused("this key belongs to an earlier request: use a new key")
    if not first.is_done:
        raise RepeatRefused(
            f"the same request arrived at {first.begun_at:%H:%M:%S} UTC and has not ended: look at what it "
            "has done before you repeat it",
        )
    return first, False


def complete_receipt(
    broker: Broker,
    begun: Receipt,
    *,
    text: str,
    tone: str = "",
    value: JsonObject | None = None,
    url: str = "",
) -> Receipt:
    """Keeps the answer of an action that was done. One write. Raises BrokerError."""
    kept = value if value and len(msgspec.json.encode(value)) <= MOST_VALUE else {}
    done = msgspec.structs.replace(begun, text=text, tone=tone, value=kept, url=url)
    broker.state.put(RECEIPTS_NAMESPACE, done.id, _stored(done), ttl=TTL)
    return done


def release_receipt(broker: Broker, begun: Receipt) -> None:
    """Forgets an action that failed, so that its request may be sent again. An error of the broker is
    ignored: the key then stays used for an hour."""
    try:
        broker.state.delete(RECEIPTS_NAMESPACE, [begun.id])
    except BrokerError:
        return


def read_receipt(broker: Broker, found: str) -> Receipt | None:
    """The receipt with this id. None: it has expired, or there was none. One read."""
    item = broker.state.get(RECEIPTS_NAMESPACE, found)
    return None if item is None else _read(item)


def _stored(receipt: Receipt) -> JsonObject:
    value: JsonObject = msgspec.to_builtins(receipt)
    return value


def _read(item: StateItem) -> Receipt | None:
    try:
        return msgspec.convert(item.value, Receipt)
    except msgspec.ValidationError:  # of another version
        return None
