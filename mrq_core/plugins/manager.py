"""Finds drivers and plugins, and calls plugins.

The rest of mrq calls plugins through `Plugins`: `observe` for hooks that only watch, and `before_enqueue`,
`encode` and `decode` for hooks that change data. Two hooks run elsewhere, for every job: `mrq_around_job` in
`worker/around.py`, and `mrq_retry_decision` in `worker/outcomes.py`.

Only this module finds drivers, and `plugins/opening.py` chooses among them. Neither knows any by name: the
entry points of the group ``mrq`` bring them.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from types import ModuleType
from typing import Any

import pluggy
from msgspec.structs import replace

from mrq_core.config.hidden import explained
from mrq_core.config.importing import forgetting_interrupted
from mrq_core.config.loading import Loading, loading, told_of
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject, JsonValue, copied, storable_params
from mrq_core.contract.driver import Driver
from mrq_core.contract.exception_fields import add_note
from mrq_core.contract.forked_code import end_child
from mrq_core.contract.plain import from_other_copy
from mrq_core.contract.plain_tracebacks import log_error
from mrq_core.contract.record import JobRecord
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.contract.values import check_changes
from mrq_core.drivers import open_files
from mrq_core.errors import (
    BrokerUnavailable,
    ConfigError,
    InvalidValue,
    MrqError,
    shortened,
    shown,
    shown_error,
    type_name,
)
from mrq_core.plugins import hookspecs, installed
from mrq_core.plugins.validation import check_plugin, may_be_function

ENTRY_POINT_GROUP = "mrq"
ENCODED_FACTOR = 2
"""How much larger than its limit a value may be after `mrq_encode`, for instance in base64."""
_log = logging.getLogger("mrq.plugins")
_called_for_drivers: ContextVar[tuple[str, ...]] = ContextVar("mrq_called_for_drivers", default=())
"""The plugins whose `mrq_driver` this code runs in."""
_is_decoding: ContextVar[bool] = ContextVar("mrq_is_decoding", default=False)


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Leaves out what is no function: pluggy evaluates properties and lazy objects, which may raise."""
        if may_be_function(inspect.getattr_static(plugin, name, None)):
            return super().parse_hookimpl_opts(plugin, name)
        return None


