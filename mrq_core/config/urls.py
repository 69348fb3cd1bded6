"""The URL and the prefix of a driver whose data have a prefix on a server."""

from __future__ import annotations

from mrq_core.config.settings import default_of, hide_password, without_option
from mrq_core.contract.driver import Opening
from mrq_core.errors import ConfigError


def url_and_prefix(opening: Opening, setting: str, prefix_setting: str) -> tuple[str, str]:
    """The URL without its option `prefix`, and the prefix: that of the URL, or of its setting.

    `setting` holds the URL where BROKER or STORE is only a name. Raises ConfigError for two different
    prefixes.
    """
    url, in_url = without_option(opening.url or str(opening.settings.get(setting) or ""), "prefix")
    prefix = str(opening.settings.get(prefix_setting) or "")
    if in_url is None or in_url == prefix:
        return url, prefix
    if prefix not in ("", default_of(prefix_setting)):
        raise ConfigError(
            f"two prefixes are given: {in_url!r} in the URL {hide_password(url)!r}, and {prefix!r} in "
            f"{prefix_setting}: remove one of them"
        )
    return url, in_url


def why_wrong(url: str, error: Exception) -> str:
    """Why a URL cannot be read. The text of an error may contain a part of a password that is not encoded."""
    if "@" in url:
        return "are user and password percent-encoded, and is the port a number?"
    return str(error)
