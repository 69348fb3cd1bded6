"""Several processes on one file: nobody's job is taken twice, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.embedded.server import descriptors
from mrq_core.embedded.server.files import Identity, identity
from mrq_core.embedded.server.pool import Pool
from tests.embedded.kit import claim, job, open_broker, succeed

ROOT = Path(__file__).parents[2]

CLAIM_ALL = """
import sys
from contextlib import closing
from tests.embedded.kit import claim, open_broker, succeed
with closing(open_broker(sys.argv[1])) as broker:
    print("ready", flush=True)
    sys.stdin.readline()
    while records := claim(broker, limit=7).records:
        assert all(broker.settle([succeed(record) for record in records]))
        for record in records:
            print(record.id, flush=True)
"""

ENQUEUE_FOR_EVER = """
import sys
from contextlib import closing
from tests.embedded.kit import job, open_broker
with closing(open_broker(sys.argv[1])) as broker:
    while True:
        answers = broker.enqueue([job() for _ in range(3)])
        print(" ".join(answer.id for answer in answers), flush=True)
"""

PREPARE = """
import sys
from contextlib import closing
from tests.embedded.kit import open_broker
with closing(open_broker(sys.argv[1])) as broker:
    sys.stdin.readline()
    broker.prepare()
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_claim_at_once_never_share_a_job(tmp_path: Path) -> None:
    path = tmp_path / "mrq.sqlite3"
    with closing(open_broker(path)) as broker:
        ids = [answer.id for answer in broker.enqueue([job() for _ in range(600)])]
        workers = [start(CLAIM_ALL, path) for _ in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        outputs = go(workers)
        taken = [output.split() for output in outputs]
        assert sorted(taken[0] + taken[1]) == sorted(ids)
        assert broker.totals().by_status() == {Status.SUCCESS: 600}
        assert {record.claims for record in broker.find(JobFilter(), limit=600).records if record} == {1}


def test_processes_may_prepare_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mrq.sqlite3"
    workers = [start(PREPARE, path) for _ in range(4)]
    go(workers)
    assert [worker.returncode for worker in workers] == [0, 0, 0, 0]
    with closing(open_broker(path)) as broker:
        assert broker.enqueue([job()])[0].created


def test_an_acknowledged_enqueue_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "mrq.sqlite3"
    process = start(ENQUEUE_FOR_EVER, path)
    assert process.stdout is not None
    acknowledged: list[str] = []
    for _ in range(50):
        acknowledged += process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    acknowledged += "".join(line for line in rest.splitlines(keepends=True) if line.endswith("\n")).split()
    with closing(open_broker(path)) as broker:
        found = [
            record
            for start in range(0, len(acknowledged), 1000)
            for record in broker.get(acknowledged[start : start + 1000])
        ]
        assert None not in found
        assert broker.totals().by_status()[Status.QUEUED] % 3 == 0
        [integrity] = [finding for finding in broker.check() if finding.subject == "integrity"]
        assert integrity.level == "ok"


def test_a_broker_goes_on_working_in_a_forked_child_and_in_its_parent(tmp_path: Path) -> None:
    with closing(open_broker(tmp_path / "mrq.sqlite3")) as broker:
        [first] = broker.enqueue([job()])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                [record] = claim(broker).records
                code = 0 if broker.settle([succeed(record)]) == [True] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        [settled] = broker.get([first.id])
        assert settled is not None
        assert settled.status is Status.SUCCESS
        assert broker.enqueue([job()])[0].created


def test_threads_wait_for_the_lock_instead_of_failing(tmp_path: Path) -> None:
    with closing(open_broker(tmp_path / "mrq.sqlite3")) as broker:
        broker.prepare()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(20):
                    broker.enqueue([job()])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert broker.totals().by_status() == {Status.QUEUED: 160}


def test_another_process_wakes_a_waiter(tmp_path: Path) -> None:
    path = tmp_path / "mrq.sqlite3"
    with closing(open_broker(path)) as broker, closing(open_broker(path)) as other:
        broker.prepare()
        woken: list[bool] = []
        waiter = threading.Thread(target=lambda: woken.append(broker.wait([Wanted(name="q")], 30.0)))
        waiter.start()
        other.enqueue([job()])
        waiter.join(10.0)
        assert woken == [True]


def go(workers: list[subprocess.Popen[str]]) -> list[str]:
    """Lets processes that wait for a line go on together; what they print, once they have ended."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return [worker.communicate(timeout=60)[0] for worker in workers]


FORK_AMID_TRANSACTIONS = """
import faulthandler, os, sys, threading, time
from tests.embedded.kit import job, open_broker

broker = open_broker(sys.argv[1])
broker.enqueue([job()])

def enqueue():
    while True:
        broker.enqueue([job()])
        time.sleep(0.001)

for _ in range(2):
    threading.Thread(target=enqueue, daemon=True).start()
for _ in range(15):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(30, exit=True)
        broker.enqueue([job()])
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        os._exit(1)
os._exit(0)
"""


def test_a_child_that_is_forked_amid_transactions_of_other_threads_uses_the_file_at_once(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK_AMID_TRANSACTIONS, str(tmp_path / "jobs.sqlite3")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


DAEMON = """
import os, sys
from tests.embedded.kit import job, open_broker
way = sys.argv[2]
broker = open_broker(sys.argv[1])
broker.enqueue([job()])
child = os.fork()
if not child:
    if way == "after a call":
        broker.counts(["q"])
    os.closerange(3, 256)
    if way == "another broker":
        broker = open_broker(sys.argv[1])
    own = [open(f"{sys.argv[1]}.own{number}", "w+b") for number in range(8 if way == "taken" else 0)]
    for _ in range(3):
        try:
            broker.enqueue([job()])
        except Exception as error:
            print(type(error).__name__, error, flush=True)
    os._exit(sum(os.fstat(file.fileno()).st_size for file in own) != 0)
assert os.waitpid(child, 0)[1] == 0
broker.enqueue([job()])
if not os.fork():
    broker.enqueue([job()])
    os._exit(0)
os.wait()
print(broker.totals().by_status(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["taken", "free", "after a call", "another broker"])
def test_a_child_that_has_closed_its_descriptors_is_refused_and_writes_into_no_other_file(
    way: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, str(tmp_path / "jobs"), way],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *refused, totals = done.stdout.splitlines()
    assert len(refused) == 3
    assert all("BrokerLost" in one and "has closed descriptors of the database" in one for one in refused)
    assert "QUEUED: 'queued'>: 3" in totals


CUT_OFF = """
import os, sys
from tests.embedded.kit import job, open_broker
path, way = sys.argv[1:]
broker, other = open_broker(path), open_broker(path)
broker.enqueue([job()])
other.counts(["q"])
if way == "one":
    links = {number: f"/proc/self/fd/{number}" for number in range(3, 50)}
    os.close(min(number for number, link in links.items() if os.path.realpath(link) == f"{path}-wal"))
else:
    os.closerange(3, 256)
if way == "child" and os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
own = [os.open(f"{path}.own{number}", os.O_RDWR | os.O_CREAT) for number in range(20)]
for broker in () if way in ("exit", "child") else (broker, other, open_broker(path), broker):
    try:
        broker.enqueue([job()])
    except Exception as error:
        print(type(error).__name__, error, flush=True)
if way == "garbage":
    del broker, other
for file in own:
    os.write(file, b"text" * 100_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["all", "one", "exit", "garbage", "child"])
def test_a_process_whose_descriptors_other_files_have_got_is_refused_and_writes_into_none(
    way: str, tmp_path: Path
) -> None:
    path = tmp_path / "jobs"
    with closing(open_broker(path)) as broker:
        broker.prepare()
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, str(path), way],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    refused = done.stdout.splitlines()
    assert len(refused) == (0 if way in ("exit", "child") else 4)
    assert all(line.startswith(f"BrokerLost {path} cannot be used any more") for line in refused)
    assert {file.read_bytes() for file in tmp_path.glob("*.own*")} == {b"text" * 100_000}
    with closing(open_broker(path)) as broker:
        assert broker.enqueue([job()])[0].created
        assert broker.totals().by_status() == {Status.QUEUED: 2}


def test_a_connection_that_another_thread_closes_while_it_is_examined_has_not_lost_its_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other files get its numbers at once. A process may open and close connections all the time."""
    path = tmp_path / "jobs"
    files: list[int] = []
    is_closed: list[bool] = []

    def close_first(file: str | int) -> Identity:
        if isinstance(file, int) and not is_closed:
            is_closed.append(True)
            other.close()
            files.extend(os.open(tmp_path, os.O_RDONLY) for _ in range(20))
        return identity(file)

    with closing(open_broker(path)) as broker, closing(open_broker(path)) as other:
        other.enqueue([job()])
        other.counts(["q"])
        monkeypatch.setattr(descriptors, "identity", close_first)
        pool = Pool(str(path))
        pool.refuse_if_cut_off()
        monkeypatch.undo()
        assert len(files) == 20
        assert broker.counts(["q"])[0].waiting == 1
    for number in files:
        os.close(number)


def test_connections_may_end_while_a_process_leaves_those_that_are_not_its_own() -> None:
    class Ending(descriptors.Descriptors):
        def may_be_closed(self) -> bool:
            connections.clear()
            return True

    connections = {
        sqlite3.connect(":memory:", check_same_thread=False): Ending((None, None, None), {}) for _ in range(3)
    }
    for connection in connections:
        connection.close()
    descriptors.leave_where_not_own(connections)  # type: ignore[arg-type]
