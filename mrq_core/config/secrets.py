"""Hides secrets: values whose names look secret, and the passwords and options of URLs."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from urllib.parse import unquote

from mrq_core.errors import shortened

HIDDEN = "***"
_CONTAINERS = (Mapping, list, tuple, AbstractSet)

_SECRET_WORDS = frozenset({"authorization", "bearer", "creds", "jwt", "passcode", "pwd"})
_KEYS = ("access", "api", "encryption", "master", "private", "secret", "signing", "ssh")
_TOKENS = ("access", "api", "auth", "bearer", "csrf", "refresh", "session")
_SECRET_PAIRS = frozenset(
    {
        ("pass", "word"),
        ("session", "id"),
        *((kind, word) for kind in _KEYS for word in ("key", "keys")),
        *((kind, "tokens") for kind in _TOKENS),
    }
)
_FOLLOWED = (
    *("password", "passwd", "passphrase", "secret", "token", "cookie", "credential", "credentials"),
    *("apikey", "secretkey", "accesskey", "privatekey"),
)
_FOLLOWING = (
    *("base", "confirm", "confirmation", "hash", "id", "ids", "json", "key", "keybase", "new", "old", "pem"),
    *("repeat", "v", "value", "values"),
)
"""What may follow a secret within a word, as in `passwordhash`."""
_HOLDERS = (
    *("admin", "api", "app", "auth", "db", "ftp", "imap", "ldap", "login", "mail", "mysql", "pg", "proxy"),
    *("redis", "root", "smtp", "ssh", "user"),
)
"""What has a `pass`, as in `dbpass`. `bypass` is none."""
_SECRET_ENDS = (
    *("password", "passwords", "passwd", "passphrase", "secret", "secrets", "token", "cookie", "cookies"),
    *("credential", "credentials", "httpauth", "proxyauthorization"),
    *("".join(pair) for pair in _SECRET_PAIRS),
    *(f"{kind}keyid" for kind in _KEYS),
    *(f"{word}{what}" for word in _FOLLOWED for what in _FOLLOWING),
    "pwd",
    *(f"{holder}pass" for holder in _HOLDERS),
)
"""Ends of words, as of `awssecretaccesskey`. A word with a secret in front is none of itself: `secretary`."""
_FIRST_OF_NUMBERS = frozenset({"max", "min", "num", "total"})
_LAST_OF_NUMBERS = frozenset(
    {"age", "budget", "count", "counts", "expires", "expiry", "length", "limit", "size", "total", "ttl",
     "usage", "used"}
)  # fmt: skip
_LAST_OF_FACTS = frozenset({"at", "type"})
"""The first and last words of names for numbers of secrets, such as `token_count`, and for facts about them,
such as `token_type` and `password_changed_at`."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,6})?", re.ASCII)


def looks_secret(name: str) -> bool:
    """Whether this is a name of secrets. Whether a value is one depends on the value too: `is_secret`.

    The words of a name are `snake_case`, `dashed-words` or `camelCase`. A word that ends like a secret counts
    (`dbpassword`, `secretkey`); a longer word does not (`passwordless`, `tokenizer`, `max_tokens`).
    """
    words = _words_of(name)
    return any(word.endswith(_SECRET_ENDS) or word in _SECRET_WORDS for word in words) or any(
        pair in _SECRET_PAIRS for pair in itertools.pairwise(words)
    )


def is_secret(name: str, value: object) -> bool:
    """Whether a value with this name is shown as ``***``. Not if it is nothing, true or false, a number of a
    name such as `token_count`, or anything but a container of one such as `token_type`."""
    if (
        value is None
        or isinstance(value, bool)
        or (isinstance(value, (str, bytes, *_CONTAINERS)) and not value)
    ):
        return False
    words = _words_of(name)
    if isinstance(value, str) and words[-1:] == ["pass"]:
        return True
    if not looks_secret(name):
        return False
    if words[-1] in _LAST_OF_FACTS:
        return isinstance(value, _CONTAINERS)
    if words[-1] in _LAST_OF_NUMBERS or words[0] in _FIRST_OF_NUMBERS:
        return not (isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)))
    return True


