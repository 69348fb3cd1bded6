"""The options of tasks: each of them reaches the loaded task."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from mrq_core import errors
from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import Limit
from mrq_core.errors import ConfigError
from mrq_core.tasks.loading import LoadedTask, resolve_options
from mrq_core.tasks.options import OPTION_NAMES, options_from
from mrq_core.tasks.task import Task, task

VALUES: dict[str, Any] = {
    "queue": "other",
    "priority": 2,
    "timeout": 17.0,
    "max_retries": 17,
    "retry_delay": 17.0,
    "retry_backoff": 2.0,
    "retry_max_delay": 17.0,
    "retry_jitter": True,
    "retry_on": (OSError,),
    "result_ttl": 17.0,
    "abort_ttl": 17.0,
    "cancel_ttl": 17.0,
    "default_ttl": 17.0,
    "at_most_once": True,
    "isolate": True,
    "memory": 2_000_000,
    "searchable": ("user_id",),
    "limits": {"api": Limit(concurrency=3)},
    "every": 60.0,
    "cron": "0 8 * * *",
    "schedule": {"dailytime": "08:00"},
}


def _resolved(attributes: dict[str, Any]) -> dict[str, Any]:
    task_class = type("Some", (Task,), attributes)
    loaded: LoadedTask = resolve_options("tasks.Some", task_class, Config())
    found = msgspec.structs.asdict(loaded)
    return {**found, **msgspec.structs.asdict(found.pop("retry"))}


def test_the_values_cover_all_options() -> None:
    assert set(VALUES) == set(OPTION_NAMES)


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_an_option_of_a_task_takes_effect(name: str) -> None:
    resolved = _resolved({name: VALUES[name]})
    field = {"retry_delay": "delay", "retry_backoff": "backoff", "retry_max_delay": "max_delay"}.get(
        name, "jitter" if name == "retry_jitter" else name
    )
    assert resolved[field] == VALUES[name]
    assert _resolved({})[field] != VALUES[name]


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("512MB", 512_000_000),
        ("512 mb", 512_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2048k", 2_048_000),
        ("2T", 2_000_000_000_000),
        ("3000000", 3_000_000),
        (3_000_000, 3_000_000),
    ],
)
def test_the_memory_of_a_task_is_a_number_of_bytes(memory: int | str, size: int) -> None:
    resolved = _resolved({"memory": memory})
    assert (resolved["memory"], resolved["isolate"]) == (size, True)
    assert _resolved({"memory": memory, "isolate": False})["isolate"] is False


@pytest.mark.parametrize("memory", ["", "much", "-5MB", "5XB", "10", 12, "1e9", "0.5MB"])
def test_a_memory_that_is_no_size_is_refused(memory: int | str) -> None:
    with pytest.raises(ConfigError, match=r"memory is .*expected a number of bytes, or text such as '512MB'"):
        _resolved({"memory": memory})


def test_a_function_may_have_a_doc_that_utf_8_cannot_encode() -> None:
    def odd() -> None:
        pass

    odd.__doc__ = "x\ud800"
    assert task(odd).task_class.__doc__ == "x\\ud800"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retry_on": BaseException}, "retry_on has BaseException, which includes the interrupts of mrq"),
        (
            {"retry_on": (OSError, errors.TimeoutInterrupt)},
            "has TimeoutInterrupt, which is an interrupt",
        ),
        ({"retry_on": errors.Interrupt}, "retry_on has Interrupt, which is an interrupt of mrq"),
        ({"retry_on": [errors.RetryInterrupt]}, "retry_on has RetryInterrupt, which is an interrupt of mrq"),
        ({"retry_backoff": 0}, "retry_backoff is 0: expected at least 1"),
        ({"retry_backoff": 0.5}, "retry_backoff is 0.5: expected at least 1"),
        ({"retry_backoff": math.nan}, "retry_backoff is nan: expected a number"),
        ({"retry_backoff": math.inf}, "retry_backoff is inf: expected a number"),
        ({"retry_backoff": -2}, "retry_backoff is -2.0: expected a number that is not negative"),
        (
            {"retry_max_delay": 0},
            "retry_max_delay is 0: expected a number above 0; retry_delay=0 retries",
        ),
        ({"retry_delay": 9, "retry_max_delay": 5}, "retry_delay is 9, and retry_max_delay is 5: expected"),
        ({"max_retries": True}, "max_retries is True: expected a whole number"),
        ({"timeout": False}, "timeout is False: expected a number"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        task(**options)
    with pytest.raises(ConfigError, match=re.escape(says)):
        _resolved(options)


def _raises(*_: object) -> Any:
    raise ZeroDivisionError("a method of the subclass")


_RAISING = dict.fromkeys(("__iter__", "__len__", "__bool__", "__getitem__", "total_seconds"), _raises)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"retry_on": type("List", (list,), _RAISING)([OSError])}, (OSError,)),
        ({"retry_on": type("Tuple", (tuple,), _RAISING)([OSError])}, (OSError,)),
        ({"every": type("Delta", (timedelta,), _RAISING)(seconds=60)}, 60.0),
    ],
)
def test_what_a_subclass_makes_of_a_method_does_not_count(options: dict[str, Any], found: object) -> None:
    [name] = options
    assert getattr(options_from(options, where="@task"), name) == found


@pytest.mark.parametrize("kind", [Exception, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_a_task_may_raise_itself_are_retried(kind: type[BaseException]) -> None:
    assert _resolved({"retry_on": kind})["retry_on"] == (kind,)


def test_a_delay_above_an_hour_is_kept() -> None:
    assert _resolved({"retry_delay": 7200})["max_delay"] == 7200
    assert _resolved({"retry_delay": 60})["max_delay"] == 3600


def test_zero_means_no_retry_and_no_timeout() -> None:
    resolved = _resolved({"max_retries": 0, "timeout": 0, "retry_delay": 0})
    assert (resolved["max_retries"], resolved["timeout"], resolved["delay"]) == (0, 0, 0)


class _Items:
    def __getitem__(self, key: object) -> object:
        raise IndexError("as a scalar of numpy")


_ODD = (
    Decimal("sNaN"),
    {"api": _Items()},
    {"api": range(3)},
    "\ud800",
    ("\ud800",),
    {"\ud800": "\ud800"},
    {"a": "\ud800"},
    10**5000,
    "x" * 100_000,
    ["x" * 100_000],
)


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_an_odd_value_of_an_option_is_a_short_error_that_names_the_option(name: str) -> None:
    said = []
    for value in _ODD:
        try:
            task(**{name: value})
        except ConfigError as error:
            said.append(str(error))
    assert len(said) > 1
    for text in said:
        assert len(text.encode()) < 1000
        assert name.removesuffix("s") in text  # a limit, a search key


def test_messages_about_settings_show_the_beginning_of_a_long_value() -> None:
    long = "x" * 100_000
    for settings in (
        {"broker": long}, {"broker": f"redis://{long}"}, {"broker": "sqlite", "store": long},
        {"plugins": [long]}, {"broker": f"sqlite://{long}"},
    ):  # fmt: skip
        with pytest.raises(ConfigError) as raised:
            Client(load_config(settings, environ={})).broker.prepare()
        assert len(str(raised.value)) < 3000
    with pytest.raises(ConfigError) as raised:
        load_config({long: 1}, environ={})
    assert len(str(raised.value)) < 3000
