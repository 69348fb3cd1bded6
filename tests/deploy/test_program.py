"""What the tests of this folder rely on notices what is wrong."""

from __future__ import annotations

import pytest

from mrq_core.errors import ConfigError, InvalidValue
from tests.deploy.program import checked, our_calls, parsed


def test_a_command_is_parsed_as_the_program_does() -> None:
    call = parsed(["worker", "mail/", "default", "-g", "10"])
    assert call.command == "worker"
    assert list(call.values["names"]) == ["mail/", "default"]
    assert call.values["greenlets"] == "10"
    assert parsed(["workers", "--json"]).command == "workers list"


@pytest.mark.parametrize(
    "words",
    ["", "wroker", "worker --greenlet 1", "worker -g", "workers --name a", "dashboards", "queues pause",
     "workers show", "check extra"],
)  # fmt: skip
def test_what_the_program_refuses_is_noticed(words: str) -> None:
    with pytest.raises(AssertionError):
        parsed(words.split())


def test_settings_come_from_both() -> None:
    config = checked(["worker", "-g", "3", "a", "b/"], {"MRQ_BROKER": "redis", "MRQ_NAME": "n", "OTHER": "x"})
    assert (config.broker, config.greenlets, config.queues, config.name) == ("redis", 3, ("a", "b/"), "n")


@pytest.mark.parametrize(
    ("words", "environ", "error"),
    [
        ("worker -g 0", {}, ConfigError),
        ("worker", {"MRQ_GREENLETS": "many"}, ConfigError),
        ("worker", {"MRQ_GREENLET": "3"}, UserWarning),
        ("worker", {"MRQ_TASKS": "{}"}, UserWarning),
        ("worker", {"MRQ_BROKER": "rabbit"}, ConfigError),
        ("worker", {"MRQ_BROKER": "redis", "MRQ_REDIS": "redis:6379"}, ConfigError),
        ("worker", {"MRQ_BROKER": "mongodb://mongo:x/mrq"}, ConfigError),
        ("worker", {"MRQ_BROKER": "redis://h?nothing=1"}, ConfigError),
        (f"worker {'x' * 201}", {}, InvalidValue),
        ("worker a --queues b", {}, AssertionError),
    ],
)
def test_what_a_user_would_be_told_of_is_noticed(
    words: str, environ: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        checked(words.split(), environ)


def test_our_calls_are_found_in_a_script() -> None:
    script = (
        "pip install 'mrq[redis]' # mrq is no command there\n"
        "python3 -m venv .venv && .venv/bin/mrq demo\n"
        "MRQ_GREENLETS=7 OTHER=1 mrq run tasks.shown name 'a b' > out\n"
        "id=$(mrq run tasks.greet --async); exec mrq-worker mail | cat\n"
        "docker compose exec worker mrq workers\n"
        "kubectl exec deploy/mrq -- mrq \\\n  queues\n"
        "docker build -t mrq .\nsystemctl start mrq-worker\n"
    )
    found = list(our_calls(script))
    assert [call.words for call in found] == [
        ["demo"],
        ["run", "tasks.shown", "name", "a b"],
        ["run", "tasks.greet", "--async"],
        ["worker", "mail"],
        ["workers"],
        ["queues"],
    ]
    assert found[1].environ == {"MRQ_GREENLETS": "7", "OTHER": "1"}
