"""Receipts of actions: an action with a key is done once, however often its request arrives. Its answer is
kept, so that a repeated request and the next page can show it.

A receipt is a value of shared state, under a digest of the key and of the person who sent it. An action that
fails without telling whether it was done, because the broker did not answer, may be repeated with its key:
what it makes gets the same id then, so that it is made once.
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
from mrq_core.ids import derived_id

RECEIPTS_NAMESPACE = "receipts"
TTL = 3600.0
"""Seconds for which a receipt is kept."""
MOST_VALUE = 4096
"""Bytes of an answer that a receipt keeps; a repeated request gets only the text of a larger one."""
ABANDONED = 60.0
"""Seconds after which an action that has not ended may be repeated: its process died, or could not tell."""
_KEY = re.compile(r"[\x21-\x7e]{8,200}")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """An action, done or begun. `text` says what was done; None: the action has begun, and has not ended."""

    id: str
    who: str
    request: str
    begun_at: datetime
    """When its first request arrived."""
    tried_at: datetime
    """When the latest one began to act."""
    is_open: bool = False
    """Whether it failed, and may have been done all the same."""
    text: str | None = None
    tone: str = ""
    value: JsonObject = {}
    url: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the action has ended."""
        return self.text is not None

    @property
    def made_id(self) -> str:
        """The id of the one thing that the action makes, such as a job. Each repetition has the same."""
        return derived_id(self.begun_at.timestamp(), "receipt", self.id)


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

    `request` is what the action depends on. Of several calls at once, one acts: each begins by one
    compare-and-set. Raises RepeatRefused if the first action has not ended within ABANDONED seconds, and for
    a key that belongs to another request; InvalidValue.
    """
    found = receipt_id(key, who)
    digest = hashlib.blake2b(request, digest_size=16).hexdigest()
    now = broker.now()
    made = Receipt(id=found, who=who, request=digest, begun_at=now, tried_at=now)
    if _begin(broker, made, version=0):
        return made, True
    item = broker.state.get(RECEIPTS_NAMESPACE, found)
    first = None if item is None else _read(item)
    if item is None or first is None:  # released or expired just now
        raise RepeatRefused("the same request was refused at the same time: send it again")
    if first.request != digest:
        raise RepeatRefused("this key belongs to an earlier request: use a new key")
    if first.is_done:
        return first, False
    again = msgspec.structs.replace(first, tried_at=now, is_open=False)
    is_over = first.is_open or (now - first.tried_at).total_seconds() > ABANDONED
    if is_over and _begin(broker, again, version=item.version):
        return again, True
    raise RepeatRefused(
        f"the same request arrived at {first.tried_at:%H:%M:%S} UTC and has not ended: look at what it has "
        f"done, or send it again after {ABANDONED:g} s",
    )


def _begin(broker: Broker, receipt: Receipt, *, version: int) -> bool:
    value = _stored(receipt)
    stored = broker.state.compare_and_set(RECEIPTS_NAMESPACE, receipt.id, value, version=version, ttl=TTL)
    return stored is not None


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


def release_receipt(broker: Broker, begun: Receipt, *, is_open: bool) -> None:
    """Lets the request of an action that failed be sent again. `is_open`: the action may have been done, so
    what it makes keeps its id. An error of the broker is ignored: the request may then be repeated after
    ABANDONED seconds."""
    try:
        if is_open:
            value = _stored(msgspec.structs.replace(begun, is_open=True))
            broker.state.put(RECEIPTS_NAMESPACE, begun.id, value, ttl=TTL)
        else:
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
