"""Odd values get one clear error, or work: the same on every broker."""

from __future__ import annotations

import enum
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import force_setattr, replace

from mrq_core.client.ambient import get_job_result, queue_job, queue_jobs
from mrq_core.client.client import Client
from mrq_core.client.handles import Job, Queue
from mrq_core.client.schedules import add_schedule
from mrq_core.clock import from_ms
from mrq_core.config.settings import Config
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Attempt, JobRecord, Status
from mrq_core.errors import ConfigError, InvalidValue, JobNotFound, MrqError
from mrq_core.ids import new_id
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.plugins.manager import Plugins
from mrq_core.tasks.task import Task
from tests.client import tasks
from tests.odd_zones import BrokenOffset, HugeOffset, NoOffset

NAN = math.nan


class Unshowable:
    """A value whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Text(str):
    """A str with another text and another repr."""

    def __str__(self) -> str:
        return "other"

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Name(enum.Enum):
    """Names of queues and tasks, as programs define them."""

    QUEUE = "mail"


class TextName(str, enum.Enum):  # noqa: UP042 - str() of a member is its name
    QUEUE = "mail"
    PATH = "tests.client.tasks.Crawl"


class Level(enum.IntEnum):
    HIGH = 3


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def no_records(client: Client) -> bool:
    return client.broker.find(JobFilter()).records == ()


def assert_clear(error: BaseException) -> None:
    """An error has one line of bounded length, in characters that a terminal shows."""
    text = str(error)
    assert len(text) < 700
    assert text.isprintable()


QUEUES = [
    ("", "queue is '': expected a name of 1 to 200"),
    ("x" * 1_000_000, r"queue is 'xx.{20,60}\.\.\.xx.*: expected a name of 1 to 200"),
    (5, "queue is 5: expected a name"),
    (True, "queue is True"),
    (b"mail", "queue is b'mail'"),
    (Name.QUEUE, "queue is <Name.QUEUE: 'mail'>: expected a name"),
    (Unshowable(), "queue is <Unshowable instance"),
    (["mail"], r"queue is \['mail'\]"),
    ("a\0b", r"queue is 'a\\x00b': expected text that UTF-8 can hold, without NUL"),
    ("a\udcffb", r"queue is 'a\\udcffb'"),
]
TASKS: list[tuple[Any, str]] = [
    ("", "task is '': expected a path such as 'module.Name'"),
    ("nodots", "expected a path such as"),
    (".a", "expected a path such as"),
    ("a..b", "expected a path such as"),
    ("a.b ", "expected a path such as"),
    ("a.\0", r"task is 'a\.\\x00'"),
    ("a.\udcff", r"task is 'a\.\\udcff'"),
    ("a." + "b" * 1_000_000, "of at most 500 characters"),
    ("__main__.task", "move it to a module"),
    (None, "task is None: expected a path, a subclass"),
    (5, "task is 5"),
    ([], r"task is \[\]"),
    (Task, r"task is <class 'mrq_core\.tasks\.task\.Task'>"),
    (Task(), "expected a path, a subclass"),
    (tasks.Crawl(), "pass the class itself"),
    (dict, "task is <class 'dict'>"),
    (len, "task is <built-in function len>"),
    (Unshowable(), "task is <Unshowable instance"),
]
TIMES: list[tuple[dict[str, Any], str]] = [
    ({"at": NAN}, "at is nan: expected a datetime"),
    ({"at": math.inf}, "at is inf: expected a datetime"),
    ({"at": True}, "at is True: expected a datetime"),
    ({"at": "now"}, "at is 'now': expected a datetime"),
    ({"at": 1_800_000_000}, "at is 1800000000: expected a datetime"),
    ({"at": datetime(2030, 1, 1).date()}, r"at is datetime\.date"),  # noqa: DTZ001
    ({"at": datetime(2030, 1, 1, tzinfo=NoOffset())}, "without a timezone"),
    ({"at": datetime(2030, 1, 1, tzinfo=BrokenOffset())}, r"\(ZeroDivisionError: no such zone\)"),
    ({"at": datetime(2030, 1, 1, tzinfo=HugeOffset())}, "no time in UTC"),
    ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))}, "from the year 1 to 9999"),
    ({"at": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))}, "from the year 1 to 9999"),
    ({"delay": NAN}, "delay is nan: expected seconds"),
    ({"delay": math.inf}, "delay is inf"),
    ({"delay": -0.001}, "delay is -0.001"),
    ({"delay": True}, "delay is True"),
    ({"delay": "5"}, "delay is '5'"),
    ({"delay": timedelta(seconds=5)}, r"delay is datetime\.timedelta\(seconds=5\)"),
    ({"delay": 10**30}, "delay is 1000"),
    ({"delay": Decimal(5)}, r"delay is Decimal\('5'\)"),
    ({"delay": Unshowable()}, "delay is <Unshowable instance"),
]
OTHERS = [
    ({"priority": 99}, "priority is 99: expected -4 to 4"),
    ({"priority": True}, "priority is True"),
    ({"priority": 1.0}, r"priority is 1\.0"),
    ({"priority": "1"}, "priority is '1'"),
    ({"priority": Unshowable()}, "priority is <Unshowable instance"),
    ({"idempotency_key": ""}, "idempotency_key is '': expected text of 1 to 255 characters"),
    ({"idempotency_key": "k" * 256}, "idempotency_key is 'kkk"),
    ({"idempotency_key": "\udcff"}, r"idempotency_key is '\\udcff'"),
    ({"idempotency_key": 5}, "idempotency_key is 5"),
    ({"idempotency_key": b"k"}, "idempotency_key is b'k'"),
    ({"idempotency_key": Unshowable()}, "idempotency_key is <Unshowable instance"),
    ({"job_id": "0" * 24}, "an id of 1970-01-01 00:00:00 UTC: expected .* idempotency_key takes any text"),
    ({"job_id": "f" * 24}, "an id of 2106-02-07 06:28:15 UTC"),
    ({"job_id": ""}, "job_id is '': expected 24 hex digits"),
    ({"job_id": "A" * 24}, "job_id is 'AAAA"),
    ({"job_id": "a" * 25}, "job_id is 'aaaa"),
    ({"job_id": "a" * 24 + "\n"}, r"job_id is 'a+\\n'"),
    ({"job_id": b"a" * 24}, "job_id is b'aaaa"),
    ({"job_id": Unshowable()}, "job_id is <Unshowable instance"),
]
PARAMS = [
    (5, "params is of type int"),
    ("x", "params is of type str"),
    ([("a", 1)], "params is of type list"),
    ({"n": NAN}, r"params\.n is nan: expected a finite number"),
    ({"n": -math.inf}, r"params\.n is -inf"),
    ({"n": 2**70}, r"params\.n is an integer of 71 bits"),
    ({"n": 10**10_000}, r"params\.n is an integer of 33220 bits"),
    ({"s": "a\udcff"}, "lone surrogate at character 1"),
    ({"\udcff": 1}, "lone surrogate"),
    ({"a\0": 1}, r"has the key 'a\\x00', which contains a NUL"),
    ({1: 2}, "has the key 1 of type int: expected string keys"),
    ({None: 2}, "has the key None"),
    ({b"a": 2}, "has the key b'a'"),
    ({10**10_000: 2}, "has the key an integer of 33220 bits"),
    ({Unshowable(): 2}, "has the key <Unshowable instance"),
    ({"deep": nested(1000)}, "nested more than 64 levels"),
    ({"k" * 1_000_000: {1}}, r"params\.'kk.*is of type set"),
    ({"a\nb": {1}}, r"params\.'a\\nb' is of type set"),
    ({"d": Decimal(1)}, r"params\.d is of type decimal\.Decimal.*store str\(value\)"),
    ({"d": Fraction(1)}, r"params\.d is of type fractions\.Fraction"),
    ({"d": datetime.now(UTC)}, "isoformat"),
    ({"d": b"x"}, "base64"),
    ({"d": Name.QUEUE}, r"params\.d is of type tests\.client\.test_odd_values\.Name"),
    ({"d": Unshowable()}, r"params\.d is of type tests\.client\.test_odd_values\.Unshowable"),
    ({"d": iter([])}, r"params\.d is of type list_iterator"),
    ({"d": "x" * 2_000_000}, "1,048,576"),
]


def test_every_odd_argument_is_refused_with_the_value_and_nothing_is_stored(each_client: Client) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        *((lambda v=v: queue_job("a.B", {}, v), words) for v, words in QUEUES),
        *((lambda v=v: queue_jobs("a.B", [{}], v), words) for v, words in QUEUES),
        *((lambda v=v: queue_job(v), words) for v, words in TASKS),
        *((lambda v=v: queue_jobs(v, [{}]), words) for v, words in TASKS),
        *((lambda v=v: queue_job("a.B", **v), words) for v, words in TIMES + OTHERS),
        *((lambda v=v: queue_job("a.B", v), words) for v, words in PARAMS),
        *((lambda v=v: queue_jobs("a.B", [{}, v]), words) for v, words in [*PARAMS, (None, "type NoneType")]),
    ]
    for call, words in calls:
        with pytest.raises(InvalidValue) as caught:
            call()
        assert re.search(words, str(caught.value)), (words, str(caught.value))
        assert_clear(caught.value)
        assert len(caught.value.path) <= 80
    assert no_records(each_client)


def test_plain_values_are_stored_of_subclasses_and_enum_members(each_client: Client) -> None:
    mine = new_id()
    assert queue_job(TextName.PATH, {}, TextName.QUEUE, priority=Level.HIGH, job_id=Text(mine)) == mine
    record = Job(Text(mine)).fetch()
    assert (record.path, record.queue, record.priority) == ("tests.client.tasks.Crawl", "mail", 3)
    assert Queue(TextName.QUEUE).size() == Queue(Text("mail")).size() == 1
    assert {type(value) for value in (Job(Text(mine)).id, Queue(Text("mail/")).name)} == {str}
    assert get_job_result(Text(mine)) == {"status": "queued", "result": None}
    Job(mine).cancel()
    Job(mine).requeue(queue=TextName.QUEUE)
    assert Job(mine).fetch().queue == "mail"


@pytest.mark.parametrize(
    "at",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=12))),
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(-timedelta(hours=12))),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_a_job_is_due_at_any_time_that_utc_has(each_client: Client, at: datetime) -> None:
    due = Job(queue_job("a.B", at=at)).fetch().due_at
    assert due is not None
    assert timedelta(0) <= at - due < timedelta(milliseconds=1)


class Moment(datetime):
    """A time whose text cannot be made."""

    def isoformat(self, *_: object, **__: object) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (Moment(1969, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), "from 1969-01-01T00:00:00"),
        (datetime(2020, 1, 1, tzinfo=UTC), Moment(2019, 1, 1, tzinfo=UTC), "to 2019-01-01T00:00:00"),
    ],
)
def test_a_backfill_names_times_whose_text_cannot_be_made(
    each_client: Client, start: datetime, end: datetime, says: str
) -> None:
    schedule = add_schedule(name="n", path="a.B", interval=60)
    with pytest.raises(InvalidValue, match=says):
        schedule.backfill(start, end)


def test_every_value_that_json_has_comes_back_as_it_was(each_client: Client) -> None:
    params: dict[str, Any] = {
        "": "empty", "$set": {"$where": 1}, "a.b": {"c.d": {"": [{}]}}, "__proto__": None, "_id": 1,
        "é\u2028": "\uffff😀\0",
        "numbers": [0, -0.0, 1.0, 2**53 + 1, -(2**63), 2**63 - 1, 1.7e308, 5e-324, True, False],
        "deep": nested(60),
    }  # fmt: skip
    odd = {**params, "odd": OrderedDict(a=(1, [2]), b=Text("x"), c=Level.HIGH, d=TextName.QUEUE)}
    stored = Job(queue_job("a.B", odd)).fetch().params
    assert repr(stored.pop("odd")) == repr({"a": [1, [2]], "b": "x", "c": 3, "d": "mail"})
    assert repr(sorted(stored.items())) == repr(sorted(params.items()))


def halfway() -> Iterator[dict[str, int]]:
    yield from ({"n": n} for n in range(5))
    raise OSError("the file ends")


class HostileDict(dict[str, int]):
    """A dict whose methods raise."""

    def items(self) -> Any:
        raise RuntimeError("no items")

    __iter__ = __len__ = keys = items


class HostileMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no iter")

    def __len__(self) -> int:
        raise RuntimeError("no len")


class HostileList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("no iter")

    __len__ = __eq__ = __iter__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "odd", [HostileDict(a=1), HostileMapping(), {"x": HostileDict(a=1)}, {"x": [HostileList()]}]
)
def test_params_whose_methods_raise_are_refused(each_client: Client, odd: Any) -> None:
    for call in (lambda: queue_job("a.B", odd), lambda: queue_jobs("a.B", [{}, odd])):
        with pytest.raises(
            InvalidValue, match="params cannot be read, reading it raised RuntimeError: no"
        ) as caught:
            call()
        assert_clear(caught.value)
        assert isinstance(caught.value.__cause__, RuntimeError)
    assert no_records(each_client)


def test_a_list_of_params_that_cannot_be_read_is_refused(each_client: Client) -> None:
    with pytest.raises(InvalidValue, match=r"params_list is .*its __iter__ raised RuntimeError: no iter"):
        queue_jobs("a.B", HostileList())  # type: ignore[arg-type]


def test_a_wait_may_be_longer_than_any_clock_counts(each_client: Client) -> None:
    job = Job(queue_job("a.B"))
    job.cancel()
    assert job.wait(10**400).status is Status.CANCEL


def test_the_items_of_many_jobs(each_client: Client) -> None:
    for items, words in [
        (None, "params_list is None: expected a list, or another iterable, of dicts"),
        (5, "params_list is 5"),
        ("abc", "params_list is 'abc'"),
        (b"abc", "params_list is b'abc'"),
        ({"a": 1}, r"params_list is \{'a': 1\}.*queue_job queues one job"),
        (Unshowable(), "params_list is <Unshowable instance"),
    ]:
        with pytest.raises(InvalidValue, match=words):
            queue_jobs("a.B", items)  # type: ignore[arg-type]
    for size in (True, 0, -1, 1001, 2.0, "5", None, Unshowable()):
        with pytest.raises(InvalidValue, match=r"batch_size is .*: expected a whole number from 1 to 1000"):
            queue_jobs("a.B", [{}], batch_size=size)  # type: ignore[arg-type]
    assert no_records(each_client)
    assert queue_jobs("a.B", []) == []
    with pytest.raises(OSError, match="the file ends") as caught:
        queue_jobs("a.B", halfway(), batch_size=2)
    assert caught.value.__notes__ == ["4 jobs of earlier batches are queued"]
    assert Queue("default").size() == 4


def test_a_generator_may_use_one_dict_for_all_items(each_client: Client) -> None:
    def reused() -> Iterator[dict[str, Any]]:
        params: dict[str, Any] = {"list": []}
        for n in range(5):
            params["n"] = n
            params["list"].append(n)
            yield params
        params.clear()

    ids = queue_jobs("a.B", reused(), batch_size=2)
    assert [Job(id).fetch().params for id in ids] == [{"n": n, "list": list(range(n + 1))} for n in range(5)]


def test_an_interrupt_between_batches_tells_what_is_queued(each_client: Client) -> None:
    def interrupted() -> Iterator[dict[str, int]]:
        yield {}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        queue_jobs("a.B", interrupted(), batch_size=1)
    assert caught.value.__notes__ == ["1 jobs of earlier batches are queued"]
    assert Queue("default").size() == 1


@pytest.mark.parametrize(
    "odd", [None, object(), "", 5, b"a" * 24, "A" * 24, "a" * 23, "a\0", "\udcff", Unshowable()]
)
def test_a_handle_needs_an_id(each_client: Client, odd: Any) -> None:
    for call in (Job, get_job_result, each_client.fetch):
        with pytest.raises(InvalidValue, match=r"job_id is .*: expected 24 hex digits") as caught:
            call(odd)
        assert_clear(caught.value)


@pytest.mark.parametrize("odd", [value for value, _ in QUEUES])
def test_a_handle_needs_the_name_of_a_queue(each_client: Client, odd: Any) -> None:
    with pytest.raises(InvalidValue, match="queue is ") as caught:
        Queue(odd)
    assert_clear(caught.value)


def test_odd_arguments_of_the_methods_of_a_job(each_client: Client) -> None:
    job = Job(queue_job("a.B"))
    for timeout in (NAN, "x", -1, True, timedelta(1), Unshowable(), -math.inf):
        with pytest.raises(InvalidValue, match=r"timeout is .*: expected seconds"):
            job.wait(timeout)  # type: ignore[arg-type]
    for odd in (None, 0, "yes", Unshowable()):
        with pytest.raises(InvalidValue, match=r"interrupt is .*: expected True or False"):
            job.cancel(interrupt=odd)  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"reset_retries is .*: expected True or False"):
            job.requeue(reset_retries=odd)  # type: ignore[arg-type]
    for call in (lambda: Job(job.id, client="x"), lambda: Queue("x", client=5)):  # type: ignore[arg-type]
        with pytest.raises(InvalidValue, match=r"client is .*: expected a Client"):
            call()
    assert job.fetch().status is Status.QUEUED
    job.cancel()
    assert job.wait(math.inf).status is job.wait(0).status is Status.CANCEL
    with pytest.raises(JobNotFound):
        Job(new_id()).wait(math.inf)


# --- what plugins make of values --------------------------------------------------------------------


def client_with(hook: str, function: Callable[..., object], on: Client) -> Client:
    """A client of the same broker with a plugin."""
    module = ModuleType("mrq_config")
    function.__name__ = hook
    setattr(module, hook, hookimpl(function))
    config = Config(module=module)
    return Client(config, on.broker, Plugins(config))


class Broken(JobRecord, frozen=True, kw_only=True):
    """Another type of record."""


ATTEMPT = Attempt(
    claim=1, token="1.x", started_at=from_ms(0), ended_at=from_ms(1), worker="w", status=Status.FAILED
)
CHANGES: list[tuple[dict[str, Any], str]] = [
    *(({"queue": value}, "queue is ") for value, _ in [*QUEUES, (None, "")]),
    *(({"path": value}, "task is ") for value in ("", "nodots", "a.\0", 5, None, Unshowable())),
    *(({"priority": value}, "priority is ") for value in (99, True, 1.0, "1", None)),
    *(({"due_at": value["at"]}, "due_at is ") for value, _ in TIMES if "at" in value),
    *(({"params": value}, words) for value, words in PARAMS),
    ({"params": {"x": "y" * 60_000_000}}, "1,048,576"),
    ({"meta": 5}, "meta is 5: expected a dict"),
    ({"meta": {"a": {1}}}, r"meta\.a is of type set"),
    ({"meta": {"a": "x" * 2_000_000}}, "1,048,576"),
    ({"at_most_once": 1}, "at_most_once is 1: expected True or False"),
    ({"limit_keys": "api"}, "limit_keys is 'api': expected a tuple"),
    ({"limit_keys": (5,)}, "limit_keys is"),
    ({"limit_keys": ("",)}, "limit_keys is"),
    ({"search_keys": 5}, "search_keys is 5: expected a dict"),
    ({"search_keys": {"a": [1]}}, "the search key 'a' has the value "),
    ({"search_keys": {"": 1}}, "'' is the name of a search key"),
    ({"search_keys": {"a": Unshowable()}}, r"search_keys\.a is of type \S+Unshowable"),
    ({"search_keys": {str(n): n for n in range(9)}}, "a job has 9 search keys: expected up to 8"),
    ({"history": [5]}, r"history is \[5\]: expected it unchanged"),
    ({"history": (ATTEMPT,)}, "history is .*expected it unchanged"),
    ({"status": "queued"}, "status is 'queued': expected it unchanged"),
    ({"status": Status.SUCCESS}, "status is <Status.SUCCESS"),
    ({"raw_queue": "x_raw"}, "raw_queue is 'x_raw'"),
    ({"unique_key": "x"}, "unique_key is 'x'"),
    ({"queued_at": from_ms(0)}, "queued_at is"),
    ({"waits_from": from_ms(0)}, "waits_from is"),
    ({"updated_at": None}, "updated_at is None"),
    ({"started_at": from_ms(0)}, "started_at is"),
    ({"ended_at": from_ms(0)}, "ended_at is"),
    ({"expires_at": from_ms(0)}, "expires_at is"),
    ({"lease_until": from_ms(0)}, "lease_until is"),
    ({"worker": "w"}, "worker is 'w'"),
    ({"token": "1.x"}, r"token is '1\.x'"),
    ({"progress": NAN}, "progress is nan"),
    ({"result": 5}, "result is 5"),
    ({"claims": True}, "claims is True"),
    ({"edits": 1}, "edits is 1"),
    ({"retry_count": -1}, "retry_count is -1"),
    ({"cancel_requested": True}, "cancel_requested is True"),
    ({"schedule": "x"}, "schedule is 'x'"),
    ({"parents": ("x",)}, "parents is"),
    ({"children": ("x",)}, "children is"),
]


def test_what_a_plugin_returns_is_checked_like_what_a_user_gives(each_client: Client) -> None:
    change: dict[str, Any] = {}

    def changing(record: JobRecord) -> JobRecord:
        return replace(record, **change)

    client = client_with("mrq_before_enqueue", changing, each_client)
    for change, words in CHANGES:  # noqa: B007 - the hook reads it
        for call in (lambda: client.queue_job("a.B"), lambda: client.queue_jobs("a.B", [{}])):
            with pytest.raises(ConfigError) as caught:
                call()
            text = str(caught.value)
            assert text.startswith("mrq_before_enqueue of the plugin config file returned a record whose ")
            assert re.search(words, text), (words, text)
            assert_clear(caught.value)
    assert no_records(each_client)


def test_an_in_place_change_of_a_plugin_is_checked_like_a_returned_record(each_client: Client) -> None:
    change: dict[str, Any] = {}

    def changing(record: JobRecord) -> JobRecord | None:
        for name, value in change.items():
            held = getattr(record, name)
            if isinstance(held, dict) and isinstance(value, dict):
                held.update(value)
            else:
                force_setattr(record, name, value)
        return record if is_returned else None

    client = client_with("mrq_before_enqueue", changing, each_client)
    for is_returned in (True, False):  # noqa: B007 - the hook reads both
        for change, words in CHANGES:  # noqa: B007
            for call in (lambda: client.queue_job("a.B"), lambda: client.queue_jobs("a.B", [{}])):
                with pytest.raises(ConfigError) as caught:
                    call()
                text = str(caught.value)
                assert text.startswith("mrq_before_enqueue of the plugin config file left a record whose ")
                assert re.search(words, text), (words, text)
                assert_clear(caught.value)
    assert no_records(each_client)


def test_an_in_place_change_of_a_plugin_is_stored_in_plain_values_for_its_job_alone(
    each_client: Client,
) -> None:
    kept: list[JobRecord] = []

    def changing(record: JobRecord) -> None:
        if record.params["n"] == 1:
            odd: dict[str, Any] = {"a": (1,), "b": Text("x"), "c": Level.HIGH}
            record.params.update(odd)
            record.meta.update({"tags": odd["a"]})
        for earlier in kept:
            earlier.params["late"] = earlier.meta["late"] = True
        kept.append(record)

    client = client_with("mrq_before_enqueue", changing, each_client)
    given = [{"n": n} for n in range(3)]
    records = [client.fetch(id) for id in client.queue_jobs("a.B", given)]
    assert [record.params for record in records] == [
        {"n": 0}, {"n": 1, "a": [1], "b": "x", "c": 3}, {"n": 2},
    ]  # fmt: skip
    assert [record.meta for record in records] == [{}, {"tags": [1]}, {}]
    assert given == [{"n": n} for n in range(3)]


def test_every_field_of_a_record_is_checked() -> None:
    tried = {name for change, _ in CHANGES for name in change}
    left = {"id", "lost_claims", "solo_deaths", "exception_type", "exception_message", "error_group",
            "traceback", "original_traceback", "total_time", "greenlet_time", "switches",
            "memory_diff"}  # fmt: skip
    assert set(JobRecord.__struct_fields__) == tried | left


def test_what_a_plugin_may_change_is_stored_in_plain_values(each_client: Client) -> None:
    at = datetime(2031, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    def changing(record: JobRecord) -> JobRecord:
        return replace(
            record, path=TextName.PATH, queue=Text("mail/x"), priority=Level.HIGH, due_at=at,
            params=OrderedDict(a=(1,)), meta={"a": (Text("x"),), "$b.c": {"": 1}}, at_most_once=True,
        )  # fmt: skip

    client = client_with("mrq_before_enqueue", changing, each_client)
    record = client.fetch(client.queue_job("a.B", {"n": 1}, delay=5))
    assert (record.path, record.queue, record.priority) == ("tests.client.tasks.Crawl", "mail/x", 3)
    assert (record.params, record.meta) == ({"a": [1]}, {"a": ["x"], "$b.c": {"": 1}})
    assert record.due_at == at
    assert record.at_most_once


@pytest.mark.parametrize("odd", [5, "x", [], {}, Unshowable(), True])
def test_a_plugin_that_returns_no_record_is_named(each_client: Client, odd: object) -> None:
    client = client_with("mrq_before_enqueue", lambda record: odd, each_client)
    with pytest.raises(
        ConfigError, match=r"of the plugin config file returned a .*: expected None, or a JobRecord"
    ):
        client.queue_job("a.B")
    assert no_records(each_client)


@pytest.mark.parametrize("kind", [ValueError, GeneratorExit])
def test_what_a_plugin_raises_refuses_the_job_and_names_the_plugin(
    each_client: Client, kind: type[BaseException]
) -> None:
    def raising(record: JobRecord) -> None:
        if record.params == {"n": 3}:
            raise kind("no")

    client = client_with("mrq_before_enqueue", raising, each_client)
    with pytest.raises(kind) as caught:
        client.queue_jobs("a.B", [{"n": n} for n in range(5)], batch_size=2)
    assert caught.value.__notes__ == [
        "raised by mrq_before_enqueue of the plugin config file: the job is not queued",
        "item 3 of params_list, counted from 0",
        "2 jobs of earlier batches are queued",
    ]
    assert each_client.broker.counts(["default"])[0].waiting == 2


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_plugin_that_exits_does_not_end_the_process(each_client: Client, kind: type[BaseException]) -> None:
    def leaving(record: JobRecord) -> None:
        raise kind("bye")

    words = f"plugin config file raised {kind.__name__}: bye: the job is not queued"
    with pytest.raises(ConfigError, match=words):
        client_with("mrq_before_enqueue", leaving, each_client).queue_job("a.B")
    assert no_records(each_client)


def test_a_plugin_that_queues_a_job_for_each_job_is_told_so(each_client: Client) -> None:
    def endless(record: JobRecord) -> None:
        client.queue_job("audit.Log")

    client = client_with("mrq_before_enqueue", endless, each_client)
    with pytest.raises(ConfigError, match=r"RecursionError.*it is called again for that job") as caught:
        client.queue_job("a.B")
    assert len(caught.value.__notes__) == 1
    assert no_records(each_client)


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (5, "cannot be stored: params is of type int: expected a dict"),
        ([1], "cannot be stored: params is of type list"),
        ({"a": {1}}, r"cannot be stored: params\.a is of type set"),
        ({"a": NAN}, r"params\.a is nan"),
        ({"a\0": 1}, "NUL"),
        ({"a": "x" * 60_000_000}, "1,048,576"),
    ],
)
def test_encoded_params_are_checked(each_client: Client, encoded: object, words: str) -> None:
    client = client_with("mrq_encode", lambda value: encoded, each_client)
    with pytest.raises(ConfigError, match=r"mrq_encode of the plugin config file .*" + words):
        client.queue_job("a.B")
    assert no_records(each_client)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
@pytest.mark.parametrize("hook", ["mrq_encode", "mrq_decode"])
def test_a_plugin_that_cannot_transform_a_value_is_named(
    each_client: Client, hook: str, kind: type[BaseException]
) -> None:
    def raising(value: object) -> None:
        raise kind("no")

    job_id = each_client.queue_job("a.B")
    client = client_with(hook, raising, each_client)
    expected = kind if kind is ValueError else ConfigError
    with pytest.raises(expected, match="no") as caught:
        client.queue_job("a.B") if hook == "mrq_encode" else client.fetch(job_id)
    words = f"{hook} of the plugin config file"
    assert words in "".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert each_client.broker.counts(["default"])[0].waiting == 1


def test_an_observer_that_queues_a_job_for_each_job_ends(each_client: Client) -> None:
    def auditing(records: Sequence[JobRecord]) -> None:
        seen.extend(record.path for record in records)
        client.queue_job("audit.Log", queue="audit")

    seen: list[str] = []
    client = client_with("mrq_jobs_enqueued", auditing, each_client)
    for _ in range(2):
        client.queue_jobs("a.B", [{}, {}])
    assert seen == ["a.B"] * 4
    assert [counts.waiting for counts in each_client.broker.counts(["default", "audit"])] == [4, 2]


def test_every_error_of_a_value_is_an_error_of_mrq() -> None:
    assert issubclass(InvalidValue, MrqError)
    assert issubclass(InvalidValue, ValueError)


def test_a_program_may_replace_the_connections_to_its_own_database(each_client: Client) -> None:
    with mock.patch("sqlite3.connect"):
        job = each_client.queue_job("tasks.add")
    assert each_client.fetch(job).path == "tasks.add"
