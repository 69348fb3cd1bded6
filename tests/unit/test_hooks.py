"""Each hook: its arguments, and the effect of its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.clock import from_ms
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.driver import Driver
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord, RetryDecision, Status
from mrq_core.errors import ConfigError
from mrq_core.plugins import hookspecs
from mrq_core.plugins.hookspecs import AttemptContext, hookimpl
from mrq_core.plugins.manager import Plugins

NOW = from_ms(1_750_000_000_000)
RECORD = JobRecord(id="0" * 24, path="p", params={}, queue="q", queued_at=NOW, updated_at=NOW)


def plugins_with(*functions: Callable[..., object]) -> Plugins:
    """The plugins of a process whose config file has these hook implementations."""
    module = ModuleType("mrq_config")
    for function in functions:
        setattr(module, function.__name__, hookimpl(function))
    return Plugins(Config(module=module))


def test_every_hook_has_a_test() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("mrq_")]
    tests = [name for name in globals() if name.startswith("test_")]
    assert hooks
    assert [hook for hook in hooks if not any(test.startswith(f"test_{hook}_") for test in tests)] == []


def test_mrq_driver_brings_a_driver() -> None:
    driver = Driver(name="mine", summary="of my own")

    def mrq_driver() -> Driver:
        return driver

    assert plugins_with(mrq_driver).drivers["mine"] is driver


def test_mrq_before_enqueue_may_change_the_record() -> None:
    def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
        return replace(record, queue="other") if record.queue == "q" else None

    plugins = plugins_with(mrq_before_enqueue)
    assert plugins.before_enqueue(RECORD) == replace(RECORD, queue="other")
    other = replace(RECORD, queue="r")
    assert plugins.before_enqueue(other) == other


def test_mrq_before_enqueue_may_refuse_the_record() -> None:
    def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
        raise PermissionError("not in this queue")

    with pytest.raises(PermissionError):
        plugins_with(mrq_before_enqueue).before_enqueue(RECORD)


class Evil:
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(3)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: Evil(),
        lambda record: replace(record, meta=Evil()),
        lambda record: replace(record, params={"a": Evil()}),
        lambda record: record.meta.update(a=Evil()),
        lambda record: record.params.update(a=Evil()),
        lambda record: replace(record, queue=Evil()),
        lambda record: replace(record, due_at=Evil()),
        lambda record: replace(record, id=Evil()),
        lambda record: replace(record, history=Evil()),
    ],
)
def test_what_mrq_before_enqueue_returns_runs_no_code_of_its_own(change: Callable[[Any], Any]) -> None:
    def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
        changed: JobRecord | None = change(record)
        return changed

    with pytest.raises(ConfigError, match="mrq_before_enqueue of the plugin "):
        plugins_with(mrq_before_enqueue).before_enqueue(replace(RECORD, params={}, meta={}))


def adding(word: str, **marks: Any) -> Any:
    """An implementation of `mrq_before_enqueue` that adds a word to the path. Without a word it changes
    nothing."""

    def mrq_before_enqueue(record: JobRecord) -> JobRecord | None:
        return replace(record, path=f"{record.path}.{word}") if word else None

    return hookimpl(**marks)(mrq_before_enqueue)


def test_mrq_before_enqueue_is_a_chain_in_the_order_of_pluggy(monkeypatch: pytest.MonkeyPatch) -> None:
    implementations = {
        "first_named": adding("e"),
        "in_front": adding("a", tryfirst=True),
        "silent": adding(""),
        "behind": adding("f", trylast=True),
        "last_named": adding("d"),
    }
    for name, function in implementations.items():
        module = ModuleType(name)
        module.mrq_before_enqueue = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    file = ModuleType("mrq_config")
    file.mrq_before_enqueue = adding("c")  # type: ignore[attr-defined]
    file.named_otherwise = hookimpl(adding("b", tryfirst=True), specname="mrq_before_enqueue", tryfirst=True)  # type: ignore[attr-defined]
    plugins = Plugins(Config(plugins=tuple(implementations), module=file))
    assert plugins.before_enqueue(RECORD) == replace(RECORD, path="p.b.a.c.d.e.f")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (replace(RECORD, id="1" * 24), f"a JobRecord with the id '{'1' * 24}'"),
        ({"id": RECORD.id}, "a dict"),
        (False, "a bool"),
    ],
)
def test_mrq_before_enqueue_must_return_a_record_with_the_same_id(answer: object, found: str) -> None:
    def mrq_before_enqueue(record: JobRecord) -> object:
        return answer

    with pytest.raises(ConfigError) as caught:
        plugins_with(mrq_before_enqueue).before_enqueue(RECORD)
    assert str(caught.value) == (
        f"mrq_before_enqueue of the plugin config file returned {found}: "
        f"expected None, or a JobRecord with the id '{RECORD.id}'"
    )


def test_mrq_before_enqueue_need_not_take_the_record() -> None:
    def mrq_before_enqueue() -> None:
        """Counts, for instance."""

    assert plugins_with(mrq_before_enqueue).before_enqueue(RECORD) == RECORD


def test_mrq_retry_decision_decides_about_an_exception() -> None:
    def mrq_retry_decision(job: JobRecord, exception: BaseException) -> RetryDecision | None:
        return RetryDecision(retry=True, delay=7.0) if isinstance(exception, OSError) else None

    hook = plugins_with(mrq_retry_decision).hook.mrq_retry_decision
    assert hook(job=RECORD, exception=OSError()) == RetryDecision(retry=True, delay=7.0)
    assert hook(job=RECORD, exception=ValueError()) is None


def test_mrq_retry_decision_may_be_wrapped() -> None:
    def mrq_retry_decision(exception: BaseException) -> RetryDecision:
        return RetryDecision(retry=True, delay=7.0)

    @hookimpl(wrapper=True, specname="mrq_retry_decision")
    def twice_as_long(job: JobRecord) -> Generator[None, RetryDecision, RetryDecision]:
        decision = yield
        return replace(decision, delay=(decision.delay or 0) * 2)

    module = ModuleType("mrq_config")
    module.mrq_retry_decision = hookimpl(mrq_retry_decision)  # type: ignore[attr-defined]
    module.twice_as_long = twice_as_long  # type: ignore[attr-defined]
    decision = Plugins(Config(module=module)).hook.mrq_retry_decision(job=RECORD, exception=OSError())
    assert decision == RetryDecision(retry=True, delay=14.0)


@pytest.mark.parametrize(("hook", "call"), [("mrq_encode", "encode"), ("mrq_decode", "decode")])
def test_mrq_encode_and_mrq_decode_may_be_wrapped(hook: str, call: str) -> None:
    def pair(value: JsonValue) -> JsonValue:
        return [value, value]

    def with_length(value: JsonValue) -> Generator[None, JsonValue, JsonValue]:
        changed = yield
        return {"length": len(str(value)), "value": changed}

    module = ModuleType("mrq_config")
    module.pair = hookimpl(pair, specname=hook)  # type: ignore[attr-defined]
    module.with_length = hookimpl(with_length, specname=hook, wrapper=True)  # type: ignore[attr-defined]
    assert getattr(Plugins(Config(module=module)), call)("ab") == {"length": 2, "value": ["ab", "ab"]}


def around(name: str, *, tryfirst: bool = False, trylast: bool = False) -> ModuleType:
    """A plugin with a wrapper of `mrq_around_job`, marked for pluggy."""

    @hookimpl(wrapper=True, tryfirst=tryfirst, trylast=trylast)
    def mrq_around_job(context: AttemptContext) -> Generator[None, Outcome, None]:
        yield

    module = ModuleType(name)
    setattr(module, mrq_around_job.__name__, mrq_around_job)
    return module


def test_mrq_around_job_is_wrapped_in_the_order_of_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [
        around("last", trylast=True), around("one"), around("first", tryfirst=True), around("two"),
        around("second", tryfirst=True), around("very_last", trylast=True),
    ]  # fmt: skip
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    plugins = Plugins(Config(plugins=tuple(module.__name__ for module in modules), module=around("file")))
    assert [wrapper.plugin_name for wrapper in plugins.job_wrappers()] == [
        "first", "second", "one", "two", "config file", "last", "very_last",
    ]  # fmt: skip


def test_mrq_around_job_must_be_a_wrapper() -> None:
    def mrq_around_job(context: AttemptContext) -> None:
        """Is called by nothing."""

    with pytest.raises(ConfigError, match=r"mrq_around_job is not a wrapper.*@hookimpl\(wrapper=True\)"):
        plugins_with(mrq_around_job)


def test_mrq_encode_transforms_what_is_stored() -> None:
    def mrq_encode(value: JsonValue) -> JsonValue:
        return {"sealed": value}

    plugins = plugins_with(mrq_encode)
    assert plugins.encode([1]) == {"sealed": [1]}
    assert plugins.encode_params({"a": 1}) == {"sealed": {"a": 1}}


def test_mrq_encode_must_leave_params_a_dict() -> None:
    def mrq_encode(value: JsonValue) -> JsonValue:
        return "sealed"

    with pytest.raises(ConfigError, match="params is of type str: expected a dict"):
        plugins_with(mrq_encode).encode_params({})


def test_mrq_decode_undoes_it() -> None:
    def mrq_decode(value: JsonValue) -> JsonValue:
        return value["sealed"] if isinstance(value, dict) and "sealed" in value else value

    plugins = plugins_with(mrq_decode)
    assert plugins.decode({"sealed": [1]}) == [1]
    assert plugins.decode({"open": 1}) == {"open": 1}


@pytest.mark.parametrize("value", [None, 0, "", [], {}, {"a": 1}])
def test_without_a_plugin_values_stay_as_they_are(value: JsonValue) -> None:
    plugins = Plugins(Config())
    assert plugins.encode(value) == value
    assert plugins.decode(value) == value


def observed(hook: str, **values: Any) -> list[dict[str, Any]]:
    """What an observer of the hook is given."""
    seen: list[dict[str, Any]] = []

    def mrq_jobs_enqueued(records: Sequence[JobRecord]) -> None:
        seen.append({"records": records})

    def mrq_jobs_started(records: Sequence[JobRecord]) -> None:
        seen.append({"records": records})

    def mrq_jobs_settled(settled: Sequence[tuple[JobRecord, Outcome]]) -> None:
        seen.append({"settled": settled})

    def mrq_worker_event(worker: str, event: str) -> None:
        seen.append({"worker": worker, "event": event})

    observers = {
        f.__name__: f for f in (mrq_jobs_enqueued, mrq_jobs_started, mrq_jobs_settled, mrq_worker_event)
    }
    plugins_with(observers[hook]).observe(hook, **values)
    return seen


def test_observers_are_called_in_the_order_of_pluggy() -> None:
    seen: list[str] = []
    module = ModuleType("mrq_config")

    def add(name: str, **marks: Any) -> None:
        def watch(event: str) -> None:
            seen.append(name)

        setattr(module, name, hookimpl(watch, specname="mrq_worker_event", **marks))

    add("a_last", trylast=True)
    add("b_middle")
    add("c_first", tryfirst=True)
    Plugins(Config(module=module)).observe("mrq_worker_event", worker="w", event="stop")
    assert seen == ["c_first", "b_middle", "a_last"]


def test_mrq_jobs_enqueued_is_told_of_records() -> None:
    assert observed("mrq_jobs_enqueued", records=[RECORD]) == [{"records": [RECORD]}]


def test_mrq_jobs_started_is_told_of_records() -> None:
    assert observed("mrq_jobs_started", records=[RECORD]) == [{"records": [RECORD]}]


def test_mrq_jobs_settled_is_told_of_records_and_outcomes() -> None:
    settled = [(RECORD, Outcome(status=Status.SUCCESS))]
    assert observed("mrq_jobs_settled", settled=settled) == [{"settled": settled}]


def test_mrq_worker_event_is_told_of_worker_and_status() -> None:
    assert observed("mrq_worker_event", worker="w", event="kill") == [{"worker": "w", "event": "kill"}]
