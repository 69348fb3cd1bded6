"""The URL and the prefix of a driver whose data have a prefix on a server."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urlsplit, urlunsplit

from mrq_core.config.secrets import is_part_hidden, shown_url
from mrq_core.config.settings import default_of
from mrq_core.contract.driver import Opening
from mrq_core.contract.folders import Folders
from mrq_core.errors import ConfigError


def url_and_prefix(
    opening: Opening, setting: str, prefix_setting: str, files: Collection[str]
) -> tuple[str, str]:
    """The URL without its option `prefix`, with absolute paths of files, and its scheme in small letters; and
    the prefix: that of the URL, or of its setting.

    `setting` holds the URL where BROKER or STORE is only a name. `files` names the options that hold paths,
    in lower case. The default of a prefix counts only if it was given.

    Raises ConfigError for two different prefixes, and for a `#`: to client libraries it ends the URL, and one
    in a password even its host.
    """
    url = opening.url or str(opening.settings.get(setting) or "")
    if "#" in url:
        raise ConfigError(
            f"the URL {shown_url(url)!r} is wrong (it has a #): expected %23 in place of a # in a password, "
            "a name or a path, since user and password have to be percent-encoded"
        )
    scheme, separator, rest = url.partition("://")
    if separator:
        url = f"{scheme.lower()}://{rest}"
    url, in_url = without_option(url, "prefix")
    url = _with_absolute_files(url, opening.folders, files)
    prefix = str(opening.settings.get(prefix_setting) or "")
    if in_url is None or in_url == prefix:
        return url, prefix
    if prefix_setting in opening.given or prefix not in ("", default_of(prefix_setting)):
        raise ConfigError(
            f"two prefixes are given: {in_url!r} in the URL {shown_url(url)!r}, and {prefix!r} in "
            f"{prefix_setting}: remove one of them"
        )
    return url, in_url


def _with_absolute_files(url: str, folders: Folders, files: Collection[str]) -> str:
    """A client may read the files whenever it connects, when the working directory may be another one."""

    def absolute(found: re.Match[str]) -> str:
        if found[1].lower() not in files:
            return found[0]
        try:
            path = folders.absolute(unquote_plus(found[2]))
        except OSError:  # there is no working directory
            return found[0]
        return f"{found[1]}={quote(path)}"

    return re.sub(r"(?<=[?&])(\w+)=(?![/&])([^&]+)", absolute, url)


def without_option(url: str, name: str) -> tuple[str, str | None]:
    """The URL without one of its options, and the value of the option. None: the URL has no such option, or
    cannot be read; its driver says why. Raises ConfigError for an option that is given twice."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, None
    options = parse_qsl(parts.query, keep_blank_values=True)
    values = [value for option, value in options if option == name]
    if not values:
        return url, None
    if len(values) > 1:
        raise ConfigError(
            f"the URL {shown_url(url)!r} has the option {name} {len(values)} times: expected it once"
        )
    query = urlencode([(option, value) for option, value in options if option != name])
    path = parts.path or ("/" if query else "")
    return urlunsplit(parts._replace(query=query, path=path)), values[0]


def is_host(name: str) -> bool:
    """Whether a resolver takes this as the name of a host."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return name.isprintable() and " " not in name


def why_wrong(url: str, error: Exception) -> str:
    """Why a URL cannot be read. The text of an error may contain a part of a password that is not encoded."""
    text = " ".join(str(error).split())
    if is_part_hidden(text, url):
        return "are user and password percent-encoded, and is the port a number?"
    return text
