"""The limit keys of a job, made of the limits of its task and the params of the job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from mrq_core.config.secrets import is_secret
from mrq_core.contract.codec import JsonObject, encode
from mrq_core.contract.messages import Limit
from mrq_core.contract.terms import keys_in
from mrq_core.drivers.limits import rule_of
from mrq_core.errors import InvalidValue, shown

_PARAM = re.compile(r"\{([^{}]+)\}")
_VALUE_MAX = 100


def limit_keys_in(params: JsonObject, keys: Iterable[str]) -> tuple[str, ...]:
    """The limit keys of a job with these params: each ``{name}`` becomes the value of the param.

    A missing value, a list or a dict counts as ``null``. A value of over 100 characters, with characters that
    cannot be printed, or whose name looks secret, counts by its digest: keys are stored and shown.
    """
    return tuple(_PARAM.sub(lambda found: _text_of(params, found[1]), key) for key in keys)


def params_named(key: str) -> list[str]:
    """The names of params in a limit key. Raises InvalidValue where it has other braces."""
    if set("{}") & set(_PARAM.sub("", key)):
        raise InvalidValue(
            f"the limit {shown(key)} has a brace too many: expected names of params in braces, such as "
            "'customer:{customer}'",
            path="limits",
        )
    return _PARAM.findall(key)


def rules_in(limits: Mapping[str, Limit]) -> dict[str, Limit]:
    """The limit rules of a task by name."""
    return {rule_of(key): limit for key, limit in limits.items()}


def _text_of(params: JsonObject, name: str) -> str:
    value = keys_in(params, (name,)).get(name)
    text = value if isinstance(value, str) else encode(value).decode()
    if text.isprintable() and 0 < len(text) <= _VALUE_MAX and not is_secret(name, value):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:32]
