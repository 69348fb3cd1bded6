"""The client: what people call from web applications, scripts and threads."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.client import ambient as ambient_module
from mrq_core.client.ambient import configure, current_client, get_job_result, queue_job, queue_jobs
from mrq_core.client.client import Client
from mrq_core.client.handles import Job, Queue
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import ChangeResult
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import (
    BrokerUnavailable,
    ChangeRefused,
    ConfigError,
    InvalidParams,
    InvalidValue,
    JobNotFound,
    NoCurrentJob,
    WaitTimeout,
)
from mrq_core.ids import is_id, new_id
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.tasks.task import Task
from mrq_core.testing import MemoryBroker
from tests.client import tasks


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(ambient_module, "_process_client", None)
    monkeypatch.chdir(tmp_path)
    made = configure(broker=f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield made
    made.close()


def test_queue_job_returns_the_id_of_a_queued_job(client: Client) -> None:
    job_id = queue_job("some.Task", {"a": [1, "é", None]})
    record = Job(job_id).fetch()
    assert is_id(job_id)
    assert (record.path, record.params, record.queue) == ("some.Task", {"a": [1, "é", None]}, "default")
    assert record.status == Status.QUEUED
    assert get_job_result(job_id) == {"status": "queued", "result": None}


def test_queue_jobs_sends_batches_and_returns_ids_in_order(client: Client) -> None:
    ids = queue_jobs("some.Task", ({"n": n} for n in range(2500)), batch_size=1000)
    found = client.broker.get(ids[:3] + ids[-1:])
    assert len(set(ids)) == 2500
    assert [record.params["n"] for record in found if record] == [0, 1, 2, 2499]
    assert Queue("default").size() == 2500


def test_the_options_of_a_task_choose_queue_and_priority(client: Client) -> None:
    record = Job(queue_job(tasks.mail, {"to": "x"})).fetch()
    assert (record.path, record.queue, record.priority) == ("tests.client.tasks.mail", "mail", 2)
    assert Job(queue_job("tests.client.tasks.Crawl")).fetch().queue == "crawl"
    assert Job(queue_job(tasks.Crawl, queue="other", priority=-1)).fetch().queue == "other"


def test_tasks_in_the_configuration_override_the_options(tmp_path: Path) -> None:
    options = {"tests.client.tasks.mail": {"queue": "q2"}, "not.here": {"queue": "q3", "at_most_once": True}}
    config = load_config({"broker": f"sqlite:///{tmp_path}/j", "tasks": options}, environ={})
    client = Client(config)
    assert client.fetch(client.queue_job(tasks.mail, {"to": "x"})).queue == "q2"
    elsewhere = client.fetch(client.queue_job("not.here"))
    assert (elsewhere.queue, elsewhere.at_most_once, elsewhere.priority) == ("q3", True, 0)
    client.close()


def test_delay_and_at_make_a_job_due_later(client: Client) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    at = Job(queue_job("a.B", at=later)).fetch()
    assert at.due_at is not None
    assert abs((at.due_at - later).total_seconds()) < 0.002
    delayed = Job(queue_job("a.B", delay=60)).fetch()
    assert delayed.due_at is not None
    assert 50 < (delayed.due_at - delayed.queued_at).total_seconds() < 70


def test_a_job_id_of_ones_own_makes_a_repetition_harmless(client: Client) -> None:
    mine = new_id()
    assert [queue_job("a.B", job_id=mine) for _ in range(3)] == [mine] * 3
    assert Queue("default").size() == 1


def test_a_given_job_id_is_of_within_a_day_by_the_clock_of_the_client(client: Client) -> None:
    now = int(time.time())
    for seconds in (now - 86_000, now + 86_000):
        fresh = f"{seconds:08x}{'0' * 16}"
        assert queue_job("a.B", job_id=fresh) == fresh
    for seconds in (now - 87_000, now + 87_000):
        with pytest.raises(InvalidValue, match=r"made within a day by .* idempotency_key takes any text"):
            queue_job("a.B", job_id=f"{seconds:08x}{'0' * 16}")
    assert Queue("default").size() == 2


def test_an_idempotency_key_queues_one_job_and_returns_its_id_again(client: Client) -> None:
    first = queue_job("a.B", {"n": 1}, idempotency_key="order 7")
    assert queue_job("a.B", {"n": 1}, idempotency_key="order 7") == first
    # Other params and options change nothing of the first job.
    assert queue_job("a.C", {"n": 2}, "elsewhere", priority=3, idempotency_key="order 7") == first
    assert queue_job("a.B", {"n": 1}, idempotency_key="order 8") != first
    record = client.fetch(first)
    assert (record.path, record.params, record.queue, record.unique_key) == (
        "a.B",
        {"n": 1},
        "default",
        "order 7",
    )
    assert Queue("default").size() == 2
    assert Queue("elsewhere").size() == 0


def test_jobs_are_queued_on_a_queue_with_any_name_and_on_the_queue_of_a_tree(client: Client) -> None:
    for name in ("two words", "a,b", "main/", "main/sub", "/", "line\nbreak", "\U0001f680"):
        assert client.fetch(queue_job("a.B", queue=name)).queue == name
        assert Queue(name).size() == 1
    assert Queue("main/").size() == 2
    tree = Queue("main/")
    tree.pause()
    assert tree.is_paused()
    assert Queue("main/sub").is_paused()
    assert not Queue("main").is_paused()


@pytest.mark.parametrize("key", ["k" * 255, "\U0001f511" * 255, "a\0b\nc", " ", "{x}*'\""])
def test_an_idempotency_key_is_any_text(client: Client, key: str) -> None:
    first = queue_job("a.B", idempotency_key=key)
    assert queue_job("a.B", idempotency_key=key) == first
    assert client.fetch(first).unique_key == key


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"params": {"deep": [1, {"x": object()}]}}, r"params\.deep\[1\]\.x is of type object"),
        ({"params": {"when": datetime.now(UTC)}}, "isoformat"),
        ({"params": {1: 2}}, "string keys"),
        ({"params": {"n": float("inf")}}, "finite"),
        ({"params": {"n": 2**63}}, "64 bits"),
        ({"params": {"s": "\udcff"}}, "surrogate"),
        ({"params": {"big": "x" * 2_000_000}}, "1,048,576"),
        ({"params": [1]}, "expected a dict"),
        ({"queue": ""}, "expected a name"),
        ({"queue": "q" * 201}, "expected a name of 1 to 200 characters"),
        ({"queue": "a\0b"}, "without NUL characters"),
        ({"queue": "crawl_timed_set"}, "raw queue"),
        ({"priority": 5}, "-4 to 4"),
        ({"delay": -1}, "seconds"),
        ({"delay": 1, "at": datetime.now(UTC)}, "one of them"),
        ({"at": datetime(2030, 1, 1)}, "timezone"),  # noqa: DTZ001
        ({"job_id": "x"}, "24 hex digits"),
    ],
)
def test_what_cannot_be_queued_is_refused_and_nothing_is_stored(
    client: Client, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidValue, match=words):
        queue_job("a.B", **arguments)  # type: ignore[arg-type]
    assert client.broker.find(JobFilter()).records == ()


def test_a_bad_value_in_a_batch_stores_nothing_of_that_batch_and_says_what_is_queued(client: Client) -> None:
    with pytest.raises(InvalidValue) as caught:
        queue_jobs("a.B", [{"n": 1}, {"n": 2}, {"n": 3}, {"n": object()}], batch_size=2)
    assert caught.value.__notes__ == [
        "item 3 of params_list, counted from 0",
        "2 jobs of earlier batches are queued",
    ]
    found = client.broker.find(JobFilter(), order=Order.OLDEST_FIRST).records
    assert [record.params["n"] for record in found] == [1, 2]


def test_params_that_do_not_fit_a_function_are_refused_where_they_are_queued(client: Client) -> None:
    with pytest.raises(InvalidParams, match="no argument 'too'; did you mean 'to'"):
        queue_job(tasks.mail, {"too": "x"})
    with pytest.raises(InvalidParams, match="missing required field `to`"):
        queue_job(tasks.mail, {})
    with pytest.raises(InvalidParams, match="copies"):
        queue_job(tasks.mail, {"to": "x", "copies": "many"})
    assert Queue("mail").size() == 0


def test_every_plugin_may_change_the_record_before_it_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    def marking(key: str) -> ModuleType:
        def mrq_before_enqueue(record: JobRecord) -> JobRecord:
            return replace(record, meta={**record.meta, key: record.id})

        module = ModuleType(key)
        module.mrq_before_enqueue = hookimpl(mrq_before_enqueue)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, key, module)
        return module

    config = Config(plugins=("shop", "audit"), module=marking("file"))
    marking("shop"), marking("audit")
    client = Client(config, broker=MemoryBroker())
    single, (many,) = client.queue_job("a.B"), client.queue_jobs("a.B", [{}])
    for job_id in (single, many):
        assert client.fetch(job_id).meta == dict.fromkeys(("shop", "audit", "file"), job_id)


def test_a_plugin_that_changes_the_id_is_refused_and_nothing_is_queued() -> None:
    def mrq_before_enqueue(record: JobRecord) -> JobRecord:
        return replace(record, id=new_id())

    module = ModuleType("mrq_config")
    module.mrq_before_enqueue = hookimpl(mrq_before_enqueue)  # type: ignore[attr-defined]
    client = Client(Config(module=module), broker=MemoryBroker())
    with pytest.raises(
        ConfigError, match="mrq_before_enqueue of the plugin config file returned a JobRecord"
    ):
        client.queue_job("a.B")
    assert client.broker.find(JobFilter()).records == ()


def test_a_task_of_the_running_script_is_refused_because_no_worker_can_import_it(client: Client) -> None:
    script = textwrap.dedent(
        """
        from mrq_core import queue_job, task
        @task
        def here(): pass
        try:
            queue_job(here)
        except ValueError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "move it to a module" in done.stdout


