"""A client of an empty broker, schedulers whose clock stands still until a test moves it, and tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from mrq_core.client.client import Client
from mrq_core.clock import from_ms, to_ms
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import ClaimRequest, Limit, Outcome, Settlement, Wanted
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations import schedules
from mrq_core.operations.schedules import StoredSchedule
from mrq_core.scheduler.definitions import Definition, definition_from, trigger_of
from mrq_core.scheduler.firing import Scheduler
from mrq_core.scheduler.policies import fire_id
from tests import brokers
from tests.scheduler.oracle import utc

NOON = to_ms(utc(2026, 6, 1, 12))
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
_numbers = itertools.count()


class Scene:
    """A broker with schedulers on a clock that the test sets. Jobs keep the broker's own time."""

    def __init__(self, name: str, folder: Path) -> None:
        self.broker_name, self.folder = name, folder
        self.address = brokers.address_of(name, folder)
        self.now_ms = NOON
        self._clients: list[Client] = []
        self.client = self.new_client()
        self.broker = self.client.broker
        self.broker.prepare()

    def new_client(self) -> Client:
        config = load_config({"broker": self.address.broker, "store": self.address.store}, environ={})
        self._clients.append(Client(config))
        return self._clients[-1]

    def now(self) -> datetime:
        return from_ms(self.now_ms)

    def scheduler(self, definitions: Iterable[Definition] | None = None) -> Scheduler:
        """A scheduler that has synced these definitions, and has seen the time."""
        made = Scheduler(
            self.client, None if definitions is None else list(definitions), now=self.now, wait=lambda _: None
        )
        made.start()
        return made

    def schedule(self, **keys: object) -> StoredSchedule:
        """A new schedule that counts from the scene's clock."""
        definition = definition_from({"path": "tasks.report", "name": f"s{next(_numbers)}", **keys})
        is_interval = definition.interval is not None
        at = trigger_of(definition, self.now_ms).next_after(self.now_ms - 1 if is_interval else self.now_ms)
        made = StoredSchedule(definition=definition, source="person", anchor=self.now_ms, next_fire=at)
        self.broker.state.put("schedules", definition.name, schedules.stored_value(made))
        self.broker.state.add("schedule_changes", "number", 1)
        return self.stored(definition.name)

    def stored(self, name: str) -> StoredSchedule:
        return schedules.find_schedule(self.broker, name)

    def tick(self, scheduler: Scheduler) -> None:
        """Lets the scheduler fire all that is due."""
        while scheduler.tick() == 0:
            pass

    def jobs(self, name: str) -> list[JobRecord]:
        """The jobs of a schedule, by fire time."""
        page = self.broker.find(JobFilter(schedules=(name,)), order=Order.OLDEST_FIRST, limit=1000)
        assert page.cursor is None
        return list(page.records)

    def fire_times(self, name: str, *expected: int) -> bool:
        """Whether the jobs of the schedule are those of exactly these fires."""
        return [record.id for record in self.jobs(name)] == sorted(fire_id(name, at) for at in expected)

    def claim(self, limit: int = 10, limits: Mapping[str, Limit] | None = None) -> list[JobRecord]:
        """Claims jobs, by default under the limits of the broker."""
        wanted = (Wanted(name="default"),)
        known = self.broker.rules().limits if limits is None else limits
        request = ClaimRequest(worker="w", wanted=wanted, limit=limit, lease=600, limits=known)
        return list(self.broker.claim(request).records)

    def settle(self, record: JobRecord, status: Status = Status.SUCCESS, ttl: float = 3600) -> None:
        assert record.token is not None
        outcome = Outcome(status=status, ttl=ttl)
        assert self.broker.settle([Settlement(id=record.id, token=record.token, outcome=outcome)]) == [True]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(params=brokers.PARAMS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    opened = Scene(request.param, tmp_path)
    yield opened
    opened.close()