class Plugins:
    """The plugins of a process: installed plugins, those of PLUGINS, and the config file.

    Raises ConfigError for a plugin that cannot be loaded or used, with its name and the reason.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._manager = _Manager("mrq")
        self._manager.add_hookspecs(hookspecs)
        self.origins: dict[str, str] = {}
        """The origin of each loaded plugin: a distribution with its version, or a setting."""
        with loading(Loading("a plugin", config)) as go_on:
            self._load(config, go_on)
            self.hook = self._manager.hook
            self._implementations = {
                hook: tuple(reversed(found))
                for hook in hookspecs.KINDS
                if (found := getattr(self.hook, hook).get_hookimpls())
            }
            self._refuse_shared_functions()
            self.drivers: Mapping[str, Driver] = self._drivers(go_on)

    def _load(self, config: Config, go_on: Callable[[str], None]) -> None:
        for point in installed.entry_points(group=ENTRY_POINT_GROUP):
            origin = installed.name_of(point.dist)
            go_on(_named(point.name, origin))
            self._register(point.name, partial(installed.loaded, point), origin)
        for name in config.plugins:
            _check_name(name)
            go_on(_named(name, "PLUGINS"))
            self._register(name, partial(_imported, name), "PLUGINS")
        if config.module is not None:
            go_on(_named("config file", "config file"))
            self._register("config file", lambda: config.module, "config file")

    def _register(self, name: str, load: Callable[[], object], origin: str) -> None:
        is_loaded, named = False, _named(name, origin)
        try:
            with forgetting_interrupted():
                plugin = load()
            if plugin is None:
                raise ImportError("its module replaced itself with None")
            is_loaded = True
            self._add(name, plugin, origin)
        except BaseException as error:  # code of the plugin: its module, or its `__dir__` and `__eq__`
            refuse_to_wrap(error)
            is_ours, told = issubclass(type(error), ConfigError), told_of(named, error)
            if is_ours and (is_loaded or told.startswith(f"ConfigError: {named} cannot be loaded: ")):
                raise  # it names the plugin, which is loaded again for a client that it makes
            if open_files.are_used_up(error):
                raise BrokerUnavailable(f"{named} cannot be loaded: {open_files.advice()}") from error
            raise ConfigError(explained(f"{named} cannot be loaded: {told}", error)) from error

    def _add(self, name: str, plugin: object, origin: str) -> None:
        other = self._manager.get_name(plugin)
        if other == name:
            raise ConfigError(
                f"the plugin {name} is loaded twice: by {self.origins[name]} and by {origin}. Remove one "
                "of them"
            )
        if other is not None:
            raise ConfigError(
                f"the plugin {name} ({origin}) is loaded twice: it is the plugin {other} "
                f"({self.origins[other]}). Remove one of them"
            )
        if name in self.origins:
            raise ConfigError(
                f"two plugins have the name {name}: one of {self.origins[name]} and one of {origin}. Rename "
                "one of them"
            )
        check_plugin(self._manager, plugin, f"{name} ({origin})")
        self._manager.register(plugin, name=name)
        self.origins[name] = origin

    def _refuse_shared_functions(self) -> None:
        """Raises ConfigError where two plugins have the same function, which would be called twice."""
        for hook, implementations in self._implementations.items():
            owners: dict[object, str] = {}
            for implementation in implementations:
                other = owners.setdefault(implementation.function, implementation.plugin_name)
                if other != implementation.plugin_name:
                    raise ConfigError(
                        f"{hook} of {implementation.function.__module__} is loaded twice: by the plugin "
                        f"{other} and by the plugin {implementation.plugin_name}. Remove one of them"
                    )

    def _drivers(self, go_on: Callable[[str], None]) -> dict[str, Driver]:
        found: dict[str, Driver] = {}
        owners: dict[str, str] = {}
        for implementation in self.implementations("mrq_driver"):
            plugin = implementation.plugin_name
            go_on(f"the driver of the plugin {plugin}")
            driver = _driver_of(implementation)
            if driver is None:
                continue
            if not isinstance(driver, Driver):
                raise ConfigError(
                    f"mrq_driver of the plugin {plugin} returned a {type(driver).__name__}: expected a "
                    f"Driver{from_other_copy(driver, Driver)}"
                )
            if driver.name in found:
                raise ConfigError(
                    f"two plugins bring a broker driver named {driver.name!r}: {owners[driver.name]} and "
                    f"{plugin}. Remove one of them"
                )
            found[driver.name], owners[driver.name] = driver, plugin
        return found

    def implements(self, hook: str) -> bool:
        """Whether a plugin implements the hook. Without an implementation the hook need not be called."""
        return hook in self._implementations

    def implementations(self, hook: str) -> tuple[pluggy.HookImpl, ...]:
        """The implementations of a hook in the order of their calls; see `hookspecs`."""
        return self._implementations.get(hook, ())

    def hooks_of(self, plugin: str) -> list[str]:
        """The names of the hooks that a plugin implements."""
        found = self._manager.get_plugin(plugin)
        callers = self._manager.get_hookcallers(found) if found is not None else None
        return sorted(caller.name for caller in callers or ())

    def observe(
        self,
        hook: str,
        *,
        caught: type[BaseException] | tuple[type[BaseException], ...] = (Exception, SystemExit),
        after_each: Callable[[], None] | None = None,
        **values: object,
    ) -> None:
        """Calls the observers of a hook one by one, and `after_each` after each of them. Logs the error of an
        observer and calls the next. Raises errors that are not `caught`, such as an interrupt of the
        caller."""
        process = os.getpid()
        for implementation in self.implementations(hook):
            try:
                implementation.function(*[values[name] for name in implementation.argnames])
            except BaseException as error:
                end_child(error, process)
                if issubclass(type(error), KeyboardInterrupt):
                    refuse_to_wrap(error)
                elif not issubclass(type(error), caught):
                    raise
                try:
                    plugin = implementation.plugin_name
                    log_error(_log, "plugin.failed hook=%s plugin=%s", hook, plugin, error=error)
                except caught:
                    pass  # a broken log handler
            if after_each is not None:
                after_each()

    def job_wrappers(self) -> list[pluggy.HookImpl]:
        """The wrappers of `mrq_around_job`, the outermost first: in the order of loading, `tryfirst`
        before and `trylast` after the others."""
        names = list(self.origins)

        def order(wrapper: pluggy.HookImpl) -> tuple[bool, bool, int]:
            return wrapper.trylast, not wrapper.tryfirst, names.index(wrapper.plugin_name)

        return sorted(self.implementations("mrq_around_job"), key=order)

    def before_enqueue(self, record: JobRecord) -> JobRecord:
        """The record after the chain of `mrq_before_enqueue`. Checks in-place changes like returned records.

        Raises the error of a plugin that refuses the job, with a note that names the plugin. Raises
        ConfigError for a plugin that exits, or that makes a record that cannot be enqueued.
        """
        process = os.getpid()
        for implementation in self.implementations("mrq_before_enqueue"):
            where = f"mrq_before_enqueue of the plugin {implementation.plugin_name}"
            # Jobs of one call share their meta, and `record` must keep the fields that are compared.
            given = replace(record, meta=copied(record.meta))
            try:
                changed = implementation.function(*[given for _ in implementation.argnames])
            except (SystemExit, KeyboardInterrupt, RecursionError) as error:
                end_child(error, process)
                refuse_to_wrap(error)
                is_endless = issubclass(type(error), RecursionError)
                hint = "; if it queues a job, it is called again for that job" if is_endless else ""
                raise ConfigError(
                    f"{where} raised {shown_error(error)}: the job is not queued{hint}"
                ) from error
            except BaseException as error:
                end_child(error, process)
                note = f"raised by {where}: the job is not queued"
                add_note(error, note)
                raise
            done = "left" if changed is None or changed is given else "returned"
            found: Any = given if changed is None else changed
            expected = f"expected None, or a JobRecord with the id {record.id!r}"
            if not issubclass(type(found), JobRecord):
                raise ConfigError(f"{where} returned a {type_name(type(found))}: {expected}")
            try:
                if found.id != record.id:
                    raise ConfigError(
                        f"{where} returned a JobRecord with the id {shown(found.id)}: {expected}"
                    )
                record = check_changes(record, found, max_params_size=self._config.max_params_size)
            except InvalidValue as error:
                raise ConfigError(f"{where} {done} a record whose {error}") from error
            except MrqError:
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # of code of its values
                refuse_to_wrap(error)
                why = shown_error(error)
                raise ConfigError(f"{where} {done} a record that cannot be read: {why}") from error
        return record

    def encode(self, value: JsonValue) -> JsonValue:
        """The stored form of a value. The worker fails a job whose encoded result cannot be stored."""
        if not self.implements("mrq_encode"):
            return value
        encoded: JsonValue = self._first("mrq_encode", value)
        return value if encoded is None else encoded

    def encode_params(self, params: JsonObject) -> JsonObject:
        """The stored form of params. Raises ConfigError if a plugin returns no dict that can be stored."""
        if not self.implements("mrq_encode"):
            return params
        encoded = self.encode(params)
        try:
            return storable_params(encoded, max_size=self._config.max_params_size)
        except InvalidValue as error:
            raise ConfigError(
                f"mrq_encode of {self.owners('mrq_encode')} returned a value that cannot be stored: {error}"
            ) from error

    def _first(self, hook: str, value: JsonValue) -> Any:
        """The first result of a hook that transforms a value. Adds the plugins to its error; a plugin that
        exits raises ConfigError."""
        process = os.getpid()
        try:
            return getattr(self.hook, hook)(value=value)
        except (SystemExit, KeyboardInterrupt, RecursionError) as error:
            end_child(error, process)
            refuse_to_wrap(error)
            raise ConfigError(f"{hook} of {self.owners(hook)} raised {shown_error(error)}") from error
        except BaseException as error:
            end_child(error, process)
            note = f"raised by {hook} of {self.owners(hook)}"
            add_note(error, note)
            raise

    def owners(self, hook: str) -> str:
        """The plugins that implement a hook of which the first result counts."""
        return " or ".join(f"the plugin {one.plugin_name}" for one in self.implementations(hook))

    def decode(self, value: JsonValue) -> JsonValue:
        """The value before `encode`. Inside the hook, which may read a record, it stays as stored."""
        if not self.implements("mrq_decode") or _is_decoding.get():
            return value
        decoding = _is_decoding.set(True)
        try:
            decoded = self._first("mrq_decode", value)
        finally:
            _is_decoding.reset(decoding)
        return value if decoded is None else decoded


def _check_name(name: object) -> None:
    """Raises ConfigError for an item of PLUGINS that cannot name a module."""
    parts = name.split(".") if isinstance(name, str) else [""]
    if not all(part and part.isprintable() and not set(part) & set("/\\ ") for part in parts):
        raise ConfigError(f"PLUGINS has {shown(name)}: expected paths of modules, such as app.plugins")


def _driver_of(implementation: pluggy.HookImpl) -> object:
    """What `mrq_driver` of a plugin returns. Raises ConfigError if it fails."""
    plugin, process = implementation.plugin_name, os.getpid()
    failed, outer = f"mrq_driver of the plugin {plugin} failed", _called_for_drivers.get()
    if plugin in outer:
        raise ConfigError(
            f"{failed}: it makes a client, which would call it again: call configure in the program, or with "
            "plugins=[]"
        )
    calling = _called_for_drivers.set((*outer, plugin))
    try:
        return implementation.function()
    except BaseException as error:
        end_child(error, process)
        refuse_to_wrap(error)
        told = told_of(f"the driver of the plugin {plugin}", error)
        if issubclass(type(error), ConfigError) and told.startswith(f"ConfigError: {failed}: "):
            raise  # it names the plugin already
        raise ConfigError(f"{failed}: {told}") from error
    finally:
        _called_for_drivers.reset(calling)


def _named(name: str, origin: str) -> str:
    """A plugin as errors name it."""
    return f"the plugin {shortened(name)} ({origin})"


def _imported(name: str) -> ModuleType:
    """The module of a plugin. Raises ConfigError in the module itself, whose hooks are not complete yet."""
    module = importlib.import_module(name)
    # A module may have replaced itself with an object, whose code must not run here.
    if getattr(inspect.getattr_static(module, "__spec__", None), "_initializing", False):
        raise ConfigError(
            "it makes a client while it is loaded, and that client would load it again: call configure in "
            "the program, or with plugins=[]"
        )
    return module
