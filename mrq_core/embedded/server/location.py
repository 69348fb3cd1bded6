"""Where the file is: from the URL, or from the setting SQLITE."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from urllib.parse import unquote

from mrq_core.config.secrets import shown_url
from mrq_core.contract.driver import Opening
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable, ConfigError

_SMALLEST = 512
"""The bytes of the smallest page of SQLite: a database is empty or has a whole page."""
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_FORMS = "expected sqlite:///relative/path or sqlite:////absolute/path"


def path_of(opening: Opening) -> str:
    """The absolute path of the file. Fixed from here on, whatever becomes of the working directory."""
    if opening.url is None:
        path = str(opening.settings.get("SQLITE") or "")
        if not path:
            raise ConfigError("the setting SQLITE is empty: expected the path of the embedded broker's file")
        if _URL.match(path):
            raise ConfigError(
                f"the setting SQLITE is {shown_url(path)!r}, which is a URL: expected the path of the "
                "embedded broker's file; a URL goes into BROKER"
            )
    else:
        path = _path_in(opening.url)
    if path.endswith("/") or "\0" in path:
        raise ConfigError(f"the path {path!r} of the embedded broker's file does not name a file: {_FORMS}")
    if path.startswith((":memory:", "file:")):
        raise ConfigError(
            f"the embedded broker cannot use {path!r}: expected the path of a file that several connections "
            "and processes can open"
        )
    try:
        absolute = opening.folders.absolute(path)
    except OSError as error:
        raise ConfigError(
            f"the path {path!r} of the embedded broker's file is relative, and the working directory is gone "
            f"({error.strerror}): change to another directory, or name an absolute path in SQLITE or the URL"
        ) from error
    kind = _other_kind_at(absolute)
    if kind:
        raise ConfigError(f"{absolute} is {kind}: name a file in SQLITE or the URL")
    return absolute


def _path_in(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme != "sqlite" or not separator or not rest.startswith("/"):
        raise ConfigError(f"the URL {shown_url(url)!r} does not name a file: {_FORMS}")
    path, question, _ = rest[1:].partition("?")
    if question:
        raise ConfigError(
            f"the URL {shown_url(url)!r} has options, and the embedded broker has none: {_FORMS}"
        )
    if not path:
        raise ConfigError(f"the URL {shown_url(url)!r} has no path: {_FORMS}")
    return unquote(path)


def refuse_other_file(path: str) -> None:
    """Raises BrokerError if the path names anything but a new file, an empty file or a file that SQLite may
    read.

    SQLite would open a device or a pipe, leave its journal beside it, and overwrite a file of one byte. The
    contents are left to SQLite: to open and close the file here would drop the locks that this process has on
    it (sqlite.org/howtocorrupt.html).
    """
    kind = _other_kind_at(path)
    if kind:
        raise BrokerUnavailable(f"{path} is {kind}: name a file in SQLITE or the URL")
    with suppress(OSError):  # no file, or opening it tells why
        if 0 < os.stat(path).st_size < _SMALLEST:
            raise not_a_database(path)


def _other_kind_at(path: str) -> str:
    """What is at the path, if that is not a file. Empty for a file, or if nothing is found there."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    return "a directory" if stat.S_ISDIR(mode) else "a device, pipe or socket"


def not_a_database(path: str) -> BrokerCorrupt:
    """The error for a file of another format."""
    return BrokerCorrupt(
        f"{path} is not an SQLite database: name another path in SQLITE or the URL, or move that file "
        "away and a new one will be made"
    )


def make_parent(path: str) -> None:
    """Creates the directory of the file. Raises BrokerUnavailable."""
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, exist_ok=True)
    except FileExistsError as error:
        raise BrokerUnavailable(
            f"{parent}, the directory of the embedded broker's file, is a file: name another path in "
            "SQLITE or the URL"
        ) from error
    except OSError as error:
        raise BrokerUnavailable(
            f"the directory {parent} for the embedded broker's file cannot be made ({error.strerror}): "
            "make it, or name another path in SQLITE or the URL"
        ) from error
