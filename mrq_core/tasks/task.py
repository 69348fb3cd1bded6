"""Tasks: classes with a `run` method, and decorated functions with typed arguments.

A task is known by its canonical path ``module.Name``; nothing is registered. Its options are
class attributes, or arguments of the decorator; TASKS in the configuration overrides them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import msgspec

from mrq_core.contract.codec import JsonObject, checked_key, storable
from mrq_core.contract.messages import Limit
from mrq_core.contract.plain import has_type, names_of_class, printable, text_of
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import ConfigError, InvalidParams, InvalidValue, shown, shown_error
from mrq_core.tasks.limits import params_named
from mrq_core.tasks.options import OPTION_NAMES, TaskOptions, options_from

P = ParamSpec("P")
R = TypeVar("R")


class Task:
    """The base of task classes. Override `run`; a base class of a project may override `run_wrapped` to wrap
    every run. The attributes are options; see `TaskOptions`."""

    queue: ClassVar[str | None] = None
    priority: ClassVar[int | None] = None
    timeout: ClassVar[float | None] = None
    max_retries: ClassVar[int | None] = None
    retry_delay: ClassVar[float | None] = None
    retry_backoff: ClassVar[float | None] = None
    retry_max_delay: ClassVar[float | None] = None
    retry_jitter: ClassVar[bool | None] = None
    retry_on: ClassVar[tuple[type[BaseException], ...] | None] = None
    result_ttl: ClassVar[float | None] = None
    abort_ttl: ClassVar[float | None] = None
    cancel_ttl: ClassVar[float | None] = None
    default_ttl: ClassVar[float | None] = None
    at_most_once: ClassVar[bool | None] = None
    isolate: ClassVar[bool | None] = None
    memory: ClassVar[int | str | None] = None
    searchable: ClassVar[tuple[str, ...] | None] = None
    limits: ClassVar[dict[str, Limit] | None] = None
    every: ClassVar[float | None] = None
    cron: ClassVar[str | None] = None
    schedule: ClassVar[dict[str, Any] | None] = None

    decorated: ClassVar[object] = None
    """The function that `@task` has made this class for. None: a class of a project."""

    is_main_task: bool = True
    """Whether this is the task of the job, and not a task called by `run_task`."""

    def run(self, params: JsonObject) -> Any:
        """Does the work. The return value becomes the result of the job."""
        raise NotImplementedError(f"{path_of(type(self))} has no run method")

    def run_wrapped(self, params: JsonObject) -> Any:
        """Calls `run`. The worker calls this method."""
        return self.run(params)


class TaskFunction(Generic[P, R]):
    """A task made from a function. Calling the object calls the function."""

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        if not _is_function(function) or function.__name__ == "<lambda>":
            hint = ""
            if has_type(function, type):
                hint = "; a class becomes a task as a subclass of mrq_core.Task"
            elif has_type(function, TaskFunction):
                hint = ", and only once"
            raise TypeError(
                f"@task was given {shown(function)}: expected a function that was made by def{hint}"
            )
        first = next(iter(inspect.signature(function).parameters.values()), None)
        if first is not None and first.name in ("self", "cls") and first.kind is first.POSITIONAL_OR_KEYWORD:
            raise TypeError(
                f"{function.__qualname__} is a method, or its first argument is named as that of one, "
                f"{first.name}: a task is a function of a module, or a subclass of Task"
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__qualname__} is an async function: a task is a plain function, "
                "whose waiting on I/O gevent makes cooperative"
            )
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{function.__qualname__} is a generator function, whose code would never run: a task is a "
                "plain function that returns its result"
            )
        _check_params(function, options)
        self.function = function
        self.task_class = _class_of(self, options)
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<task {path_of(self)}>"

    def __reduce__(self) -> str:
        """Copies as itself, and pickles as its name in its module, like a function."""
        return self.function.__qualname__

    @functools.cached_property
    def _arguments(self) -> tuple[type[msgspec.Struct], bool]:
        return _arguments_of(self.function)

    def arguments_from(self, params: JsonObject) -> dict[str, Any]:
        """Converts params to keyword arguments of the declared types. Raises InvalidParams."""
        struct, takes_more = self._arguments
        names = struct.__struct_encode_fields__
        more = params.keys() - names
        if more:
            params = {checked_key(name, "params"): value for name, value in params.items()}
        if more and not takes_more:
            name = next(name for name in params if name in more)
            near = difflib.get_close_matches(name, names, n=1)
            raise InvalidParams(
                f"{path_of(self)} has no argument {shown(name)}"
                + (f"; did you mean {near[0]!r}?" if near else f": it takes {', '.join(names) or 'none'}")
            )
        try:
            try:
                converted = msgspec.convert(params, struct, strict=False)
            except msgspec.ValidationError:  # it takes no subclasses of numbers and texts
                converted = msgspec.convert(_as_stored(params), struct, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidParams(f"the params do not fit {path_of(self)}: {error}") from error
        except TypeError as error:
            raise InvalidParams(
                f"the types that {path_of(self)} declares cannot be converted to: {error}"
            ) from error
        arguments = dict(zip(names, msgspec.structs.astuple(converted), strict=True))
        if more:
            arguments.update((name, value) for name, value in params.items() if name in more)
        return arguments


TaskLike = str | type[Task] | TaskFunction[Any, Any]


@typing.overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...
@typing.overload
def task(**options: Any) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
def task(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Makes a task from a function. The params of a job become its keyword arguments.

    Used bare or with the options of `TaskOptions`::

        @task(queue="mail", retry_on=(ConnectionError,))
        def send(to: str, copies: int = 1) -> str: ...

    Arguments are converted to the annotated types before the function is called; params that do
    not fit fail the job with InvalidParams.
    """
    checked = options_from(options, where="@task")
    if function is not None:
        return TaskFunction(function, checked)
    return lambda decorated: TaskFunction(decorated, checked)


