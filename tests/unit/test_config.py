"""The table of settings: complete, consistent, and silent about secrets."""

from __future__ import annotations

import os
import socket
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mrq_core.config.secrets import hide_password, is_secret, looks_secret
from mrq_core.config.settings import SETTINGS, Config, default_of, flag_of
from mrq_core.config.sources import load_config
from mrq_core.config.urls import url_and_prefix
from mrq_core.contract.driver import Opening

NOT_SETTINGS = {"user", "module", "sources", "file", "folders"}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_says_what_it_means(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.help.endswith(".")
    assert setting.group
    assert name == name.upper()


def test_every_field_is_a_setting_or_says_why_not() -> None:
    names = {field.name for field in fields(Config)} - NOT_SETTINGS
    assert names == {name.lower() for name in SETTINGS}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_default_is_within_its_bounds(name: str) -> None:
    setting, default = SETTINGS[name], default_of(name)
    if setting.minimum is not None:
        assert isinstance(default, int | float)
        assert default >= setting.minimum
    if setting.choices:
        assert default in setting.choices


def test_flags_are_unique() -> None:
    flags = [flag for name, setting in SETTINGS.items() for flag in (flag_of(name), *setting.flags)]
    assert len(flags) == len(set(flags))
    assert flag_of("MAX_LATENCY") == "--max-latency"


def test_as_dict_has_every_setting_and_the_users_own_values() -> None:
    values = Config(user={"MY_OWN": [1]}, queues=("a",)).as_dict()
    assert set(values) == {*SETTINGS, "MY_OWN"}
    assert (values["MY_OWN"], values["QUEUES"]) == ([1], ("a",))


def test_a_setting_wins_over_a_users_value_of_that_name() -> None:
    assert Config(user={"BROKER": "x"}, broker="y").as_dict()["BROKER"] == "y"


SECRET = [
    "API_TOKEN", "DB_PASSWORD", "MY_SECRET", "STRIPE_APIKEY", "S3_CREDENTIALS", "password2", "dbpassword",
    "userPassword", "UserPassword", "APIToken", "access-token", "api_key", "apiKey", "X-Api-Key", "passwords",
    "client_secret", "authToken2", "private key", "Authorization", "db.passwd", "PassWord", "apikeys",
    "api_keys", "refresh_tokens", "ssh_key", "signingKey", "smtp_creds", "Set-Cookie",
    "cookies", "session_id", "sessionId", "jwt", "passcode", "bearer",
    "secretkey", "SECRETKEY", "accesskey", "privatekey", "awssecretaccesskey", "awsaccesskeyid",
    "encryptionkey", "secretid", "secretvalue", "passwordhash", "setcookie", "proxyauthorization",
    "refreshtokens", "usersessionid", "passwordconfirmation", "passwordnew", "secretkeybase", "tokenvalue",
    "credentialsjson", "privatekeypem", "apikeyv2", "dbpwd", "userpwd",
    "dbpass", "smtppass", "DBPASS",
]  # fmt: skip
OPEN = [
    "secretary", "max_tokens", "maxTokens", "tokenizer", "passwordless", "tokenize", "keyboard", "monkey_key",
    "secretly", "accredited", "compass", "key", "author", "api", "",
    "secretariat", "monkey", "turkey", "publickey", "primarykey", "preauthorization", "maxtokens",
    "bypass", "trespass", "overpass", "tokenbased",
]  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_names_that_only_contain_the_letters_of_a_secret_are_none(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("token_count", 4712, False), ("tokenCount", "4712", False), ("max_token", 5, False),
        ("total_token_count", 1.5, False), ("api_key_count", 2, False), ("token_type", "bearer", False),
        ("password_changed_at", "2026-11-30", False), ("has_password", True, False),
        ("password", None, False), ("tokens", ["the", "cat"], False), ("pass", 2, False),
        ("pass", "hush", True), ("boarding_pass_number", "7", False),
        ("token", 4712, True), ("token_count", "hush", True), ("token_limit", ["hush"], True),
        ("max_token", "hush", True), ("token_type", ["hush"], True), ("auth_tokens", ["hush"], True),
        ("refresh_tokens", {"anna": "hush"}, True), ("smtp_pass", "hush", True), ("password", 1234, True),
    ],
)  # fmt: skip
def test_numbers_and_facts_of_secrets_are_shown(name: str, value: object, expected: bool) -> None:
    assert is_secret(name, value) == expected


@pytest.mark.parametrize("name", SECRET)
def test_values_whose_names_look_secret_are_not_shown(name: str) -> None:
    assert looks_secret(name)
    config = Config(user={name: "hush", "COLOUR": "red"})
    assert config.redacted()[name] == "***"
    assert config.redacted()["COLOUR"] == "red"
    assert config.as_dict()[name] == "hush"


