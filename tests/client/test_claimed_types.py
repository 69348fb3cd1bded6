"""A value that claims the class of another, as mocks, proxies and lazy strings do, is refused like any other
value of a wrong type: the same on every broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from unittest.mock import Mock

import pytest

from mrq_core import (
    Job,
    Queue,
    Schedule,
    add_schedule,
    get_job_result,
    pause_task,
    queue_job,
    queue_jobs,
    resume_task,
    run_task,
    subpool_map,
    task,
)
from mrq_core.client.client import Client
from mrq_core.contract.messages import Limit
from mrq_core.contract.queries import JobFilter
from mrq_core.errors import ConfigError, InvalidValue, MrqError
from mrq_core.ids import new_id
from mrq_core.operations.limits import set_limit
from mrq_core.tasks.task import Task, TaskFunction

TEXT, WHOLE, NUMBER, TRUTH = (Mock(spec=kind) for kind in (str, int, float, bool))
DICT, LIST, TIME, CLASS = Mock(spec=dict), Mock(spec=list), Mock(spec=datetime), Mock(spec=type)
FUNCTION, SUBCLASS = Mock(spec=TaskFunction), Mock(spec=Task)
CLIENT: Any = Mock(spec=Client)


class Lying(str):
    """Text of a name that is valid, whose class is said to be another's."""

    __class__ = property(lambda self: int)


class Whole(int):
    """A whole number whose methods raise."""

    def _raise(self, *others: object) -> Any:
        raise RuntimeError("odd")

    __int__ = __index__ = __float__ = __le__ = __lt__ = __ge__ = __gt__ = __bool__ = __trunc__ = _raise
    __radd__ = __add__ = __mul__ = __rmul__ = __round__ = _raise


class Number(float):
    """A number whose methods raise."""

    __int__ = __float__ = __le__ = __lt__ = __ge__ = __gt__ = __bool__ = __trunc__ = Whole._raise
    __radd__ = __add__ = __mul__ = __rmul__ = __round__ = Whole._raise


