"""Secrets in params that a person gives back as they were shown: with ``***`` in place of their values."""

from __future__ import annotations

import itertools

from mrq_core.config.secrets import HIDDEN, is_secret
from mrq_core.contract.codec import MAX_DEPTH, JsonObject, JsonValue
from mrq_core.errors import InvalidValue


def params_with_secrets(params: JsonObject, original: JsonObject) -> JsonObject:
    """The params with the secrets of the original where they have ``***`` for the value of a key that looks
    secret, as `views.redacted` shows them. A new job has an empty original.

    Raises InvalidValue for a ``***`` that stands for nothing. Values that are nested deeper than params may
    be are left: they are refused later.
    """
    return {key: _restored(key, item, original, f"params.{key}", 1) for key, item in params.items()}


def _restored(key: str, item: JsonValue, known: JsonObject, name: str, depth: int) -> JsonValue:
    if item != HIDDEN or not is_secret(key, item):
        return _with_secrets(item, known.get(key), name, depth)
    if not is_secret(key, known.get(key)):
        raise InvalidValue(f"{name} is ***, which stands for no known secret: expected the value", path=name)
    return known[key]


def _with_secrets(value: JsonValue, original: JsonValue, name: str, depth: int) -> JsonValue:
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        known: JsonObject = original if isinstance(original, dict) else {}
        return {key: _restored(key, item, known, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        items = original if isinstance(original, list) else []
        pairs = itertools.zip_longest(value, items[: len(value)])
        return [
            _with_secrets(item, known_item, f"{name}[{index}]", depth + 1)
            for index, (item, known_item) in enumerate(pairs)
        ]
    return value