def test_an_unknown_job_is_not_found(client: Client) -> None:
    job = Job(new_id())
    for call in (job.fetch, job.wait, job.cancel, job.requeue, lambda: get_job_result(job.id)):
        with pytest.raises(JobNotFound, match=job.id):
            call()


def test_cancel_and_requeue_answer_what_they_did_and_refuse_what_they_cannot(client: Client) -> None:
    job = Job(queue_job("a.B"))
    assert job.cancel() is ChangeResult.DONE
    with pytest.raises(ChangeRefused, match="its status is cancel"):
        job.cancel()
    assert job.requeue(queue="second") is ChangeResult.DONE
    assert job.fetch().queue == "second"
    with pytest.raises(ChangeRefused, match="its status is queued"):
        job.requeue()


def test_wait_gives_up_after_its_timeout(client: Client) -> None:
    with pytest.raises(WaitTimeout, match="its status is queued"):
        Job(queue_job("a.B")).wait(timeout=0.05)


def test_progress_can_be_set_by_the_job_itself_only(client: Client) -> None:
    with pytest.raises(NoCurrentJob):
        Job(queue_job("a.B")).set_progress(0.5)


def test_the_size_of_a_tree_is_that_of_its_subqueues(client: Client) -> None:
    for name in ("mail/a", "mail/b", "mail/b", "mails", "mail"):
        queue_job("a.B", queue=name)
    assert Queue("mail/").size() == 3
    assert Queue("mail/b").size() == 2
    assert Queue("none/").size() == 0


