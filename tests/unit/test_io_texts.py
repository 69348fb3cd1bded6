"""The texts of calls name servers, keys and tables, and no values and secrets."""

from __future__ import annotations

import time

import pytest

from mrq_core.debug import io_texts

SERVER = {"host": "127.0.0.1", "port": 6379, "password": "hunter2"}
TOKEN = "a3f5c9d1e7b24680a3f5c9d1e7b24680"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("GET", "user:42"), "GET user:42"),
        (("get", b"user:42"), "GET user:42"),
        (("SET", "user:42", "hunter2"), "SET user:42"),
        (("SET user:42 hunter2",), "SET"),
        (("BLPOP", ["a", "b"], 0), "BLPOP a"),
        (("AUTH", "hunter2"), "AUTH"),
        (("HELLO", 3, "AUTH", "default", "hunter2"), "HELLO"),
        (("CONFIG SET", "requirepass", "hunter2"), "CONFIG SET"),
        (("EVAL", "return 'hunter2'", 1, "orders", "hunter2"), "EVAL orders"),
        (("EVALSHA", TOKEN, "0", "hunter2"), "EVALSHA"),
        (("MODULE.COMMAND", "hunter2"), "MODULE.COMMAND"),
        (("GET", f"session:{TOKEN}"), "GET session:***"),
        (("GET", "session:token:abc"), "GET session:token:***"),
        (("GET", object()), "GET ?"),
        ((), "?"),
    ],
)
def test_a_command_of_redis_has_its_key_and_no_values(arguments: tuple[object, ...], text: str) -> None:
    assert io_texts.redis_command((arguments, SERVER)) == f"{text} at 127.0.0.1:6379"
    assert io_texts.redis_command((arguments, None)) == text


def test_a_server_of_redis_is_a_host_or_a_path() -> None:
    assert io_texts.redis_pipeline((3, {"host": "::1", "port": 1})) == "pipeline of 3 commands at [::1]:1"
    assert io_texts.redis_pipeline((1, {"path": "/run/redis"})) == "pipeline of 1 command at /run/redis"
    assert io_texts.redis_listen({"host": object()}) == "wait for a message"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (("GET", "https", "example.org", 443, "/a/b?token=hunter2#x"), "GET https://example.org/a/b?..."),
        (("POST", "http", "example.org", 8080, "/"), "POST http://example.org:8080/"),
        (("GET", "http", "::1", 80, "/"), "GET http://[::1]/"),
        (("GET", "http", "proxy", 3128, "http://me:hunter2@host/a?b"), "GET http://host/a?..."),
        (("GET", "http", "proxy", 3128, "http://host?hunter2"), "GET http://host?..."),
        (("GET", "https", "h", 443, f"/bot12:{TOKEN}/send"), "GET https://h/bot12:***/send"),
        (("GET", "https", "h", 443, "/a;jsessionid=hunter2"), "GET https://h/a"),
        (("GET", "https", "h", 443, "/api/reset-password/hunter2"), "GET https://h/api/reset-password/***"),
        (
            ("GET", "https", "h", 443, "/users/list-of-all-users-2024"),
            "GET https://h/users/list-of-all-users-2024",
        ),
    ],
)
def test_a_request_has_no_login_query_and_secret(request_: tuple[object, ...], text: str) -> None:
    assert io_texts.http_request(request_) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("select * from users where name = 'from hunter2'", "SELECT on users"),
        ("insert into shop.orders values ('into hunter2')", "INSERT on shop.orders"),
        ('/* hunter2 */ update "users" set a = 1', "UPDATE on users"),
        ("-- from hunter2\ndelete from t", "DELETE on t"),
        ("select 'from hunter2", "SELECT"),
        ('select "from hunter2" from "users"', "SELECT on users"),
        ('select "from hunter2', "SELECT"),
        ("''", "a statement"),
        (object(), "a statement"),
    ],
)
def test_a_statement_has_its_verb_and_table(sql: object, text: str) -> None:
    assert io_texts.sql_statement(sql) == text


def test_other_texts() -> None:
    server = ("127.0.0.1", 27017)
    assert (
        io_texts.mongo_command(("find", "shop", "orders", server)) == "find on shop.orders at 127.0.0.1:27017"
    )
    assert io_texts.mongo_command(("ping", "admin", 1, server)) == "ping on admin at 127.0.0.1:27017"
    assert io_texts.child_process((7, ["/usr/bin/curl", "-u", "me:hunter2"])) == "curl (7)"
    assert io_texts.child_process((7, "PASSWORD=hunter2 curl x")) == "process 7"
    assert io_texts.child_process((7, [])) == "process 7"
    assert io_texts.host_lookup(b"example.org") == "example.org"
    assert io_texts.address(("/run/mongo.sock", None)) == "/run/mongo.sock"
    assert io_texts.address("") == io_texts.address(None) == ""


@pytest.mark.parametrize(
    "unit", ["a", "A", "aB", "Ab", "1", "a1", "-", "_a", ":", "é", "token", "a" * 30 + "%"]
)
def test_no_name_is_slow_or_long(unit: str) -> None:
    for text in (unit * 100_000, unit * 50 + "%", "%" + unit * 50):
        started = time.process_time()
        assert len(io_texts.shown_name(text)) <= 103
        assert len(io_texts.sql_statement(text)) <= 1100
        assert time.process_time() - started < 0.5
