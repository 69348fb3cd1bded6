"""Reads the inputs of a request, from its query, form or JSON body, into the Struct that a page declares."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mrq_core.contract.codec import parsed
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.queries.query_parts import LONGEST
from mrq_dashboard.auth import SAFE_METHODS
from mrq_dashboard.guard import is_utf8

QueryText = Annotated[
    str, Meta(max_length=LONGEST, description="A query, such as `status:failed queue:main/`.")
]
Duration = float | Annotated[str, Meta(max_length=100)]
"""Seconds, or a text such as ``15m``, which `mrq_core.operations.queries.filters` reads."""

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 2000
_PATH = re.compile(r"at `\$\.(\w+)")
"""The input that an error of msgspec names."""
_EXPECTED = re.compile(
    r"Expected `(int|float|bool|str)(?: \| null)?`(?: of length)?(?: ([<>]=?) (-?[\d.]+))?"
)
"""What an error of msgspec expects."""
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
_RELATIONS = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}
OWN = frozenset({"_once", "_back", "_done"})
"""Names that pages and forms send beside the inputs: see `mrq_dashboard.acting`."""


class Sent(NamedTuple):
    """What a request has sent: the inputs, and the values of `OWN`."""

    inputs: msgspec.Struct
    own: dict[str, str]


async def read_inputs(request: Request, kind: type[msgspec.Struct], *, is_page: bool) -> Sent:
    """The inputs. Raises InvalidValue for an unknown name, a wrong value or a repeated one.

    Numbers and switches of a query or form are texts: ``7``, ``true``. An empty text of a query or form
    counts as not given, because forms of browsers send each field. ``argument.x`` is the item ``x`` of a
    dict `argument`. Only pages have names of `OWN`. The inputs of a program's action stand in its body: a
    `dry_run` in the address would be overlooked. Raises ClientDisconnect if the body does not come whole."""
    if request.method not in SAFE_METHODS and not is_page and request.query_params:
        name = next(iter(request.query_params))
        raise InvalidValue(
            f"the address has the input {shown(name)}: expected all inputs of an action in its body",
            path=name,
        )
    items = await items_of(request)
    if items is None:
        return Sent(await _from_json(request, kind), {})
    own = {name: text for name, text in items if is_page and name in OWN}
    return Sent(_from_texts([item for item in items if item[0] not in own], kind), own)


def inputs_among(items: Iterable[tuple[str, str]], kind: type[msgspec.Struct]) -> msgspec.Struct:
    """The inputs of another page among the items. Raises InvalidValue."""
    return _from_texts([item for item in items if item[0] in kind.__struct_fields__], kind)


async def items_of(request: Request) -> list[tuple[str, str]] | None:
    """The names and texts of a query or form. None: the body is no form."""
    if request.method in SAFE_METHODS:
        return request.query_params.multi_items()
    if _content_type(request) != _FORM:
        return None
    if not is_utf8(await request.body()):
        raise InvalidValue("the form has bytes that are not UTF-8, such as %ff", path="body")
    try:
        form = await request.form(max_fields=_MOST_FIELDS)
    except HTTPException as error:
        raise InvalidValue(f"the form cannot be read: {error.detail}", path="body") from error
    return [(name, str(value)) for name, value in form.multi_items()]


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_json(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    content = _content_type(request)
    body = await request.body()
    if not body:
        return _converted({}, kind, strict=True)
    if content != "application/json":
        raise InvalidValue(
            f"the content type is {shown(content)}: expected application/json or {_FORM}", path="content-type"
        )
    try:
        value = parsed(body.decode(), name="body")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"the body is not valid JSON: {error}", path="body") from error
    return _converted(value, kind, strict=True)


def _from_texts(items: Iterable[tuple[str, str]], kind: type[msgspec.Struct]) -> msgspec.Struct:
    origins = {name: get_origin(hint) for name, hint in get_type_hints(kind).items()}
    values: dict[str, Any] = {}
    for name, text in items:
        first, dot, key = name.partition(".")
        if text == "":
            continue
        if origins.get(name) in (tuple, list):
            values.setdefault(name, []).append(text)
        elif dot and origins.get(first) is dict:
            if key in values.setdefault(first, {}):
                raise InvalidValue(f"{name} is given twice: expected one value", path=name)
            values[first][key] = text
        elif name in values:
            raise InvalidValue(f"{name} is given twice: expected one value", path=name)
        else:
            values[name] = text
    return _converted(values, kind, strict=False)


def _converted(value: object, kind: type[msgspec.Struct], *, strict: bool) -> msgspec.Struct:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        told = None if strict else _in_words(value, str(error))
        if told is not None:
            raise told from error
        names = [field.encode_name for field in msgspec.structs.fields(kind)]
        found = _PATH.search(str(error))
        path = found[1] if found is not None and found[1] in names else "inputs"
        choices = _choices(kind, path) if "enum" in str(error) else ()
        expected = f": expected one of {', '.join(choices)}" if choices else ""
        text = f"{error}{expected}; the inputs here: {', '.join(names) or 'no inputs'}"
        raise InvalidValue(text, path=path) from error


def _in_words(values: object, error: str) -> InvalidValue | None:
    """What is wrong with the text of a field. None: `error` says it itself."""
    path, found = _PATH.search(error), _EXPECTED.match(error)
    text = values.get(path[1]) if isinstance(values, dict) and path is not None else None
    if path is None or found is None or not isinstance(text, str):
        return None
    kind, relation, bound = found.groups()
    expected = f"expected {_KINDS[kind]}"
    if kind == "str":
        expected = f"expected {'at least' if relation == '>=' else 'at most'} {bound} characters"
    elif bound is not None:
        expected += f" {_RELATIONS[relation]} {bound}"
    return InvalidValue(f"{path[1]} is {shown(text)}: {expected}", path=path[1])


def _choices(kind: type[msgspec.Struct], name: str) -> tuple[str, ...]:
    """The values of an input that has a few. Empty: it has others."""
    schema = msgspec.json.schema(kind)
    field = schema["$defs"][kind.__name__]["properties"].get(name, {})
    parts = [field, *field.get("anyOf", ())]
    return tuple(str(value) for part in parts for value in part.get("enum", ()))
