"""Which URLs name a deployment, what is said of the others, and what writes wait for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import (
    NetworkTimeout,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from mrq_broker_mongo.server.failures import translated
from mrq_broker_mongo.server.location import LONGEST_COLLECTION, location_of
from mrq_core.contract.driver import Opening
from mrq_core.contract.metrics import Metric
from mrq_core.errors import BrokerUnavailable, ConfigError
from tests.mongo.kit import Place, new_job, open_broker


def opening(url: str | None = None, **settings: object) -> Opening:
    return Opening(
        settings={"MONGODB": "mongodb://127.0.0.1:27017/mrq", "MONGODB_PREFIX": "mrq", **settings}, url=url
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://localhost", "mongodb://localhost"),
        ("mongodb://host:7000/jobs", "mongodb://host:7000/jobs"),
        ("mongodb://user:geheim@host/jobs?authSource=admin", "mongodb://user:***@host/jobs?authSource=admin"),
        ("mongodb://user:ge%40heim@host/jobs", "mongodb://user:***@host/jobs"),
        ("mongodb://u:geheim@a,b:27018,c/jobs?replicaSet=rs0", "mongodb://u:***@a,b:27018,c/jobs?replicaSet=rs0"),
        ("mongodb+srv://user:geheim@cluster.example.net/jobs", "mongodb+srv://user:***@cluster.example.net/jobs"),
        (
            "mongodb://host/jobs?tls=true&tlsCertificateKeyFilePassword=geheim",
            "mongodb://host/jobs?tls=true&tlsCertificateKeyFilePassword=***",
        ),
    ],
)  # fmt: skip
def test_a_url_names_a_deployment_and_is_shown_without_its_password(url: str, shown: str) -> None:
    location = location_of(opening(url))
    assert location.shown == shown
    assert "geheim" not in repr(location)


def test_without_a_url_the_settings_say_where_the_deployment_is() -> None:
    location = location_of(opening(MONGODB="mongodb://there:1234/five", MONGODB_PREFIX="shop"))
    assert (location.shown, location.database, location.prefix) == (
        "mongodb://there:1234/five",
        "five",
        "shop",
    )


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("mongodb://host", "mrq"),
        ("mongodb://host/", "mrq"),
        ("mongodb://host/?replicaSet=rs0", "mrq"),
        ("mongodb://host/shop?replicaSet=rs0", "shop"),
        ("mongodb://a,b/shop", "shop"),
        ("mongodb+srv://cluster.example.net/shop", "shop"),
        ("mongodb://host/sh%C3%B6p", "shöp"),
    ],
)
def test_the_database_is_the_one_in_the_url(url: str, database: str) -> None:
    assert location_of(opening(url)).database == database


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://host/jobs?prefix=a-b&replicaSet=rs0", "mongodb://host/jobs?replicaSet=rs0"),
        ("mongodb://host?prefix=a-b", "mongodb://host"),
        ("mongodb://host/?prefix=a-b", "mongodb://host/"),
    ],
)
def test_the_prefix_in_a_url_goes_before_the_setting(url: str, shown: str) -> None:
    location = location_of(opening(url, MONGODB_PREFIX="mrq"))
    assert (location.prefix, location.shown) == ("a-b", shown)


def test_options_of_the_driver_reach_it_and_ours_do_not() -> None:
    location = location_of(opening("mongodb://a,b/jobs?replicaSet=rs0&prefix=x&maxPoolSize=7&w=2"))
    client = location.connect()
    try:
        assert client.options.replica_set_name == "rs0"
        assert client.options.pool_options.max_pool_size == 7
        assert client.write_concern.document == {"w": 2, "j": True}
    finally:
        client.close()


@pytest.mark.parametrize(
    ("options", "concern"),
    [
        ("", {"w": "majority", "j": True}),
        ("?w=majority", {"w": "majority", "j": True}),
        ("?w=1", {"w": 1, "j": True}),
        ("?w=2&journal=false", {"w": 2, "j": False}),
        ("?JOURNAL=true&wTimeoutMS=1500", {"w": "majority", "j": True, "wtimeout": 1500}),
        ("?w=datacenters", {"w": "datacenters", "j": True}),
    ],
)
def test_writes_wait_for_a_majority_and_the_journal_unless_the_url_says_otherwise(
    options: str, concern: dict[str, object]
) -> None:
    location = location_of(opening(f"mongodb://host/jobs{options}"))
    assert location.concern.document == concern
    client = location.connect()
    try:
        assert client.write_concern.document == concern
    finally:
        client.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "mongodb:host",
        "mongodb://",
        "mongodb:///jobs",
        "mongodb://user:geheim@/jobs",
        "mongodb://host:port/jobs",
        "mongodb://host:99999/jobs",
        "mongodb://[::1/jobs",
        "mongodb://user:geheim@h\u2100st/jobs",
        "mongodb://a,,b/jobs",
        "mongodb://host/jo.bs",
        "mongodb://host/jo bs",
        "mongodb://host/jobs?w=0",
        "mongodb://host/jobs?w=-1",
        "mongodb://host/jobs?journal=perhaps",
        "mongodb://host/jobs?wtimeoutMS=soon",
        "mongodb://host/jobs?colour=red",
        "mongodb://user:geheim@host/jobs?w=0",
        "mongodb+srv://a,b/jobs",
        "mongodb+srv://host.example.net:27017/jobs",
        "mongodb+srv://user:geheim@a,b/jobs",
        "mongodb://us er:ge@heim@host/jobs",
        "mongodb://user:geheim/heim@host/jobs",
        "mongodb://a..b/jobs",
        f"mongodb://user:geheim@good,{'h' * 70}.example.org:27017/jobs",
        "mongodb+srv://é..x/jobs",
    ],
)
def test_a_wrong_url_is_an_error_that_lists_the_forms(url: str) -> None:
    with pytest.raises(ConfigError, match="expected mongodb://") as raised:
        location_of(opening(url))
    assert "geheim" not in str(raised.value)
    assert "heim@" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("tlsCAFile=/nowhere", "The tlscafile file is not readable"),
        ("tlsCertificateKeyFile=/nowhere", "The tlscertificatekeyfile file is not readable"),
        ("tls=true&tlsCAFile={file}", "no certificate or crl found"),
        ("tls=true&tlsCertificateKeyFile={file}", "Private key doesn't match certificate"),
        ("minPoolSize=10&maxPoolSize=1", "minPoolSize must be smaller"),
        ("heartbeatFrequencyMS=1", "heartbeatFrequencyMS cannot be less than 500"),
        ("datetime_conversion=x", "Invalid datetime_conversion value"),
        ("driver=x", "driver must be an instance of DriverInfo"),
        ("compressors=zlib,x", "compressors has an unknown name: expected some of snappy, zlib, zstd"),
        ("colour=red&w=1", "the option colour is unknown"),
        ("j=true", "the option j is unknown"),
        ("username=x", "the option username is unknown"),
        ("socketTimeoutMS=1", "the option socketTimeoutMS cannot be given: BROKER_TIMEOUT limits each call"),
        ("SOCKETTIMEOUTMS=0", "the option SOCKETTIMEOUTMS cannot be given: BROKER_TIMEOUT"),
        (
            "timeoutMS=100000",
            "the option timeoutMS cannot be given: BROKER_TIMEOUT limits each call, to",
        ),
        ("w=0", "w is 0: expected 1 or more, or majority, since a write must be acknowledged"),
        ("tls=true&ssl=false", "conflicting values for URI options ssl and tls"),
        ("tls=true&TLS=true", "the option tls is given 2 times"),
        ("w=1&w=2", "the option w is given 2 times"),
        ("readPreferenceTags=a:b", "Read preference primary cannot be combined with tags"),
    ],
)
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_an_option_that_no_connection_could_use_is_an_error(
    scheme: str, options: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="expected mongodb://") as raised:
        location_of(opening(f"{scheme}://h.example.net/x?{options.format(file=file)}"))
    assert why in str(raised.value)


def test_options_that_may_be_repeated_are_accepted() -> None:
    options = "readPreference=nearest&readPreferenceTags=a:b&readPreferenceTags=c:d"
    assert location_of(opening(f"mongodb://h/x?{options}")).overridden


def test_a_prefix_too_long_for_the_names_of_collections_is_an_error_with_the_limit() -> None:
    database = "d" * 60
    most = 255 - 60 - len("._metrics")
    for prefix in ("x" * most, "\u00e9" * (most // 2)):
        assert location_of(opening(f"mongodb://host/{database}", MONGODB_PREFIX=prefix)).prefix == prefix
    for prefix in ("x" * (most + 1), "\u00e9" * (most // 2 + 1)):
        with pytest.raises(ConfigError, match=rf"expected up to {most} in the database d+, in"):
            location_of(opening(f"mongodb://host/{database}", MONGODB_PREFIX=prefix))


def test_the_longest_prefix_and_database_work(server_url: str) -> None:
    database, prefix = "d" * 63, "x" * (255 - 63 - len("._metrics"))
    url = server_url.replace("/mrq", f"/{database}")
    assert database in url
    broker = open_broker(Place(url, prefix))
    broker.prepare()
    broker.record_metrics([Metric(name="m", at=broker.now(), total=1.0)])
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        names = client.get_default_database().list_collection_names()
        assert max(len(name) for name in names) == len(f"{prefix}_{LONGEST_COLLECTION}")
        client.drop_database(database)
    broker.close()


@pytest.mark.parametrize("prefix", ["", "a b", "$a", "a\n", "a/b", "system.x", "a\0", ".a", "a..b"])
def test_a_prefix_that_cannot_name_collections_is_an_error(prefix: str) -> None:
    with pytest.raises(ConfigError, match="MONGODB_PREFIX"):
        location_of(opening(MONGODB_PREFIX=prefix))


def test_an_empty_prefix_in_a_url_is_an_error() -> None:
    with pytest.raises(ConfigError, match="prefix=name"):
        location_of(opening("mongodb://host/jobs?prefix="))


def test_a_name_of_a_database_that_is_too_long_is_an_error() -> None:
    with pytest.raises(ConfigError, match="63"):
        location_of(opening(f"mongodb://host/{'d' * 64}"))


def test_two_different_prefixes_are_refused() -> None:
    settings = {"MONGODB_PREFIX": "b"}
    with pytest.raises(ConfigError, match=r"two prefixes are given: 'a' in the URL .*'b' in MONGODB_PREFIX"):
        location_of(Opening(settings=settings, url="mongodb://h/x?prefix=a"))
    assert location_of(Opening(settings=settings, url="mongodb://h/x?prefix=b")).prefix == "b"


def test_a_prefix_that_is_given_counts_though_it_is_the_default() -> None:
    url, given = "mongodb://h/x?prefix=a", frozenset({"MONGODB_PREFIX"})
    with pytest.raises(ConfigError, match=r"two prefixes are given: 'a' .* and 'mrq' in MONGODB_PREFIX"):
        location_of(replace(opening(url), given=given))
    assert location_of(opening(url)).prefix == "a"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("w=5", "cannot write with w=5 .*: correct w in the URL"),
        ("w=datacenter", "cannot write with w=datacenter .*: correct w in the URL"),
    ],
)
def test_an_option_with_which_each_call_fails_is_named(server_url: str, options: str, words: str) -> None:
    broker = open_broker(Place(f"{server_url}?{options}", "options"))
    with pytest.raises(BrokerUnavailable, match=words):
        broker.enqueue([new_job()])
    broker.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (WTimeoutError("waiting timed out"), "did not confirm a write within wTimeoutMS=1 of the URL"),
        (ServerSelectionTimeoutError("No servers found yet"), "more milliseconds than connectTimeoutMS=1"),
        (NetworkTimeout("timed out"), "did not answer within 10 s"),
        (
            WaitQueueTimeoutError("Timed out while checking out"),
            "is free (Timed out while checking out): give a",
        ),
    ],
)
def test_an_error_names_the_time_limit_of_the_url(error: Exception, words: str) -> None:
    location = location_of(opening("mongodb://host/x?wTimeoutMS=1&connectTimeoutMS=1"))
    assert words in str(translated(error, location, 10.0))


def test_a_timeout_that_is_longer_than_pymongo_takes_is_none_of_the_url(place: Place) -> None:
    broker = open_broker(place, timeout=1e9)
    assert broker.enqueue([new_job()])
    broker.close()