def test_passwords_in_urls_are_not_shown() -> None:
    shown = Config(broker="redis://me:hush@host:1/0", user={"OTHER": "http://u:hush@h"}).redacted()
    assert "hush" not in repr(shown)
    assert shown["BROKER"] == "redis://me:***@host:1/0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user@host", "redis://user@host"),
        ("redis://:hush@host", "redis://:***@host"),
        ("redis://user%3Ahush@host", "redis://user%3A***@host"),
        ("mongodb://user%3ahush@h1:1,h2/db", "mongodb://user%3a***@h1:1,h2/db"),
        ("mongodb://u:p@ss:w@h1:1,h2:2/db?w=y", "mongodb://u:***@h1:1,h2:2/db?w=y"),
        ("mongodb://[::1]:1,[::2],h/db?replicaSet=rs0", "mongodb://[::1]:1,[::2],h/db?replicaSet=rs0"),
        ("sqlite:///file.db", "sqlite:///file.db"),
        ("sqlite://u:hush@h/file.db", "sqlite://u:***@h/file.db"),
        ("redis://h/0?sentinel_password=hush&max_tokens=3", "redis://h/0?sentinel_password=***&max_tokens=3"),
        ("mongodb://h/?authToken=hush", "mongodb://h/?authToken=***"),
        # Passwords of URLs without a host.
        ("redis://:hush", "redis://:***"),
        ("redis://:12345", "redis://:***"),
        ("redis://user:hush/0?db=1", "redis://user:***"),
        ("redis://:hu#sh", "redis://:***"),
        ("mongodb://h1:1,h2:hush/db", "mongodb://h1:1,h2:***"),
        ("redis://user:a@b:hush", "redis://user:***@b:***"),
        # Options whose names are mistyped, unknown, encoded, or in the wrong place.
        ("redis://h?pasword=12345", "redis://h?pasword=***"),
        ("redis://h?pass=hush&db=1", "redis://h?pass=***&db=1"),
        ("redis://h?p%61ssword=123&db=1", "redis://h?p%61ssword=***&db=1"),
        ("redis://h?hush&db=1", "redis://h?***&db=1"),
        ("redis://h?password:hush", "redis://h?***"),
        ("redis://h?password=hu#sh", "redis://h?password=***"),
        ("https://h/a?key=hush&page=2", "https://h/a?key=***&page=2"),
        ("redis://h?password=hush@x", "redis://h?password=***@x"),
        ("mongodb://h/?w=1;authToken=hush;tls=true", "mongodb://h/?w=1;authToken=***;tls=true"),
        (
            "mongodb://h/?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:hush",
            "mongodb://h/?authMechanism=MONGODB-AWS&authMechanismProperties=***",
        ),
        ("no URL: a@b, password=hush", "no URL: a@b, password=hush"),
    ],
)
def test_hide_password_hides_nothing_but_secrets(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    "value", [["redis://:hush@h"], {"redis://:hush@h"}, ("x", {"y": "redis://:hush@h"}), b"redis://:hush@h"]
)
def test_urls_inside_of_values_are_shown_without_passwords(value: object) -> None:
    shown = repr(Config(user={"OTHER": value}).redacted()["OTHER"])
    assert "redis://:***@h" in shown
    assert "hush" not in shown


@pytest.mark.parametrize("name", ["broker", "store", "redis", "mongodb"])
@pytest.mark.parametrize(
    "value", [":hush@h", "me:hush@h:1", "redis:/:hush@h", "redis:hush@h", "redis//me:hush@h"]
)
def test_the_password_of_an_address_without_a_scheme_is_not_shown(name: str, value: str) -> None:
    assert "hush" not in repr(Config(**{name: value}).redacted())  # type: ignore[arg-type]


def test_the_name_of_a_worker_ends_with_its_host_and_process() -> None:
    assert Config().worker_name(os.getpid()) == f"{socket.gethostname()}.{os.getpid()}"
    assert Config(name="w1").worker_name(5) == f"w1.{socket.gethostname()}.5"
    assert Config(name=socket.gethostname()).worker_name(5) == f"{socket.gethostname()}.5"


def test_relative_paths_start_from_the_folders_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = Config()
    monkeypatch.chdir("other")
    monkeypatch.setenv("HOME", "/elsewhere")
    folders = replace(config, redis_prefix="other").folders
    assert folders.absolute("a/b") == f"{tmp_path}/a/b"
    assert folders.absolute("../a") == f"{tmp_path.parent}/a"
    assert folders.absolute("/a/b") == "/a/b"
    assert folders.absolute("~/a") == f"{tmp_path}/home/a"
    assert folders.absolute("~") == f"{tmp_path}/home"
    url, prefix = url_and_prefix(
        Opening(
            settings={},
            url="rediss://a:b%3F@h?ssl_ca_certs=c%20d.pem&ssl_certfile=/e&db=1&tlsCAFile=f&other=f&prefix=p",
            folders=folders,
        ),
        "REDIS",
        "REDIS_PREFIX",
        {"ssl_ca_certs", "ssl_certfile", "tlscafile"},
    )
    assert prefix == "p"
    assert url == (
        f"rediss://a:b%3F@h/?ssl_ca_certs={tmp_path}/c%20d.pem&ssl_certfile=/e&db=1&tlsCAFile={tmp_path}/f&other=f"
    )
    assert Config() == config  # where a process is does not tell configurations apart


def test_no_repr_of_the_configuration_has_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "mrq-config.py"
    secrets = "REDIS = 'redis://me:hush@host'\nDASHBOARD_TOKEN = 'hush'\nMY_PASSWORD = 'hush'\n"
    path.write_text(f"{secrets}GREENLETS = 7\n")
    config = load_config(file=path, environ={})
    opening = Opening(settings=config.as_dict(), url="redis://me:hush@host")
    text = repr((config, config.file, opening, {"config": config}))
    assert "hush" not in text
    assert "GREENLETS=7" in repr(config)
    assert "QUEUES" not in repr(config)
