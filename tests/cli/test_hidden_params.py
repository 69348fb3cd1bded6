"""Params that a person gives back as the program has shown them: with `***` in place of secrets."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shell
from tests.support import Project

UNKNOWN = "is ***, which stands for no known secret: expected the value"
GIVEN = {"user": "anna", "api_key": "S1", "hosts": [{"token": "S2"}, {"token": "S3"}], "token_count": 7}


@pytest.fixture(autouse=True)
def logs_in(project: Project) -> None:
    project.write("login.py", "from mrq_core import task\n\n@task\ndef logs_in(**params):\n    return 1\n")


def test_an_edit_keeps_the_secrets_that_are_shown_as_stars(mrq: Shell, project: Project) -> None:
    job = project.queue("login.logs_in", GIVEN)
    shown = mrq("jobs", "show", job, "--json").json["params"]
    assert shown == {
        "user": "anna", "api_key": "***", "hosts": [{"token": "***"}, {"token": "***"}], "token_count": 7,
    }  # fmt: skip
    mrq("jobs", "edit", job, "--params", json.dumps({**shown, "user": "ben"}))
    assert project.client.fetch(job).params == {**GIVEN, "user": "ben"}
    said = mrq("jobs", "edit", job, "--params", json.dumps({**shown, "hosts": [{"password": "***"}]}), code=2)
    assert f"params.hosts[0].password {UNKNOWN}" in said.err
    assert project.client.fetch(job).params == {**GIVEN, "user": "ben"}


def test_a_schedule_that_is_replaced_keeps_the_secrets_that_are_shown_as_stars(
    mrq: Shell, project: Project
) -> None:
    add = ("schedules", "add", "login.logs_in", "--name", "daily", "--every", "1h", "--params")
    mrq(*add, json.dumps(GIVEN))
    mrq(*add, json.dumps({**GIVEN, "user": "ben", "api_key": "***"}), "--replace")
    mrq("schedules", "run", "daily")
    [job] = mrq("jobs", "list", "--json").json
    assert project.client.fetch(job["id"]).params == {**GIVEN, "user": "ben"}
    said = mrq(*add, json.dumps({"password": "***"}), "--replace", code=2)
    assert f"params.password {UNKNOWN}" in said.err


def test_stars_are_no_secret_of_a_new_job(mrq: Shell) -> None:
    for more in ((), ("--async",)):
        assert (
            f"params.api_key {UNKNOWN}"
            in mrq("run", "login.logs_in", '{"api_key": "***"}', *more, code=2).err
        )
    said = mrq("schedules", "add", "login.logs_in", "--every", "1h", "--params", '{"token": "***"}', code=2)
    assert f"params.token {UNKNOWN}" in said.err


BROKEN = ['{"user": "anna", "password": "hush"', '{"password": "hush", x}', '[{"password": "hush"}]']


@pytest.mark.parametrize("text", [*BROKEN, "password=hush"])
def test_params_that_are_no_json_object_are_not_repeated_with_their_secrets(
    mrq: Shell, project: Project, text: str
) -> None:
    job = project.queue("login.logs_in", GIVEN)
    for arguments in (
        ("run", "login.logs_in", text),
        ("run", "login.logs_in", "user", "anna", text),
        ("run", "login.logs_in", "{}", text),
        ("jobs", "edit", job, "--params", text),
        ("schedules", "add", "login.logs_in", "--every", "1h", "--params", text),
        ("run", "mrq.basetasks.utils.JobAction", "action", "cancel", "params", text),
    ):
        assert "hush" not in mrq(*arguments, code=None).err, arguments


def test_an_error_says_where_params_are_no_json(mrq: Shell) -> None:
    said = mrq("run", "login.logs_in", BROKEN[0], code=2).err
    assert "the params are not valid JSON: Input data was truncated (after 35 bytes)" in said
    assert "(byte 21)" in mrq("run", "login.logs_in", BROKEN[1], code=2).err