def test_a_queue_can_be_paused_and_resumed_and_so_can_a_tree(client: Client) -> None:
    sub = Queue("main/sub")
    Queue("main/").pause()
    assert sub.is_paused()
    sub.pause()
    Queue("main/").resume()
    assert sub.is_paused()
    sub.resume()
    assert not sub.is_paused()


def test_enqueueing_does_not_wait_forever_on_a_locked_broker(client: Client, tmp_path: Path) -> None:
    first = queue_job("a.B")
    impatient = Client(load_config({"broker": client.config.broker, "broker_timeout": 0.2}, environ={}))
    lock = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match="locked"):
        impatient.queue_job("a.B")
    lock.execute("ROLLBACK")
    lock.close()
    impatient.close()
    queue_job("a.B")
    assert Queue("default").size() == 2
    assert Job(first).fetch().status == Status.QUEUED


def test_all_threads_share_one_client(client: Client) -> None:
    ids: list[str] = []

    def work() -> None:
        ids.extend(queue_job("a.B", {"n": n}) for n in range(25))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 200
    assert Queue("default").size() == 200


def test_a_forked_child_goes_on_with_the_same_client(client: Client) -> None:
    queue_job("a.B")
    child = os.fork()
    if child == 0:
        try:
            queue_job("a.B")
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    queue_job("a.B")
    assert Queue("default").size() == 3


