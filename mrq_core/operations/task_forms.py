"""Forms for the arguments of a task, made from what workers have published of it, and the params they give.

This module does no I/O. A worker may have another version of the code: it checks the params again.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from mrq_core.config.secrets import hide_secrets
from mrq_core.contract.codec import JsonObject, JsonValue, parsed
from mrq_core.errors import InvalidValue, shown
from mrq_core.tasks.describing import ArgumentDescription, TaskDescription


class FieldKind(StrEnum):
    """How the text of a field becomes a value."""

    TEXT = "text"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"
    JSON = "json"
    ANY = "any"
    """JSON, or else the text itself."""


class ArgumentField(msgspec.Struct, frozen=True, kw_only=True):
    """A field for an argument. `choices`: the JSON of each allowed value. `default`: the value that the task
    takes without the argument, in words; None where it is required."""

    name: str
    type: str
    kind: FieldKind
    required: bool
    default: str | None
    choices: tuple[str, ...] = ()


def fields_of(description: TaskDescription) -> tuple[ArgumentField, ...]:
    """The fields of a form. None are known for a class, whose `run` takes all params."""
    return tuple(map(_field, description.arguments or ()))


def params_from_texts(description: TaskDescription | None, texts: Mapping[str, str]) -> JsonObject:
    """The params in the texts of fields, by argument. An empty text means the default of the task.

    Raises InvalidValue, whose path is ``argument.NAME``."""
    fields = {field.name: field for field in (fields_of(description) if description is not None else ())}
    params: JsonObject = {}
    for name, text in texts.items():
        if text != "":
            kind = fields[name].kind if name in fields else FieldKind.ANY
            params[name] = _value(name, text, kind)
    return params


def check_params(description: TaskDescription | None, params: JsonObject, *, where: str = "params") -> None:
    """Raises InvalidValue unless the params fit the published arguments as far as these tell: names, required
    arguments, and JSON types. The path is ``<where>.NAME``."""
    if description is None or description.arguments is None:
        return
    known = {argument.name: argument for argument in description.arguments}
    # The list of a description may be cut, which a notice says.
    is_cut = any("argument" in notice for notice in description.notices)
    for name in params:
        if name not in known and not description.takes_more and not is_cut:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known) or 'no arguments'}"
            raise InvalidValue(f"the task has no argument {shown(name)}: {hint}", path=f"{where}.{name}")
    for name, argument in known.items():
        if name not in params:
            if argument.required:
                raise InvalidValue(
                    f"the argument {name} is missing: expected {argument.type}", path=f"{where}.{name}"
                )
        elif argument.schema is not None and not _fits(argument.schema, params[name]):
            raise InvalidValue(
                f"{name} is {shown(hide_secrets(name, params[name]))}: expected {argument.type}",
                path=f"{where}.{name}",
            )


def _field(argument: ArgumentDescription) -> ArgumentField:
    default = None
    if not argument.required:
        default = argument.default_text or msgspec.json.encode(argument.default).decode()
    kind, choices = _kind(argument.schema)
    return ArgumentField(
        name=argument.name,
        type=argument.type,
        kind=kind,
        required=argument.required,
        default=default,
        choices=choices,
    )


_KINDS = {
    "string": FieldKind.TEXT,
    "integer": FieldKind.NUMBER,
    "number": FieldKind.NUMBER,
    "boolean": FieldKind.SWITCH,
    "array": FieldKind.JSON,
    "object": FieldKind.JSON,
}


def _kind(schema: JsonObject | None) -> tuple[FieldKind, tuple[str, ...]]:
    if schema is None:
        return FieldKind.ANY, ()
    kinds = [one for one in _alternatives(schema) if one.get("type") != "null"]
    if len(kinds) != 1:
        return FieldKind.ANY, ()
    [only] = kinds
    values = only.get("enum")
    if isinstance(values, list):
        return FieldKind.CHOICE, tuple(msgspec.json.encode(value).decode() for value in values)
    return _KINDS.get(str(only.get("type")), FieldKind.ANY), ()


def _value(name: str, text: str, kind: FieldKind) -> JsonValue:
    if kind is FieldKind.TEXT:
        return text
    try:
        return parsed(text, name=f"argument.{name}")
    except msgspec.DecodeError:
        if kind is FieldKind.ANY:
            return text
        expected = {FieldKind.NUMBER: "a number", FieldKind.SWITCH: "true or false"}.get(kind, "JSON")
        raise InvalidValue(f"{name} is {shown(text)}: expected {expected}", path=f"argument.{name}") from None


def _alternatives(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The schemas of which a value must fit one, without references."""
    definitions = schema.get("$defs", {})
    found = []
    for one in schema.get("anyOf", [schema]):
        name = str(one.get("$ref", "")).removeprefix("#/$defs/")
        found.append(definitions.get(name, {}) if name else one)
    return found


def _fits(schema: JsonObject, value: JsonValue) -> bool:
    """Whether the value has a type that the schema allows; deeper parts of the schema are not compared."""
    return any(_fits_one(one, value) for one in _alternatives(schema))


def _fits_one(schema: Mapping[str, Any], value: JsonValue) -> bool:
    if "enum" in schema:
        return any(type(one) is type(value) and one == value for one in schema["enum"])
    match schema.get("type"):
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return True
