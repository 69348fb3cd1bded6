"""Finds drivers and plugins, and opens the configured broker.

This is the only place that looks up drivers, and it knows none of them by name: what an entry
point of the group ``mrq`` brings is what there is.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib import metadata

import pluggy

from mrq_core.clock import Clock, SystemClock
from mrq_core.composed import ComposedBroker
from mrq_core.config.settings import Config, hide_password
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.driver import Driver, Opening, RunBlocking, run_directly
from mrq_core.errors import ConfigError, DriverNotFound
from mrq_core.plugins import hookspecs

ENTRY_POINT_GROUP = "mrq"
_log = logging.getLogger("mrq.plugins")


class Plugins:
    """The plugins of a process: those installed, those named in PLUGINS, and the config file itself.

    Raises ConfigError where one cannot be loaded, naming it and what it raised.
    """

    def __init__(self, config: Config) -> None:
        self._manager = pluggy.PluginManager("mrq")
        self._manager.add_hookspecs(hookspecs)
        self.versions: dict[str, str] = {}
        """Where each loaded plugin came from: a distribution and its version, or a setting."""
        for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "entry point"
            self._register(point.name, point.load, origin)
        for name in config.plugins:
            self._register(name, lambda name=name: importlib.import_module(name), "PLUGINS")
        if config.module is not None:
            self._register("config file", lambda: config.module, "config file")
        self.hook = self._manager.hook
        self._implemented = frozenset(
            name
            for name, caller in vars(self.hook).items()
            if name.startswith("mrq_") and caller.get_hookimpls()
        )
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigError(f"the plugin {error.plugin!r} implements no hook of mrq: {error}") from error
        self.drivers: Mapping[str, Driver] = _by_name(self.hook.mrq_driver())

    def _register(self, name: str, load: object, origin: str) -> None:
        try:
            self._manager.register(load(), name=name)  # type: ignore[operator]
        except Exception as error:
            raise ConfigError(
                f"the plugin {name} ({origin}) cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        self.versions[name] = origin

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements the hook; where none does, it need not be called."""
        return hook in self._implemented

    def hooks_of(self, plugin: str) -> list[str]:
        """The names of the hooks that a plugin implements."""
        found = self._manager.get_plugin(plugin)
        callers = self._manager.get_hookcallers(found) if found is not None else None
        return sorted(caller.name for caller in callers or ())

    def observe(self, hook: str, **values: object) -> None:
        """Calls the observers of a hook one by one; an error in one is logged and stops no other."""
        for implementation in getattr(self.hook, hook).get_hookimpls():
            try:
                implementation.function(*[values[name] for name in implementation.argnames])
            except Exception:
                _log.exception("plugin.failed hook=%s plugin=%s", hook, implementation.plugin_name)

    def job_wrappers(self) -> list[pluggy.HookImpl]:
        """The wrappers of `mrq_around_job`, the outermost first: in the order of the plugins, with `tryfirst`
        before and `trylast` after the others. Raises ConfigError for an implementation that is no wrapper."""
        found = self.hook.mrq_around_job.get_hookimpls()
        for implementation in found:
            if not implementation.wrapper:
                raise ConfigError(
                    f"mrq_around_job of the plugin {implementation.plugin_name} is not a wrapper: expected a "
                    "generator function marked with @hookimpl(wrapper=True)"
                )
        names = list(self.versions)
        return sorted(found, key=lambda one: (one.trylast, not one.tryfirst, names.index(one.plugin_name)))

    def encode(self, value: JsonValue) -> JsonValue:
        """The stored form of a value."""
        if not self.implements("mrq_encode"):
            return value
        encoded = self.hook.mrq_encode(value=value)
        return value if encoded is None else encoded

    def decode(self, value: JsonValue) -> JsonValue:
        """The value that `encode` was given."""
        if not self.implements("mrq_decode"):
            return value
        decoded = self.hook.mrq_decode(value=value)
        return value if decoded is None else decoded

    def encode_params(self, params: JsonObject) -> JsonObject:
        """The params as they are stored, which must be a dict too. Raises ConfigError."""
        encoded = self.encode(params)
        if not isinstance(encoded, dict):
            raise ConfigError(
                f"a plugin's mrq_encode made a {type(encoded).__name__} of params: expected a dict"
            )
        return encoded

    def driver_for(self, wanted: str, *, setting: str = "BROKER") -> tuple[Driver, str | None]:
        """The driver for the value of BROKER or STORE, with the URL if that is one. Raises DriverNotFound."""
        installed = tuple(sorted(self.drivers))
        scheme, separator, _ = wanted.partition("://")
        if not separator:
            if wanted in self.drivers:
                return self.drivers[wanted], None
        else:
            for driver in self.drivers.values():
                if scheme in driver.url_schemes:
                    return driver, wanted
        what = f"opens URLs that start with {scheme}://" if separator else f"has the name {wanted!r}"
        raise DriverNotFound(
            f"no installed {setting.lower()} driver {what}: installed are {', '.join(installed) or 'none'} "
            "(see `mrq plugins`)",
            wanted=wanted,
            installed=installed,
        )


def open_broker(
    config: Config,
    plugins: Plugins,
    *,
    run_blocking: RunBlocking = run_directly,
    clock: Clock | None = None,
) -> Broker:
    """The configured broker, not yet connected: of one driver, or of two where STORE names another one for
    the records. Raises ConfigError."""

    def opening(url: str | None) -> Opening:
        return Opening(
            settings=config.as_dict(),
            url=url,
            clock=clock or SystemClock(),
            run_blocking=run_blocking,
            timeout=config.broker_timeout,
        )

    driver, url = plugins.driver_for(config.broker)
    if not config.store:
        if driver.open_broker is None:
            raise ConfigError(f"the driver {driver.name} is half of a broker and cannot be used alone")
        return driver.open_broker(opening(url))
    store, store_url = plugins.driver_for(config.store, setting="STORE")
    if store.name == driver.name:
        raise ConfigError(
            f"BROKER and STORE are both {driver.name}: expected STORE to be another driver, or nothing where "
            "the records are kept by the broker"
        )
    if driver.open_queue is None:
        raise ConfigError(
            f"the driver {driver.name} keeps its records itself, and STORE is {hide_password(config.store)}: "
            f"leave STORE empty, or set BROKER to one of {_names(plugins, 'open_queue')}"
        )
    if store.open_store is None:
        raise ConfigError(
            f"the driver {store.name} cannot keep the records of another broker's jobs: leave STORE empty, "
            f"or set it to one of {_names(plugins, 'open_store')}"
        )
    return ComposedBroker(driver.open_queue(opening(url)), store.open_store(opening(store_url)))


def _names(plugins: Plugins, part: str) -> str:
    """The drivers that have this part."""
    return ", ".join(sorted(d.name for d in plugins.drivers.values() if getattr(d, part))) or "none"


def _by_name(drivers: list[Driver]) -> dict[str, Driver]:
    found: dict[str, Driver] = {}
    for driver in drivers:
        if driver.name in found:
            raise ConfigError(f"two plugins bring a broker driver named {driver.name!r}: remove one of them")
        found[driver.name] = driver
    return found