def path_of(task: TaskLike) -> str:
    """The canonical path of a task; a path is returned unchanged."""
    text = text_of(task)
    return ".".join(names_of(task)) if text is None else text  # type: ignore[arg-type]


def names_of(task: TaskFunction[Any, Any] | type[Task]) -> tuple[str, str]:
    """The module and the qualified name of a task. ``?``: no text."""
    if not has_type(task, TaskFunction):
        return names_of_class(task)  # type: ignore[arg-type]
    function = task.function
    return text_of(function.__module__) or "?", text_of(function.__qualname__) or "?"


def _as_stored(params: JsonObject) -> JsonObject:
    """The params of `run_task` with the values that the params of a job would have, where JSON has such."""
    stored: JsonObject = {}
    for name, value in params.items():
        key = checked_key(name, "params")
        try:
            stored[key] = storable(value, name=key, max_size=sys.maxsize)
        except InvalidValue:
            stored[key] = value
    return stored


def _is_function(value: object) -> bool:
    """Whether this is a function, or a proxy of one, as decorators of some libraries return it."""
    try:
        return inspect.isfunction(value)
    except Exception as error:  # code of the value: it may have a property `__class__`
        if raised_by_handler(error) is not None:
            raise
        return False


def _class_of(wrapped: TaskFunction[Any, Any], options: TaskOptions) -> type[Task]:
    """The Task subclass through which the worker runs a decorated function."""

    def run(self: Task, params: JsonObject) -> Any:
        return wrapped.function(**wrapped.arguments_from(params))

    attributes = {name: getattr(options, name) for name in OPTION_NAMES}
    doc = wrapped.function.__doc__
    return type(
        wrapped.function.__name__,
        (Task,),
        {
            **attributes,
            "run": run,
            "decorated": wrapped,
            "__module__": wrapped.function.__module__,
            "__qualname__": wrapped.function.__qualname__,
            "__doc__": None if doc is None else printable(str(doc)),  # a class takes UTF-8 only
        },
    )


def _check_params(function: Callable[..., Any], options: TaskOptions) -> None:
    """Raises ConfigError if a limit or a search key names a param that the function does not take."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    named = [("limits", name) for key in options.limits or {} for name in params_named(key)]
    named += [("searchable", name) for name in options.searchable or ()]
    for option, name in named:
        first = name.partition(".")[0]
        if first not in parameters:
            near = difflib.get_close_matches(first, parameters, n=1)
            raise ConfigError(
                f"@task: {option} names the param {shown(name)}, and {function.__qualname__} has no argument "
                f"{shown(first)}"
                + (
                    f"; did you mean {near[0]!r}?"
                    if near
                    else f": it takes {', '.join(parameters) or 'none'}"
                )
            )


def _arguments_of(function: Callable[..., Any]) -> tuple[type[msgspec.Struct], bool]:
    """A struct with the arguments of the function, and whether ``**kwargs`` accepts others.

    The fields have neutral names, because a struct refuses names that Python allows for an argument, such as
    ``__init__``. Their encoded names are the names of the arguments."""
    hints = _hints_of(function)
    fields: list[Any] = []
    takes_more = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_more = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise InvalidParams(
                f"{function.__qualname__} takes {name!r} by position: params have names, so the arguments "
                "of a task must be ordinary or keyword-only ones"
            )
        elif parameter.default is parameter.empty:
            fields.append((f"a{len(fields)}", hints.get(name, Any), msgspec.field(name=name)))
        else:
            fields.append((f"a{len(fields)}", hints.get(name, Any), _field_with(name, parameter.default)))
    return msgspec.defstruct(function.__name__, fields, kw_only=True), takes_more


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments. The return annotation is ignored and need not resolve."""
    inner = inspect.unwrap(function)
    annotations = {name: value for name, value in inner.__annotations__.items() if name != "return"}
    holder = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, inner.__globals__, include_extras=True)
    except Exception as error:
        raise InvalidParams(
            f"an annotation of {function.__module__}.{function.__qualname__} cannot be resolved "
            f"({shown_error(error)}): "
            "the types of a task's arguments must exist when it runs, not only for a type checker"
        ) from error


def _field_with(name: str, default: object) -> Any:
    """A field with the default of the function itself, even a mutable default."""

    def factory() -> object:
        return default

    return msgspec.field(name=name, default_factory=factory)