def calls(client: Client) -> list[Callable[[], object]]:
    """Each public call with such a value for one of its arguments."""
    job = Job(queue_job("a.B", {}))
    schedule = add_schedule(name="n", path="a.B", interval=60)
    return [
        *(lambda one=one: queue_job(one, {}) for one in (TEXT, CLASS, FUNCTION, SUBCLASS)),
        *(lambda one=one: queue_job("a.B", one) for one in (DICT, LIST, TEXT)),
        *(lambda one=one: queue_job("a.B", {"k": one}) for one in (DICT, LIST, TEXT, WHOLE, NUMBER, TRUTH)),
        *(lambda one=one: queue_job("a.B", {one: 1}) for one in (TEXT, WHOLE)),
        lambda: queue_job("a.B", {}, TEXT),
        lambda: queue_job("a.B", {}, priority=WHOLE),
        lambda: queue_job("a.B", {}, delay=NUMBER),
        lambda: queue_job("a.B", {}, delay=WHOLE),
        lambda: queue_job("a.B", {}, at=TIME),
        lambda: queue_job("a.B", {}, idempotency_key=TEXT),
        lambda: queue_job("a.B", {}, job_id=TEXT),
        lambda: queue_jobs("a.B", LIST),
        lambda: queue_jobs("a.B", [DICT]),
        lambda: queue_jobs("a.B", [{}], batch_size=WHOLE),
        lambda: Job(TEXT),
        lambda: Job(job.id, client=CLIENT),
        lambda: job.wait(WHOLE),
        lambda: job.wait(NUMBER),
        lambda: job.cancel(interrupt=TRUTH),
        lambda: job.requeue(queue=TEXT),
        lambda: job.requeue(reset_retries=TRUTH),
        lambda: job.edit(params=DICT),
        lambda: job.edit(priority=WHOLE),
        lambda: job.edit(delay=NUMBER),
        lambda: job.edit(at=TIME),
        lambda: job.edit(priority=1, seen=Mock(spec=job.fetch())),
        lambda: get_job_result(TEXT),
        lambda: Queue(TEXT),
        lambda: Queue("q").pause(seconds=WHOLE),
        lambda: Queue("q").pause(until=TIME),
        lambda: pause_task(TEXT),
        lambda: pause_task("a.B", seconds=NUMBER),
        lambda: pause_task("a.B", until=TIME),
        lambda: pause_task("a.B", client=CLIENT),
        lambda: resume_task(TEXT),
        lambda: run_task(TEXT, {}),
        lambda: run_task(SUBCLASS, {}),
        lambda: run_task("tests.client.tasks.Crawl", DICT),
        lambda: subpool_map(WHOLE, print, []),
        lambda: add_schedule(path=TEXT, interval=60),
        lambda: add_schedule(path="a.B", interval=WHOLE),
        lambda: add_schedule(path="a.B", interval=60, params=DICT),
        lambda: add_schedule(path="a.B", interval=60, queue=TEXT),
        lambda: add_schedule(path="a.B", interval=60, name=TEXT),
        lambda: add_schedule(path="a.B", interval=60, timezone=TEXT),
        lambda: add_schedule(path="a.B", interval=60, start=TIME),
        lambda: add_schedule(path="a.B", monthday=WHOLE, dailytime="08:00"),
        lambda: add_schedule(path="a.B", dailytime=TEXT),
        lambda: add_schedule(path="a.B", cron=TEXT),
        lambda: Schedule(TEXT),
        lambda: Schedule("n", client=CLIENT),
        lambda: add_schedule(path="a.B", interval=60, client=CLIENT),
        lambda: schedule.next_fires(WHOLE),
        lambda: schedule.backfill(TIME, TIME),
        lambda: set_limit(client.broker, TEXT, concurrency=1),
        lambda: set_limit(client.broker, "api", concurrency=WHOLE),
        lambda: set_limit(client.broker, "api", rate=NUMBER),
        lambda: task(queue=TEXT),
        lambda: task(timeout=NUMBER),
        lambda: task(retry_on=CLASS),
        lambda: task(limits={"api": Mock(spec=Limit)}),
    ]


def test_a_value_that_claims_another_class_is_refused_with_its_type(each_client: Client) -> None:
    made = calls(each_client)
    found: list[str] = []
    for call in made:
        line = call.__code__.co_firstlineno
        try:
            found.append(f"line {line} answered {call()!r}")
        except (InvalidValue, ConfigError) as error:
            if "Mock" not in str(error):
                found.append(f"line {line}: {error}")
        except Exception as error:
            found.append(f"line {line}: {error!r}")
    assert not found, "\n".join(found)
    assert len(each_client.broker.find(JobFilter()).records) == 1


def test_the_value_of_a_subclass_counts_and_not_its_methods(each_client: Client) -> None:
    first = queue_job("a.B", {"k": Whole(7)}, Lying("mail"), priority=Whole(3), delay=Number(60))
    record = Job(Lying(first)).fetch()
    assert (record.queue, record.priority, record.params) == ("mail", 3, {"k": 7})
    assert record.due_at is not None
    second = queue_job("a.B", {}, delay=Whole(60), idempotency_key=Lying("k"), job_id=Lying(new_id()))
    assert Job(second).edit(priority=Whole(-1), delay=Number(90))
    assert Job(second).fetch().priority == -1
    Queue(Lying("mail")).pause(seconds=Whole(60))
    assert Queue("mail").is_paused()
    assert subpool_map(Whole(2), str, [1, 2]) == ["1", "2"]
    assert queue_jobs("a.B", [{}, {}], batch_size=Whole(1), delay=Whole(5))


def test_a_message_tells_a_proxy_from_the_text_that_it_shows() -> None:
    class Lazy:
        __class__ = property(lambda self: str)

        def __repr__(self) -> str:
            return "'mail'"

    lazy: Any = Lazy()
    with pytest.raises(MrqError, match="queue is 'mail' of type Lazy: expected a name"):
        Queue(lazy)