def _words_of(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


_DEEPEST = 50


def hide_secrets(name: str, value: object, depth: int = 0) -> object:
    """The value with secrets as ``***``, by its name and the names inside it. Values that are nested deeper
    than 50 levels, or contain themselves, end with ``...``."""
    if is_secret(name, value):
        return HIDDEN
    if isinstance(value, _CONTAINERS) and depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {
            key: hide_secrets(key if isinstance(key, str) else "", item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, _CONTAINERS):
        items = [hide_secrets("", item, depth + 1) for item in value]
        try:  # a message may say that it expects another kind
            if isinstance(value, AbstractSet):
                return frozenset(items) if isinstance(value, frozenset) else set(items)
            return tuple(items) if isinstance(value, tuple) else items
        except TypeError:  # a mapping with a hash was in the set, and is a dict now
            return items
    if isinstance(value, bytes):
        return hide_password(value.decode(errors="backslashreplace")).encode()
    return hide_password(value) if isinstance(value, str) else value


# --- URLs ----------------------------------------------------------------------------------------

_HARMLESS_OPTIONS = frozenset({
    "prefix", "db", "host", "port", "path", "protocol", "username", "client_name", "sentinel_username",
    "charset", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
    "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "appname", "authmechanism", "authsource",
    "compressors", "directconnection", "journal", "loadbalanced", "readconcernlevel", "readpreference",
    "readpreferencetags", "replicaset", "retryreads", "retrywrites", "srvservicename", "ssl", "sslmode",
    "tls", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "tlscafile", "tlscertificatekeyfile",
    "tlscrlfile", "tlsinsecure", "uuidrepresentation", "w",
})  # fmt: skip
"""Options of the URLs of databases whose values are shown. Others may be a mistyped password."""
_HARMLESS_VALUE = re.compile(r"true|false|-?\d+", re.ASCII | re.IGNORECASE)
_SECRET_OPTIONS = ("password", "passphrase", "passwd", "secret", "credentials", "authorization", "apikey")
_LOGIN = re.compile(r":[^\s@]*@")
_COLON = re.compile("(:|%3A)", re.IGNORECASE)
"""Between user and password, also where both were percent-encoded as one."""
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]+)?(:\d*)?", re.ASCII)


def hide_password(url: str) -> str:
    """The URL with its password, and the values of options that may be secret, as ``***``. Other text is
    returned unchanged."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    scheme = _LOGIN.sub(":***@", scheme)
    login, at, host = rest.rpartition("@")
    user, *behind = _COLON.split(login, maxsplit=1)
    shown = f"{_hide_options(user)}{f'{behind[0]}***' if behind else ''}{at}{_hide_options(_hide_port(host))}"
    return f"{scheme}://{shown}"


def shown_url(url: str) -> str:
    """The URL for a message: as `hide_login` shows it, in at most 1,000 characters."""
    return shortened(hide_login(url), 1000)


def hide_login(address: str) -> str:
    """The address of a server as `hide_password` shows it, also if its scheme is mistyped or missing."""
    return hide_password(address) if "://" in address else hide_password(f"://{address}")[3:]


def is_part_hidden(text: str, url: str) -> bool:
    """Whether a text contains a word of the URL that `hide_login` hides."""
    shown = hide_login(url)
    found = f"{url} {unquote(url)}"
    words = re.findall(r"\w+" if "@" in url else r"\w\w+", text)
    return any(word in found and word not in shown for word in words)


def _hide_port(host: str) -> str:
    """Hosts with their ports and what follows. Hides everything from the first port on that is no number, or
    that has no host: it is a password whose URL lacks the host."""
    authority = _AUTHORITY.match(host)
    assert authority is not None
    begin = 0
    for name in authority[0].split(","):
        found = _HOST.fullmatch(name)
        is_password = found[1] is None and bool(name[1:]) if found else ":" in name
        if is_password:
            return f"{host[: begin + name.index(':')]}:{HIDDEN}"
        begin += len(name) + 1
    return host


def _hide_options(text: str) -> str:
    path, question, query = text.partition("?")
    options = re.split("([&;])", query)
    return f"{path}{question}{''.join(map(_shown_option, options))}"


def _shown_option(option: str) -> str:
    name, equals, value = option.partition("=")
    if _is_harmless(unquote(name), value):
        return option
    return f"{name}={HIDDEN}" if equals else HIDDEN


def _is_harmless(name: str, value: str) -> bool:
    """Whether an option may be shown. A value without a name counts as a name without a value."""
    if name.lower() in _HARMLESS_OPTIONS or (name in ("", "&", ";") and not value):
        return True
    may_be = looks_secret(name) or difflib.get_close_matches(name.lower(), _SECRET_OPTIONS, n=1, cutoff=0.75)
    return not may_be and _HARMLESS_VALUE.fullmatch(value) is not None
