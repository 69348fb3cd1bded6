"""The entry points of installed distributions. Imports little: a worker reads them before gevent patches the
library."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from mrq_core.config.hidden import explained
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.errors import ConfigError, shown, shown_error


def entry_points(**wanted: str) -> metadata.EntryPoints:
    """The entry points with this group or name, or all. Raises ConfigError, which names the distribution
    whose entry points cannot be read."""
    try:
        library: Any = metadata
        found: metadata.EntryPoints = library.entry_points(**wanted)
        return found
    except Exception as error:  # a replaced module, or a damaged distribution
        refuse_to_wrap(error)
        damaged = _damaged()
        where = "" if damaged is None else f"the entry points in {damaged} cannot be read: "
        text = f"the installed plugins cannot be listed: {where}{shown_error(error)}"
        if damaged is not None:
            text = f"{text}. Install that distribution again, or remove it"
        raise ConfigError(explained(text, error)) from error


def _damaged() -> str | None:
    """The first distribution whose entry points cannot be read."""
    distribution = None
    try:
        for distribution in metadata.distributions():
            tuple(distribution.entry_points)
    except Exception:
        return None if distribution is None else _folder_of(distribution)
    return None


def name_of(distribution: metadata.Distribution | None) -> str:
    """The name and the version of a distribution, or its folder if the metadata there cannot be read."""
    if distribution is None:
        return "entry point"
    try:
        name, version = distribution.name, distribution.version
    except Exception:  # the file is damaged, or missing
        return _folder_of(distribution)
    return f"{name} {version}" if name and version else _folder_of(distribution)


def _folder_of(distribution: metadata.Distribution) -> str:
    return str(getattr(distribution, "_path", None) or shown(distribution))


def loaded(point: metadata.EntryPoint) -> object:
    """What the entry point leads to. Raises what the import raises."""
    if point.pattern.match(point.value) is None:
        raise ConfigError(
            f"its entry point is {shown(point.value)}: expected a module, such as shop.mrq_plugin, or an "
            "object in a module, such as shop.mrq_plugin:hooks"
        )
    found: object = point.load()
    return found