def test_the_client_finds_its_configuration_as_the_command_line_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ambient_module, "_process_client", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MRQ_BROKER", raising=False)
    (tmp_path / "mrq-config.py").write_text("SQLITE = 'from-file.sqlite3'\n")
    queue_job("a.B")
    assert (tmp_path / "from-file.sqlite3").is_file()
    current_client().close()


def test_an_unknown_setting_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean BROKER"):
        configure(brokr="sqlite")


def test_queueing_imports_neither_gevent_nor_the_command_line(tmp_path: Path) -> None:
    script = (
        "import sys, mrq_core\n"
        "assert not {'sqlite3', 'gevent', 'typer', 'rich', 'pluggy'} & set(sys.modules), 'import mrq_core'\n"
        "mrq_core.queue_job('a.B'); mrq_core.Job('0' * 24)\n"
        "assert not {'gevent', 'typer', 'rich'} & set(sys.modules), 'queue_job'\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


LEAVING = {
    "module": "{}\n",
    "getattr": "def __getattr__(name):\n    {}\n",
}


@pytest.mark.parametrize("code", LEAVING.values(), ids=LEAVING)
@pytest.mark.parametrize(
    "error",
    [
        *("SystemExit(3)", "KeyboardInterrupt", "GeneratorExit", "ValueError('x')", "BaseException('x')"),
        *("__import__('gevent').GreenletExit", "__import__('gevent').Timeout(1)"),
    ],
)
def test_a_task_whose_module_exits_or_fails_is_queued_by_its_path(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaving.py").write_text(code.format(f"raise {error}"))
    try:
        assert Job(queue_job("leaving.sell")).fetch().path == "leaving.sell"
    finally:
        sys.modules.pop("leaving", None)


@pytest.mark.parametrize("code", LEAVING.values(), ids=LEAVING)
@pytest.mark.parametrize(
    "error",
    [
        "__import__('signal').raise_signal(2)  # KeyboardInterrupt",
        "import gevent; gevent.spawn(gevent.getcurrent().throw); gevent.sleep(5)  # GreenletExit",
        "import gevent; gevent.Timeout(0.001).start(); gevent.sleep(5)",
    ],
)
def test_an_interrupt_of_the_caller_ends_a_call_that_imports_a_task(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaving.py").write_text(code.format(error))
    with pytest.raises(BaseException, match=r"^(|0.001 second)s?$") as caught:
        queue_job("leaving.sell")
    assert caught.type.__name__ in error
    assert Queue("default").size() == 0
    sys.modules.pop("leaving", None)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"queue": "q", "priority": 2}, {}),
        ({}, {"queue": "q", "priority": 2}),
        ({"queue": "other", "priority": 1}, {"queue": "q", "priority": 2}),
    ],
)
def test_a_task_whose_options_are_set_in_tasks_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], arguments: dict[str, Any]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_shop.py").write_text("from mrq_core import task\n\n@task\ndef sell():\n    return 5\n")
    limits = {"shop:{n}": {"concurrency": 2}}
    options = {**options, "at_most_once": True, "searchable": ("n",), "limits": limits}
    client = Client(Config(tasks={"slow_shop.sell": options}), MemoryBroker())
    for _ in range(2):
        record = client.fetch(client.queue_job("slow_shop.sell", {"n": 1}, **arguments))
        assert (record.queue, record.priority, record.at_most_once) == ("q", 2, True)
        assert record.search_keys == {"n": 1}
        assert record.limit_keys == ("shop:1",)
    [id] = client.queue_jobs("slow_shop.sell", [{}], **arguments)
    assert client.fetch(id).at_most_once
    assert "slow_shop" not in sys.modules
    del options["searchable"]
    client.queue_job("slow_shop.sell", **arguments)
    assert sys.modules.pop("slow_shop", None) is None  # the client keeps what TASKS sets
    Client(Config(tasks={"slow_shop.sell": options}), MemoryBroker()).queue_job("slow_shop.sell", **arguments)
    assert sys.modules.pop("slow_shop", None) is not None


def test_a_task_of_the_script_that_is_running_is_refused_in_its_children(client: Client) -> None:
    for path in ("__main__.sell", "__mp_main__.sell"):
        with pytest.raises(InvalidValue, match="move it to a module"):
            queue_job(path)
    foreign = type("Sell", (Task,), {"__module__": "__mp_main__"})
    with pytest.raises(InvalidValue, match="is defined in the script that is running"):
        queue_job(foreign)
