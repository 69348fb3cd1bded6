"""Which URLs name a server, and what is said of the others."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from mrq_broker_redis.server.failures import translated
from mrq_broker_redis.server.location import location_of
from mrq_core.contract.driver import Opening
from mrq_core.errors import ConfigError


def opening(url: str | None = None, **settings: object) -> Opening:
    return Opening(settings={"REDIS": "redis://127.0.0.1:6379", "REDIS_PREFIX": "mrq", **settings}, url=url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pass@host:7000/3",
        "rediss://user:pass@host?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=2",
        "redis+sentinel://a,b:26380,c/jobs/1?sentinel_password=x",
        "rediss+sentinel://user:pass@a/jobs",
        "redis+cluster://a:7000,b:7001",
        "redis://[::1]:7000/3",
        "redis+sentinel://user:pass@[::1],[fe80::1]:26380/jobs",
        "redis+cluster://[::1]:7000,[::1]",
        "rediss+cluster://a:7000,b:7001?ssl_cert_reqs=none",
    ],
)
def test_a_url_names_a_server_and_is_shown_without_its_password(url: str) -> None:
    location = location_of(opening(url))
    assert location.prefix == "mrq"
    assert "pass@" not in location.shown
    assert "password=x" not in location.shown


def test_without_a_url_the_settings_say_where_the_server_is() -> None:
    location = location_of(opening(REDIS="redis://there:1234/5", REDIS_PREFIX="shop"))
    assert (location.shown, location.prefix) == ("redis://there:1234/5", "shop")


def test_the_prefix_in_a_url_goes_before_the_setting() -> None:
    location = location_of(opening("redis://host/1?prefix=a-b&client_name=x", REDIS_PREFIX="mrq"))
    assert (location.prefix, location.shown) == ("a-b", "redis://host/1?client_name=x")


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis:host",
        "redis://host:port",
        "redis://[::1",
        "redis+sentinel://[::1/x",
        "redis+sentinel://a,b",
        "redis+sentinel://a/jobs/x",
        "redis+sentinel://a/jobs?colour=red",
        "redis+cluster://a/1",
        "redis+cluster://a,,b",
        "redis+sentinel://:pass@/jobs",
        "redis://host/abc",
        "redis://host/-1",
        "redis://host/0/1",
        "redis://host:0",
        "redis+cluster://[::1]x",
        "redis+cluster://a:0",
    ],
)
def test_a_wrong_url_is_an_error_that_lists_the_forms(url: str) -> None:
    with pytest.raises(ConfigError, match="expected redis://") as raised:
        location_of(opening(url))
    assert "pass@" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster", "rediss+cluster"])
@pytest.mark.parametrize(
    "rest", ["geheim@h\u2100st/x", "geheim/x@host/x", "geheim?x@host/x", "geheim#x@host/x", "geheim@[::1/x"]
)
def test_an_error_contains_no_part_of_a_password(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError, match=r"expected (redis://|%23)") as raised:
        location_of(opening(f"{scheme}://user:{rest}"))
    assert "geheim" not in str(raised.value)
    assert "user:***@" in str(raised.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://h?ssl_ca_certs=/nowhere", "ssl_ca_certs needs rediss://"),
        ("unix:///x?ssl_keyfile=x", "ssl_keyfile needs rediss://"),
        ("rediss://h?ssl_ca_certs=/nowhere", "the file of ssl_ca_certs cannot be read: No such file"),
        ("rediss://h?ssl_ca_certs=/", "the file of ssl_ca_certs cannot be read: Is a directory"),
        ("rediss://h?ssl_keyfile=/nowhere", "the file of ssl_keyfile cannot be read"),
        ("rediss://h?ssl_keyfile={file}", "ssl_keyfile needs ssl_certfile"),
        ("rediss://h?ssl_certfile={file}", "its options of TLS cannot be used: "),
        ("rediss://h?ssl_ca_certs={file}", "its options of TLS cannot be used: "),
        ("rediss://h?ssl_ca_path=/nowhere", "ssl_ca_path does not name a directory"),
        ("rediss://h?ssl_cert_reqs=x", "Invalid SSL Certificate Requirements Flag: x"),
        ("rediss://h?ssl_ciphers=x", "No cipher can be selected"),
        ("rediss://h?ssl_min_version=2", "Unsupported TLS/SSL version"),
        ("rediss://h?ssl_min_version=x", "ssl_min_version is 'x': expected a number"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname is 'maybe': expected true or false"),
        ("rediss://h?ssl_validate_ocsp=1", "unknown options ssl_validate_ocsp"),
        ("redis://h?protocol=9", "protocol is '9': expected 2 or 3"),
        ("redis://h?client_name=a%20b", "client_name is 'a b': expected letters without spaces"),
        ("redis://h?db=-1", "the database is '-1', not a number"),
        ("redis://h?db=1&db=2", "the option db is given twice"),
        ("redis://h/2?db=3", "the database is given twice: 2 in the path, and db=3"),
        ("redis://h/2?db=", "an option has no value"),
        ("redis://u:x@h?password=y", "the password is given twice: before the host, and as an option"),
        ("redis://u:x@h?username=y", "the username is given twice"),
        ("redis://h/2?db=x", "the database is 'x', not a number"),
        ("redis://h?socket_timeout=1", "unknown options socket_timeout; known are"),
        ("redis+sentinel://h/x?sentinel_username=1&sentinel_username=2", "sentinel_username is given twice"),
        ("redis://h?db=", "an option has no value"),
        ("redis://h?connection_class=x", "unknown options connection_class"),
        ("redis://h?host=x&port=y&path=z", "unknown options host, port, path"),
        ("redis://" + "x" * 70, "the host is no valid name"),
        ("redis://a..b", "the host is no valid name"),
        ("redis://h%00x", "the host is no valid name"),
        ("redis+sentinel://h,a..b/x", "the host is no valid name"),
        ("redis+cluster://a..b", "the host is no valid name"),
        ("redis+cluster://a/1", "a cluster has no databases"),
        ("redis+cluster://a?ssl_cert_reqs=none", "ssl_cert_reqs needs rediss+cluster://"),
        ("redis+cluster://a?db=1", "unknown options db; known are none"),
        ("rediss+cluster://a?db=1", "unknown options db; known are ssl_ca_certs, "),
        ("rediss+cluster://a?ssl_ciphers=x", "unknown options ssl_ciphers; known are ssl_ca_certs, "),
        ("rediss+cluster://a?ssl_certfile={file}", "its options of TLS cannot be used: "),
        ("unix:///a%00b", "the path of the socket has characters that cannot be printed"),
    ],
)
def test_an_option_or_host_that_no_connection_could_use_is_an_error(
    url: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="expected redis://") as raised:
        location_of(opening(url.format(file=file)))
    assert why in str(raised.value)


def test_what_is_given_twice_may_be_the_same() -> None:
    client = location_of(opening("redis://u:a%2Fb@h/2?db=2&password=a%2Fb&username=u")).connect()
    kept = client.connection_pool.connection_kwargs
    assert (kept["db"], kept["username"], kept["password"]) == (2, "u", "a/b")
    client.close()


def test_an_unknown_option_of_a_url_is_an_error() -> None:
    with pytest.raises(ConfigError, match="colour"):
        location_of(opening("redis://host?colour=red"))


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a\n"])
def test_a_prefix_that_cannot_name_keys_is_an_error(prefix: str) -> None:
    with pytest.raises(ConfigError, match="REDIS_PREFIX"):
        location_of(opening(REDIS_PREFIX=prefix))


@pytest.mark.parametrize("password", ["hush#x", "hush?x", "hush/x", "hush@x"])
def test_a_password_that_is_not_encoded_is_never_shown(password: str) -> None:
    try:
        shown = location_of(opening(f"redis://:{password}@host:6379")).shown
    except ConfigError as error:
        shown = str(error)
        assert "percent-encoded" in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    "rest",
    [
        ":geheim",
        "user:geheim/0",
        "h?pasword=geheim",
        "h:geheim",
        "h?geheim",
        "h/1?x=geheim",
    ],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster", "rediss+cluster"])
def test_an_error_contains_no_value_that_may_be_a_secret(scheme: str, rest: str) -> None:
    try:
        shown = location_of(opening(f"{scheme}://{rest}")).shown
    except ConfigError as error:
        shown = str(error)
    assert "geheim" not in shown


def test_two_different_prefixes_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"two prefixes are given: 'a' in the URL 'redis://h'.*'b' in REDIS_PREFIX"
    ):
        location_of(opening("redis://h?prefix=a", REDIS_PREFIX="b"))
    assert location_of(opening("redis://h?prefix=a", REDIS_PREFIX="a")).prefix == "a"


@pytest.mark.parametrize("prefix", ["mrq", ""])
def test_a_prefix_that_is_given_counts_though_it_is_the_default_or_empty(prefix: str) -> None:
    given = replace(opening("redis://h?prefix=a", REDIS_PREFIX=prefix), given=frozenset({"REDIS_PREFIX"}))
    with pytest.raises(ConfigError, match=f"two prefixes are given: 'a' .* and '{prefix}' in REDIS_PREFIX"):
        location_of(given)
    assert location_of(replace(given, given=frozenset())).prefix == "a"


def test_the_least_version_of_tls_is_a_number_with_every_redis_py() -> None:
    client = location_of(opening("rediss://host?ssl_min_version=772")).connect()
    assert client.connection_pool.connection_kwargs["ssl_min_version"] == ssl.TLSVersion.TLSv1_3
    client.close()


def test_an_option_of_tls_that_this_redis_py_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, **options: object) -> None:
        raise TypeError("got an unexpected keyword argument 'ssl_ciphers'")

    monkeypatch.setattr(redis.SSLConnection, "__init__", refuse)
    with pytest.raises(ConfigError, match=r"redis-py [\d.]+ does not take.*'ssl_ciphers'"):
        location_of(opening("rediss://host?ssl_ciphers=x"))


KEY = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIC\n-----END ENCRYPTED PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            "ssl_certfile={0}&ssl_keyfile={0}",
            "of ssl_keyfile is encrypted: name its password, as ssl_password",
        ),
        ("ssl_certfile={0}", "of ssl_certfile is encrypted: name its password, as ssl_password"),
        ("ssl_certfile={0}&ssl_password=hush", "is encrypted, and ssl_password does not decrypt it"),
    ],
)
def test_an_encrypted_key_asks_for_its_password_in_the_url(options: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(KEY)
    with pytest.raises(ConfigError, match=why) as raised:
        location_of(opening(f"rediss://h?{options.format(file)}"))
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "Error 8 while writing to socket. EOF occurred in violation of protocol (_ssl.c:2393).",
        "Error 104 while writing to socket. Connection reset by peer.",
        "Connection closed by server.",
    ],
)
def test_a_connection_with_tls_that_is_closed_may_lack_a_certificate(text: str) -> None:
    """Within TLS 1.3, the alert of the server may come after the connection has failed."""
    said = str(translated(redis.ConnectionError(text), "rediss://h/0", 5.0))
    assert "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key" in said
    assert "ssl_certfile" not in str(translated(redis.ConnectionError(text), "redis://h/0", 5.0))
