"""A job whose stored data were changed by hand is set aside, and the jobs behind it go on, on each broker."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from bson import ObjectId
from msgspec.structs import replace

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.queue import RedisQueue
from mrq_core.client.client import Client
from mrq_core.composed import ComposedBroker
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    ChangeResult,
    ClaimRef,
    ClaimRequest,
    NewJob,
    Note,
    Outcome,
    Remove,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.actions import repair_all
from mrq_core.operations.checking.consistency import consistency_findings
from mrq_core.operations.checking.damaged_jobs import damaged_findings
from tests import brokers

DAMAGED = "mrq_core.errors.JobDamaged"
Change = Callable[[Any, str], object]


def _sqlite(assignment: str) -> Change:
    def change(path: Path, job_id: str) -> None:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute(f"UPDATE jobs SET {assignment} WHERE id = ?", (job_id,)).rowcount == 1
            connection.commit()

    return change


def _redis(*command: object) -> Change:
    """Runs a command on ``j``, the hash of the job, or ``r``, its data."""

    def change(broker: RedisBroker, job_id: str) -> None:
        name, key, *values = command
        full = broker._connection.key(f"{key}:{job_id}")
        broker._connection.use(lambda client: client.execute_command(name, full, *values))

    return change


def _redis_data(changed: Callable[[bytes], bytes]) -> Change:
    def change(broker: RedisBroker, job_id: str) -> None:
        key = broker._connection.key(f"r:{job_id}")
        data = broker._connection.use(lambda client: client.get(key))
        broker._connection.use(lambda client: client.set(key, changed(data)))

    return change


def _redis_all(*changes: Change) -> Change:
    return lambda broker, job_id: [change(broker, job_id) for change in changes]


def _mongo(update: dict[str, Any]) -> Change:
    def change(broker: MongoBroker | MongoStore, job_id: str) -> None:
        query = {"_id": ObjectId(job_id)}
        result = broker._connection.run("jobs", lambda jobs: jobs.update_one(query, update))
        assert result.modified_count == 1

    return change


class Damage(NamedTuple):
    """A change of a stored job by hand."""

    change: Change
    of_params: bool = False
    keeps_token: bool = True
    """Whether the token of a claim can still be read."""
    of_claims: bool = False
    """Whether only a claim reads what was changed."""
    is_total: bool = False
    """Whether the totals do not have the numbers afterwards, because the change concerns them."""


_MONGO = {
    "a field of another type": Damage(_mongo({"$set": {"retry_count": "many"}})),
    "no path": Damage(_mongo({"$unset": {"path": ""}}), is_total=True),
    "no version": Damage(_mongo({"$unset": {"v": ""}})),
    "a version that is a text": Damage(_mongo({"$set": {"v": "x"}})),
    "a time that is a text": Damage(_mongo({"$set": {"queued_at": "yesterday"}})),
    "limit keys that are a number": Damage(_mongo({"$set": {"limit_keys": 5}})),
    "params": Damage(_mongo({"$set": {"params": 5}}), of_params=True),
}
DAMAGES: dict[str, dict[str, Damage]] = {
    "sqlite": {
        "garbage": Damage(_sqlite("record = x'c1ff00'")),
        "truncated": Damage(_sqlite("record = substr(record, 1, 40)")),
        "a text": Damage(_sqlite("record = 'text'")),
        "a number": Damage(_sqlite("record = 5")),
        "params": Damage(_sqlite("params = '{bad'"), of_params=True),
        "params of another type": Damage(_sqlite("params = '[1]'"), of_params=True),
    },
    "redis": {
        "garbage": Damage(_redis("SET", "r", b"\xc1\xff\x00"), of_params=True),
        "truncated": Damage(_redis_data(lambda data: data[:40]), of_params=True),
        "empty": Damage(_redis("SET", "r", ""), of_params=True),
        "no data": Damage(_redis("DEL", "r"), of_params=True),
        "a list": Damage(_redis_all(_redis("DEL", "r"), _redis("RPUSH", "r", "x")), of_params=True),
        "a text as the hash": Damage(_redis("SET", "j", "x"), keeps_token=False, is_total=True),
        "no status": Damage(_redis("HDEL", "j", "s"), is_total=True),
        "no path": Damage(_redis("HDEL", "j", "h"), is_total=True),
        "claims that are a text": Damage(_redis("HSET", "j", "n", "many", "o", "1"), of_claims=True),
        "limit keys": Damage(_redis("HSET", "j", "l", "\xc1", "o", "1"), of_claims=True),
        "params": Damage(_redis_data(lambda data: data.replace(b'{"n"', b"{bad!")), of_params=True),
    },
    "mongo": _MONGO,
    "redis+mongo": _MONGO,
}
CASES = [
    pytest.param(
        (name, kind),
        id=f"{name}-{kind}".replace(" ", "_"),
        marks=() if name in brokers.PER_COMMIT else pytest.mark.campaign,
    )
    for name in brokers.NAMES
    for kind in DAMAGES[name]
]


class Scene(NamedTuple):
    """A broker, and the damage that it meets."""

    name: str
    broker: Broker
    folder: Path
    kind: Damage

    def damage(self, job_id: str) -> None:
        broker = self.broker
        where = broker._store if isinstance(broker, ComposedBroker) else broker
        self.kind.change(self.folder / "jobs.sqlite3" if self.name == "sqlite" else where, job_id)

    def put(self, number: int = 1, **fields: Any) -> list[str]:
        now = self.broker.now()
        jobs = [
            NewJob(
                record=JobRecord(
                    id=new_id(),
                    path="some.Task",
                    params={"n": 1},
                    queue="q",
                    queued_at=now,
                    updated_at=now,
                    **fields,
                )
            )
            for _ in range(number)
        ]
        return [one.id for one in self.broker.enqueue(jobs)]

    def claim(self, limit: int = 10, lease: float = 60.0) -> list[JobRecord]:
        request = ClaimRequest(
            worker="w", wanted=(Wanted(name="q"),), limit=limit, lease=lease, lost_limit=10
        )
        claimed = self.broker.claim(request)
        return list(claimed.records)

    def claimed(self, limit: int, number: int) -> set[str]:
        """The ids of this number of jobs, claimed by as many calls as are needed."""
        ids: set[str] = set()
        deadline = time.monotonic() + 2
        while len(ids) < number and time.monotonic() < deadline:
            ids |= {record.id for record in self.claim(limit)}
        return ids

    def get(self, job_id: str) -> JobRecord:
        [record] = self.broker.get([job_id])
        assert record is not None
        return record

    def check(self) -> None:
        """Everything that is stored beside the records is as a recount gives it."""
        brokers.repair(self.broker)
        if not self.kind.is_total:
            brokers.check_counters(self.name, self.broker, self.folder)


@pytest.fixture(params=CASES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    name, kind = request.param
    address = brokers.address_of(name, tmp_path)
    client = Client(Config(broker=address.broker, store=address.store))
    client.broker.prepare()
    yield Scene(name, client.broker, tmp_path, DAMAGES[name][kind])
    client.close()


def is_failed(record: JobRecord) -> bool:
    """Whether the job was set aside, with an error that names it."""
    assert record.exception_type == DAMAGED
    assert record.id in (record.exception_message or "")
    assert record.id in (record.traceback or "")
    return record.status is Status.FAILED


@pytest.mark.parametrize("limit", [1, 10])
def test_the_jobs_behind_a_damaged_job_are_claimed(scene: Scene, limit: int) -> None:
    ids = scene.put(4)
    scene.damage(ids[1])
    assert scene.claimed(limit, 3) == {ids[0], ids[2], ids[3]}
    assert scene.claim() == []
    assert is_failed(scene.get(ids[1]))
    scene.check()
    found = scene.broker.find(JobFilter(exception_types=("JobDamaged",)))
    assert [record.id for record in found.records] == [ids[1]]
    assert scene.broker.remove([ids[1]]) == [ChangeResult.DONE]
    assert scene.broker.get([ids[1]]) == [None]
    scene.check()


def test_a_lost_claim_of_a_damaged_job_stops_no_other_claim(scene: Scene) -> None:
    ids = scene.put(2)
    assert len(scene.claim(lease=0.05)) == 2
    scene.damage(ids[0])
    time.sleep(0.06)
    others = scene.put()
    claimed = scene.claimed(10, 2)
    if scene.kind.of_claims:
        claimed.discard(ids[0])  # only the claims of waiting jobs read it
    else:
        assert is_failed(scene.get(ids[0]))
    assert claimed == {ids[1], *others}
    scene.check()


def test_a_damaged_job_is_shown_and_removed_before_any_claim(scene: Scene) -> None:
    ids = scene.put(3)
    scene.damage(ids[1])
    if not scene.kind.of_claims:
        assert is_failed(scene.get(ids[1]))
        assert scene.get(ids[1]).path == "some.Task" or scene.kind.is_total
    assert len(scene.broker.find(JobFilter(queues=("q",))).records) == 3
    done = scene.broker.apply(JobFilter(queues=("q",)), Remove())
    assert done.changes == {ChangeResult.DONE: 3}
    assert scene.broker.get(ids) == [None] * 3
    assert scene.claim() == []
    scene.check()


def test_a_requeued_job_runs_with_its_params_or_fails_again(scene: Scene) -> None:
    [job_id] = scene.put()
    scene.damage(job_id)
    assert scene.claim() == []
    assert scene.broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
    again = scene.claim()
    if scene.kind.of_params:
        assert again == []
        assert is_failed(scene.get(job_id))
    else:
        assert [record.params for record in again] == [{"n": 1}]
    scene.check()


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED])
def test_the_outcome_of_a_job_that_is_damaged_while_it_runs_is_accepted(
    scene: Scene, status: Status, is_read: bool
) -> None:
    ids = scene.put(2)
    records = scene.claim()
    scene.damage(ids[0])
    if is_read:
        assert scene.get(ids[0]).status is Status.STARTED
        if not scene.kind.of_claims:
            scene.check()
    outcome = Outcome(
        status=status, ttl=1e6, exception_type="ValueError" if status is Status.FAILED else None
    )
    settlements = [Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in records]
    assert scene.broker.settle(settlements) == [scene.kind.keeps_token, True]
    assert scene.get(ids[1]).status is status
    assert scene.get(ids[0]).status is (status if scene.kind.keeps_token else Status.STARTED)
    scene.check()


def test_a_job_that_is_damaged_while_it_runs_fails_after_a_lost_claim(scene: Scene) -> None:
    ids = scene.put(2)
    assert len(scene.claim(lease=0.05)) == 2
    scene.damage(ids[0])
    scene.get(ids[0])
    time.sleep(0.06)
    claimed = scene.claimed(10, 2 if scene.kind.of_claims else 1)
    if not scene.kind.of_claims:
        assert claimed == {ids[1]}
        assert is_failed(scene.get(ids[0]))
        scene.check()


def test_claims_beside_that_of_a_damaged_job_are_renewed(scene: Scene) -> None:
    ids = scene.put(2)
    claims = [ClaimRef(id=one.id, token=one.token or "") for one in scene.claim(lease=5.0)]
    scene.damage(ids[0])
    before = scene.get(ids[1]).lease_until
    assert scene.broker.renew(claims, 60.0)[1]
    after = scene.get(ids[1]).lease_until
    assert before is not None
    assert after is not None
    assert after > before
    assert scene.broker.annotate([Note(id=one.id, token=one.token, progress=0.5) for one in claims])[1]


def test_a_damaged_job_that_has_ended_is_deleted_when_it_expires(scene: Scene) -> None:
    ids = scene.put(2)
    records = scene.claim()
    outcome = Outcome(status=Status.SUCCESS, ttl=0.01)
    assert scene.broker.settle([Settlement(id=r.id, token=r.token or "", outcome=outcome) for r in records])
    scene.damage(ids[0])
    time.sleep(0.02)
    scene.broker.prune()
    assert scene.broker.get([ids[1]]) == [None]
    scene.broker.prune()
    if isinstance(scene.broker, RedisBroker):
        pattern = scene.broker._connection.key(f"*{ids[0]}")
        left = scene.broker._connection.use(lambda client: client.keys(pattern))
        assert [key for key in left if b":damaged:" not in key] == []
    scene.check()


def test_a_damaged_job_frees_its_slot_and_its_unique_key(scene: Scene) -> None:
    now = scene.broker.now()
    record = JobRecord(
        id=new_id(),
        path="some.Task",
        params={"n": 1},
        queue="q",
        queued_at=now,
        updated_at=now,
        search_keys={"user": 5},
    )
    scene.broker.enqueue([NewJob(record=record, unique=Unique(key="k", until="done"))])
    scene.damage(record.id)
    assert scene.claim() == []
    assert is_failed(scene.get(record.id))
    other = NewJob(record=replace(record, id=new_id()), unique=Unique(key="k", until="done"))
    assert scene.broker.enqueue([other])[0].created
    scene.check()


def test_a_check_names_damaged_jobs(scene: Scene) -> None:
    ids = scene.put(3)
    scene.damage(ids[1])
    if scene.kind.of_claims:
        scene.claim()
    [finding] = [one for one in consistency_findings(scene.broker) if one.subject == "damaged jobs"]
    assert finding.level == "warning"
    assert ids[1] in finding.message
    assert ids[0] not in finding.message
    scene.broker.remove([ids[1]])
    assert damaged_findings(scene.broker) == []


def test_a_check_with_repairs_names_damaged_jobs_that_have_ended(scene: Scene) -> None:
    ids = scene.put(2)
    outcome = Outcome(status=Status.SUCCESS, ttl=1e6, result=5)
    scene.broker.settle([Settlement(id=r.id, token=r.token or "", outcome=outcome) for r in scene.claim()])
    scene.damage(ids[0])
    assert damaged_findings(scene.broker) == []
    if scene.kind.of_claims:
        return
    [finding] = damaged_findings(scene.broker, reads_all=True)
    assert ids[0] in finding.message


@pytest.mark.campaign
@pytest.mark.parametrize(
    "command",
    [("SET", "x"), ("HDEL", "q"), ("HSET", "n", "many"), ("HSET", "v", "x"), ("HSET", "l", "x", "o", "1")],
    ids="-".join,
)
@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_damaged_entry_of_a_pair_is_made_anew_by_a_repair(
    tmp_path: Path, command: tuple[str, ...], is_claimed: bool
) -> None:
    if "redis+mongo" not in brokers.NAMES:
        pytest.skip("MRQ_TEST_BROKERS leaves the pair out")
    address = brokers.address_of("redis+mongo", tmp_path)
    with closing(Client(Config(broker=address.broker, store=address.store))) as client:
        scene = Scene("redis+mongo", client.broker, tmp_path, _MONGO["params"])
        assert isinstance(scene.broker, ComposedBroker)
        ids = scene.put(2)
        if is_claimed:
            assert len(scene.claim(lease=0.05)) == 2
            time.sleep(0.06)
        queue = cast(RedisQueue, scene.broker._queue)
        name, *values = command
        key = queue._connection.key(f"j:{ids[0]}")
        queue._connection.execute(name, key, *values)
        claimed = scene.claimed(10, 1)
        if claimed == {ids[1]}:
            list(repair_all(scene.broker))
            claimed |= scene.claimed(10, 1)
        assert claimed == set(ids)
        scene.check()
