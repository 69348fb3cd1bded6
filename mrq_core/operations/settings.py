"""The settings in force, with the source of each and without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from mrq_core.config.settings import SETTINGS, Config
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.plain import printable
from mrq_core.errors import shown

_ENVIRONMENT = "environment variable "
_DEEPEST, _ITEMS, _TEXT = 6, 200, 2000
"""Levels, items and characters that a shown value keeps."""


class SourceKind(StrEnum):
    """Where the value of a setting comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


class SettingInForce(msgspec.Struct, frozen=True, kw_only=True):
    """A setting, or another upper-case name of the config file: then `is_setting` is False and `help` empty.

    `value` is a JSON value with secrets as ``***``; other values are shown as text. `source` names the file,
    the environment variable or the flag; it is empty for a default.
    """

    name: str
    value: JsonValue
    kind: SourceKind
    source: str = ""
    group: str = ""
    help: str = ""
    is_setting: bool = True


def settings_in_force(config: Config) -> list[SettingInForce]:
    """All settings, in the order of the documentation, then the other names of the config file. No I/O."""
    values = config.redacted()
    file = str(getattr(config.module, "__file__", ""))
    found = []
    for name, setting in SETTINGS.items():
        source = config.sources.get(name, "")
        found.append(
            SettingInForce(
                name=name,
                value=_json(values[name]),
                kind=_kind(source),
                source=printable(source),
                group=setting.group,
                help=setting.help,
            )
        )
    for name in sorted(config.user):
        value = _json(values[name])
        found.append(
            SettingInForce(name=name, value=value, kind=SourceKind.FILE, source=file, is_setting=False)
        )
    return found


def _kind(source: str) -> SourceKind:
    if not source:
        return SourceKind.DEFAULT
    if source.startswith(_ENVIRONMENT):
        return SourceKind.ENVIRONMENT
    if source.startswith(("--", "configure(")):
        return SourceKind.COMMAND_LINE
    return SourceKind.FILE


def _json(value: object, depth: int = 0) -> JsonValue:
    """The value as bounded JSON; what JSON does not have, such as a function, as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 2**63:
        return value
    if isinstance(value, str):
        return printable(value[:_TEXT])
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else shown(key): _json(item, depth + 1)
            for key, item in list(value.items())[:_ITEMS]
        }
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_json(item, depth + 1) for item in list(value)[:_ITEMS]]
    return shown(value)
