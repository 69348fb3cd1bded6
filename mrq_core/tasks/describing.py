"""Describes tasks for people and for processes that do not have their code.

A description is made without code of the task: no `repr` of a default or of a type, and no evaluation of an
annotation, unless the caller allows it. Everything in a description is bounded.
"""

from __future__ import annotations

import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mrq_core.config.secrets import hide_secrets
from mrq_core.contract.codec import JsonObject, JsonValue, encode
from mrq_core.contract.plain import printable
from mrq_core.tasks.loading import LoadedTask
from mrq_core.tasks.task import Task, TaskFunction

LARGEST = 8192
"""Bytes of a description as JSON."""
MOST_ARGUMENTS = 100
_DOC, _SHORT_DOC = 2000, 300
_TEXT, _ITEMS, _DEEPEST = 200, 20, 4
"""Characters of a text, items of a list, and levels that a description keeps of a value."""
_SCHEMA = 2000
"""Bytes of the schema of one argument."""
_METACLASSES = frozenset({type, type(msgspec.Struct), enum.EnumMeta})
_PLAIN_MODULES = frozenset({"typing", "types", "builtins", "typing_extensions"})
_OPTIONS = ("queue", "priority", "timeout", "result_ttl", "abort_ttl", "cancel_ttl", "default_ttl",
            "at_most_once", "isolate", "memory", "every", "cron")  # fmt: skip


class ArgumentDescription(msgspec.Struct, frozen=True, kw_only=True):
    """An argument of a task.

    `type` is the annotated type in words, and `schema` its JSON schema; None where the type has none, or is
    not evaluated. `default` is a JSON value; `default_text` describes a default that is none.
    """

    name: str
    type: str = "any"
    schema: JsonObject | None = None
    required: bool = False
    default: JsonValue = None
    default_text: str | None = None


class TaskDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A task as a worker has loaded it.

    `arguments` is None for a class, whose `run` takes all params. `takes_more`: the function also takes
    arguments with other names. `options` has the resolved options; durations are seconds. `file` and `line`
    say where the code is. `version` is that of mrq. `notices` say what was cut.
    """

    path: str
    doc: str = ""
    arguments: tuple[ArgumentDescription, ...] | None = None
    takes_more: bool = False
    options: JsonObject = {}
    file: str = ""
    line: int = 0
    version: str = ""
    notices: tuple[str, ...] = ()


def describe(loaded: LoadedTask, *, version: str = "", evaluates: bool = False) -> TaskDescription:
    """Describes a loaded task, in at most 8 KB. Never raises an Exception.

    `evaluates`: annotations that are text are evaluated, which runs code of the task's module. Otherwise
    their text is the type, unless a job of this process has had them evaluated.
    """
    function = _function_of(loaded.task_class)
    try:
        arguments, takes_more = _arguments(function, evaluates) if function is not None else (None, False)
        notices: tuple[str, ...] = ()
    except Exception:  # code of the task, such as an odd annotation
        arguments, takes_more = None, True
        notices = ("the arguments cannot be described",)
    if arguments is not None and len(arguments) > MOST_ARGUMENTS:
        notices = (*notices, f"the task has {len(arguments)} arguments; the first {MOST_ARGUMENTS} are shown")
        arguments = arguments[:MOST_ARGUMENTS]
    file, line = _source(loaded.task_class, function)
    made = TaskDescription(
        path=loaded.path,
        doc=_doc(loaded.task_class),
        arguments=arguments,
        takes_more=takes_more,
        options=_options(loaded),
        file=file,
        line=line,
        version=version,
        notices=notices,
    )
    return _fitting(made)


def _function_of(task_class: type[Task]) -> TaskFunction[Any, Any] | None:
    """The decorated function behind the class, if the task was made by `@task`."""
    found = vars(task_class).get("decorated")
    return typing.cast(TaskFunction[Any, Any], found) if issubclass(type(found), TaskFunction) else None


# --- arguments ---------------------------------------------------------------------------------


def _arguments(task: TaskFunction[Any, Any], evaluates: bool) -> tuple[tuple[ArgumentDescription, ...], bool]:
    hints = _hints(task, evaluates)
    described, takes_more = [], False
    for name, parameter in inspect.signature(task.function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_more = True
            continue
        hint = hints.get(name, Any)
        required = parameter.default is parameter.empty
        default, text = (None, None) if required else _default(name, parameter.default)
        described.append(
            ArgumentDescription(
                name=printable(name)[:_TEXT],
                type=printable(_words(hint))[:_TEXT],
                schema=_schema(hint),
                required=required,
                default=default,
                default_text=text,
            )
        )
    return tuple(described), takes_more


def _hints(task: TaskFunction[Any, Any], evaluates: bool) -> Mapping[str, Any]:
    """The annotations by the name of the argument, evaluated where that needs no code of the task."""
    function = inspect.unwrap(task.function)
    known = vars(task).get("_arguments")
    if known is None and evaluates:
        try:
            known = task._arguments
        except Exception:  # an annotation that cannot be resolved
            known = None
    if known is not None:
        struct = known[0]
        return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    return dict(function.__annotations__)


def _schema(hint: Any) -> JsonObject | None:
    """The JSON schema of a type. None: msgspec knows none, or would call code of a metaclass."""
    if hint is Any or not _is_plain(hint):
        return None
    try:
        schema = msgspec.json.schema(hint)
        return schema if len(msgspec.json.encode(schema)) <= _SCHEMA else None
    except Exception:  # a type that msgspec does not know, or code of the type
        return None


def _is_plain(hint: Any, depth: int = 0) -> bool:
    """Whether a type consists of classes without a metaclass of a project."""
    kind = type(hint)
    if hint is None or hint is ... or kind in _METACLASSES:
        return True
    if kind.__module__ not in _PLAIN_MODULES or issubclass(kind, str) or depth > _DEEPEST:
        return False
    if typing.get_origin(hint) is typing.Literal:
        return True
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _is_plain(arguments[0], depth + 1) and all(type(one) is msgspec.Meta for one in arguments[1:])
    return all(_is_plain(one, depth + 1) for one in arguments)


def _words(hint: Any, depth: int = 0) -> str:
    """A type in words, such as ``list[int] | None``, without code of the type."""
    if type(hint) is str:
        return hint[:_TEXT]
    if hint is None or hint is types.NoneType:
        return "None"
    if hint is Any or depth > _DEEPEST:
        return "any"
    if issubclass(type(hint), type) and type(hint).__module__ != "types":
        return _name_of(hint)
    if type(hint).__module__ not in _PLAIN_MODULES:
        return _name_of(type(hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_words(one, depth + 1) for one in arguments[:_ITEMS])
    if origin is typing.Literal:
        return " | ".join(_literal(one) for one in arguments[:_ITEMS])
    if origin is typing.Annotated:
        return _words(arguments[0], depth + 1)
    if origin is not None:
        inside = ", ".join("..." if one is ... else _words(one, depth + 1) for one in arguments[:_ITEMS])
        return f"{_words(origin, depth + 1)}[{inside}]" if inside else _words(origin, depth + 1)
    return _name_of(type(hint))


def _literal(value: object) -> str:
    default, text = _default("", value)
    return text or encode(default).decode()


def _name_of(kind: type) -> str:
    """The name of a class, whatever its metaclass does."""
    return str(vars(type)["__qualname__"].__get__(kind))[:_TEXT]


def _default(name: str, value: object) -> tuple[JsonValue, str | None]:
    """A default as a JSON value, or else in words. Values with secret names are hidden."""
    try:
        return typing.cast(JsonValue, hide_secrets(name, _plain(value))), None
    except ValueError:
        pass
    kind = type(value)
    if issubclass(kind, enum.Enum):
        member = vars(value).get("_name_") if hasattr(kind, "_member_map_") else None
        return None, f"{_name_of(kind)}.{member}"[:_TEXT] if type(member) is str else _name_of(kind)
    if issubclass(kind, type):
        return None, _name_of(typing.cast(type, value))
    return None, f"<{_name_of(kind)}>"


def _plain(value: object, depth: int = 0) -> JsonValue:
    """A bounded copy of a JSON value. Raises ValueError for other values. Calls no code of the value: only
    values of exactly these types are read."""
    kind = type(value)
    if value is None or kind is bool:
        return typing.cast(JsonValue, value)
    if kind is int:
        number = typing.cast(int, value)
        if -(2**63) <= number < 2**63:
            return number
    elif kind is float:
        if math.isfinite(typing.cast(float, value)):
            return typing.cast(float, value)
    elif kind is str:
        return printable(typing.cast(str, value)[:_TEXT])
    elif kind in (list, tuple) and depth < _DEEPEST:
        items = typing.cast(list[object], value)
        return [_plain(item, depth + 1) for item in items[:_ITEMS]]
    elif kind is dict and depth < _DEEPEST:
        pairs = list(typing.cast(dict[object, object], value).items())[:_ITEMS]
        if all(type(key) is str for key, _ in pairs):
            return {printable(str(key)[:_TEXT]): _plain(item, depth + 1) for key, item in pairs}
    raise ValueError


# --- the rest ----------------------------------------------------------------------------------


def _doc(task_class: type[Task]) -> str:
    """The first characters of the docstring."""
    doc = vars(task_class).get("__doc__")
    return printable(inspect.cleandoc(doc[: 2 * _DOC])[:_DOC]) if type(doc) is str else ""


def _source(task_class: type[Task], task: TaskFunction[Any, Any] | None) -> tuple[str, int]:
    run = inspect.unwrap(task.function) if task is not None else vars(task_class).get("run")
    code = run.__code__ if isinstance(run, types.FunctionType) else None
    return (printable(code.co_filename)[:1000], code.co_firstlineno) if code is not None else ("", 0)


def _options(loaded: LoadedTask) -> JsonObject:
    rule = loaded.retry
    options: JsonObject = {name: getattr(loaded, name) for name in _OPTIONS}
    options |= {
        "max_retries": rule.max_retries,
        "retry_delay": rule.delay,
        "retry_backoff": rule.backoff,
        "retry_max_delay": rule.max_delay,
        "retry_jitter": rule.jitter,
        "retry_on": [_name_of(kind) for kind in rule.retry_on[:_ITEMS]],
        "searchable": list(loaded.searchable),
        "limits": {key: msgspec.to_builtins(limit) for key, limit in list(loaded.limits.items())[:_ITEMS]},
    }
    if loaded.schedule is not None:
        options["schedule"] = _default("schedule", dict(loaded.schedule))[0]
    return options


def _fitting(made: TaskDescription) -> TaskDescription:
    """The description in at most LARGEST bytes: it loses its schemas, its defaults, the end of its doc, and
    then arguments."""
    replace = msgspec.structs.replace

    def without_schemas(one: TaskDescription) -> TaskDescription:
        arguments = tuple(replace(argument, schema=None) for argument in one.arguments or ())
        return replace(one, arguments=one.arguments and arguments)

    def without_defaults(one: TaskDescription) -> TaskDescription:
        arguments = tuple(
            argument if argument.required else replace(argument, default=None, default_text="...")
            for argument in one.arguments or ()
        )
        return replace(one, arguments=one.arguments and arguments)

    steps: list[tuple[str, Callable[[TaskDescription], TaskDescription]]] = [
        ("the schemas of the arguments are left out", without_schemas),
        ("the defaults are left out", without_defaults),
        ("the doc is cut", lambda one: replace(one, doc=one.doc[:_SHORT_DOC])),
        ("only some arguments are shown", lambda one: replace(one, arguments=(one.arguments or ())[:_ITEMS])),
        ("options are left out", lambda one: replace(one, options={"queue": one.options["queue"]})),
        ("arguments are left out", lambda one: replace(one, arguments=None, takes_more=True)),
    ]
    for notice, step in steps:
        if len(msgspec.json.encode(made)) <= LARGEST:
            break
        made = replace(step(made), notices=(*made.notices, notice))
    return made
