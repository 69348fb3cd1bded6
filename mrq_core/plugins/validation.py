"""Refuses plugins with hook implementations that mrq would ignore or could not call."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType

import pluggy

from mrq_core.contract.plain import has_type
from mrq_core.errors import ConfigError, type_name
from mrq_core.plugins import hookspecs
from mrq_core.plugins.hookspecs import FUNCTION, KINDS, WRAPPER


def check_plugin(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Raises ConfigError for the first implementation that cannot work; names the plugin, the hook and
    the reason. An implementation with ``optionalhook=True`` of a hook that does not exist is allowed. A
    module may have no hooks; another object without hooks is a mistake."""
    has_hooks = inspect.ismodule(plugin)
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            problem = _problem_without_mark(plugin, attribute)
        else:
            has_hooks = True
            hook = options.get("specname") or attribute
            problem = _problem(hook, getattr(plugin, attribute), options)
        if problem is not None:
            raise ConfigError(f"the plugin {name} cannot be used: {attribute} {problem}")
    if not has_hooks:
        raise ConfigError(
            f"the plugin {name} cannot be used: it is of type {type_name(type(plugin))} and has no hooks: "
            "expected a module, or an object whose methods are marked with @hookimpl"
        )


def may_be_function(value: object) -> bool:
    """Whether this may be a function of a plugin, as its class or module holds it. Asks the type alone:
    `isinstance` evaluates lazy objects, such as the settings of Django."""
    kind = type(value)
    if inspect.getattr_static(kind, "__get__", None) is None:
        return issubclass(kind, BuiltinFunctionType)
    return not issubclass(kind, property)


def _problem(hook: str, function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    if hook not in KINDS:
        return None if options.get("optionalhook") else _unknown_hook(hook)
    return _wrong_kind(hook, function, options) or _wrong_arguments(hook, function)


def _unknown_hook(hook: str) -> str:
    near = difflib.get_close_matches(hook, KINDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "`mrq plugins` and the page Plugins list the hooks"
    return f"implements {hook}, which is not a hook of mrq; {hint}"


def _problem_without_mark(plugin: object, attribute: str) -> str | None:
    """A function of a plugin's own module that has the name of a hook is meant to implement the hook."""
    value = inspect.getattr_static(plugin, attribute, None)
    if not has_type(value, property) and not may_be_function(value):
        if _has_mark(value):
            return "is marked with @hookimpl, but is not a function: mark functions of the module"
        kind = value if has_type(value, type) else type(value)
        if inspect.ismodule(plugin) and kind.__module__ == plugin.__name__:
            marked = next((name for name, method in vars(kind).items() if _has_mark(method)), None)
            if marked is not None:
                return (
                    f"has the method {marked}, which is marked with @hookimpl and would not be called: mrq "
                    "calls functions of the module itself"
                )
    if attribute not in KINDS:
        return None
    function = getattr(plugin, attribute, None)
    is_own = inspect.isfunction(function) and function.__module__ == getattr(plugin, "__name__", None)
    return "is named like a hook, but is not marked with @hookimpl" if is_own else None


def _has_mark(value: object) -> bool:
    """Whether @hookimpl has marked this object. Runs no code of it."""
    return inspect.getattr_static(value, f"{hookspecs.hookimpl.project_name}_impl", None) is not None


def _wrong_kind(hook: str, function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    is_generator = inspect.isgeneratorfunction(function)
    expected = "expected an ordinary function" if FUNCTION in KINDS[hook] else _EXPECTED_WRAPPER
    if options.get("hookwrapper"):
        better = _EXPECTED_WRAPPER if WRAPPER in KINDS[hook] else expected
        return f"is an old-style wrapper (hookwrapper=True), which mrq does not call: {better}"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return f"is an async function, which mrq does not await: {expected}"
    if options.get("wrapper"):
        if WRAPPER not in KINDS[hook]:
            return f"is a wrapper, and mrq does not call wrappers of {hook}: {expected}"
        return (
            None if is_generator else "is marked as a wrapper, but is not a generator function with one yield"
        )
    if FUNCTION not in KINDS[hook]:
        return f"is not a wrapper, and mrq calls only wrappers of {hook}: {expected}"
    if is_generator:
        return f"is a generator function, whose code would never run: {expected} that returns its result"
    return None


_EXPECTED_WRAPPER = "expected a generator function with one yield, marked with @hookimpl(wrapper=True)"


def _wrong_arguments(hook: str, function: Callable[..., object]) -> str | None:
    """mrq passes arguments by position, those that the implementation names, and leaves out arguments with
    a default, like pluggy."""
    known = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    takes = f"{hook} takes {', '.join(known) or 'no arguments'}"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"takes {str(parameter).partition(':')[0]}, which would stay empty: {takes}"
        if parameter.name not in known:
            return f"has the argument {parameter.name!r}, which the hook does not have: {takes}"
        if parameter.default is not parameter.empty:
            return f"gives {parameter.name!r} a default, so mrq would never pass it: expected no default"
        if parameter.kind is parameter.KEYWORD_ONLY:
            return f"takes {parameter.name!r} by keyword only, but mrq passes arguments by position"
    return None
