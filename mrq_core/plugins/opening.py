"""Chooses the configured driver, and opens the broker."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from mrq_core.clock import Clock, SystemClock
from mrq_core.composed import ComposedBroker
from mrq_core.config.hidden import explained
from mrq_core.config.importing import forgetting_interrupted
from mrq_core.config.loading import Loading, loading, loading_again
from mrq_core.config.secrets import hide_login, hide_password
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver, Opening, RunBlocking, run_directly
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.drivers import open_files
from mrq_core.errors import BrokerUnavailable, ConfigError, DriverNotFound, MrqError, shortened, shown_error
from mrq_core.plugins.manager import Plugins


def open_broker(
    config: Config,
    plugins: Plugins,
    *,
    run_blocking: RunBlocking = run_directly,
    clock: Clock | None = None,
    again: bool = False,
) -> Broker:
    """Opens the configured broker, without connecting: of one driver, or of two drivers if STORE names
    another driver for the records. `again`: this process has opened it before, and another native thread
    needs its own. Raises ConfigError."""
    named = " with STORE ".join(hide_login(one) for one in (config.broker, config.store) if one)
    with (loading_again if again else loading)(Loading(f"the driver of the broker {named}", config)):
        try:
            with forgetting_interrupted():
                return _opened(config, plugins, run_blocking, clock)
        except MrqError:
            raise
        except Exception as error:  # of an import, or of the driver
            refuse_to_wrap(error)
            if open_files.are_used_up(error):
                raise BrokerUnavailable(f"the broker cannot be opened: {open_files.advice()}") from error
            if isinstance(error, RuntimeError) and "atexit after shutdown" in str(error):
                raise BrokerUnavailable(
                    f"the broker {named} cannot be opened while the interpreter ends: its modules cannot be "
                    "imported any more. Make a first call earlier"
                ) from error
            text = f"the broker {named} cannot be opened: {shown_error(error)}"
            raise ConfigError(explained(text, error, anywhere=True)) from error


def _opened(config: Config, plugins: Plugins, run_blocking: RunBlocking, clock: Clock | None) -> Broker:
    def opening(url: str | None) -> Opening:
        return Opening(
            settings=config.as_dict(),
            given=frozenset(config.sources),
            url=url,
            clock=clock or SystemClock(),
            run_blocking=run_blocking,
            timeout=config.broker_timeout,
            folders=config.folders,
        )

    driver, url = driver_for(plugins.drivers, config.broker)
    if not config.store:
        if driver.open_broker is None:
            raise ConfigError(f"the driver {driver.name} is half of a broker and cannot be used alone")
        return driver.open_broker(opening(url))
    store, store_url = driver_for(plugins.drivers, config.store, setting="STORE")
    if store.name == driver.name:
        raise ConfigError(
            f"BROKER and STORE are both {driver.name}: expected STORE to be another driver, or nothing where "
            "the records are kept by the broker"
        )
    if driver.open_queue is None:
        raise ConfigError(
            f"the driver {driver.name} keeps its records itself, and STORE is {hide_login(config.store)}: "
            f"leave STORE empty, or set BROKER to one of {_names(plugins, 'open_queue')}"
        )
    if store.open_store is None:
        raise ConfigError(
            f"the driver {store.name} cannot keep the records of another broker's jobs: leave STORE empty, "
            f"or set it to one of {_names(plugins, 'open_store')}"
        )
    return ComposedBroker(driver.open_queue(opening(url)), store.open_store(opening(store_url)))


def _names(plugins: Plugins, part: str) -> str:
    """The names of the drivers that have this part."""
    return ", ".join(sorted(d.name for d in plugins.drivers.values() if getattr(d, part))) or "none"


def driver_for(
    drivers: Mapping[str, Driver], wanted: str, *, setting: str = "BROKER"
) -> tuple[Driver, str | None]:
    """The driver for the value of BROKER or STORE, and the URL if the value is a URL.

    Raises DriverNotFound.
    """
    installed = tuple(sorted(drivers))
    scheme, separator, rest = wanted.partition("://")
    scheme = scheme.lower()
    if not separator:
        if wanted in drivers:
            return drivers[wanted], None
    else:
        for driver in drivers.values():
            if scheme in driver.url_schemes:
                return driver, f"{scheme}://{rest}"
    what = (
        f"opens URLs that start with {shortened(hide_password(f'{scheme}://'))}"
        if separator
        else f"has the name {shortened(hide_login(wanted))!r}"
    )
    raise DriverNotFound(
        f"no installed {setting.lower()} driver {what}: installed are {', '.join(installed) or 'none'} "
        f"(see `mrq plugins`){_hint(drivers, scheme)}",
        wanted=wanted,
        installed=installed,
    )


def _hint(drivers: Mapping[str, Driver], name: str) -> str:
    """The driver whose name or scheme is near."""
    schemes = {scheme: driver.name for driver in drivers.values() for scheme in driver.url_schemes}
    name = name.partition(":")[0].lower()
    near = difflib.get_close_matches(name, [*drivers, *schemes], n=1, cutoff=0.7)
    if not near:
        return ""
    url = [f"a URL that starts with {near[0]}://"] if near[0] in schemes else []
    return f"; did you mean {' or '.join([schemes.get(near[0], near[0]), *url])}?"
