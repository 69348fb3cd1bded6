"""What a task changes of signal handlers, and of the threads that need them."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

CHANGES = """
import asyncio
import os
import signal
import subprocess
import sys
import time

from mrq_core import task


@task
def handles(signum: int):
    signal.signal(signum, signal.SIG_IGN)
    time.sleep(0.01)


@task
def loops(signum: int):
    async def handles():
        asyncio.get_running_loop().add_signal_handler(signum, int)
        await asyncio.sleep(0.002)
    asyncio.run(handles())


@task
def codes():
    return [subprocess.run(["sh", "-c", "exit 3"]).returncode, os.waitstatus_to_exitcode(os.system("exit 3"))]


@task
def defaults(signum: int):
    signal.signal(signum, signal.SIG_DFL)
    time.sleep(0.01)


@task
def switches_slowly():
    sys.setswitchinterval(1000)


@task(timeout=0.5)
def switches_slowly_and_spins():
    sys.setswitchinterval(1000)
    while True:
        pass


@task
def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGTERM))
    time.sleep(0.01)


@task
def ignores_at_once():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


@task
def blocks_at_once():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))


@task
def handled(signum: int):
    return str(signal.getsignal(signum))


@task
def watches(signum: int):
    import gevent
    watcher = gevent.signal_handler(signum, lambda: None)
    time.sleep(0.01)


@task
def calls_c(signum: int):
    import ctypes
    ctypes.CDLL(None).signal(signum, 1)
    time.sleep(0.01)


@task(timeout=0.5)
def spins():
    while True:
        pass
"""


@pytest.fixture(autouse=True)
def changes(project: Project) -> None:
    project.write("changes.py", CHANGES)


@pytest.mark.parametrize("task", ["handles", "watches", "calls_c"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_after_a_task_has_replaced_its_handler(
    project: Project, signum: signal.Signals, task: str
) -> None:
    worker = project.worker()
    project.ended(project.queue(f"changes.{task}", {"signum": int(signum)}))
    worker.send(signum)
    assert worker.wait() == 0


def test_a_timeout_ends_code_that_keeps_the_processor_after_a_task_has_taken_its_signal(
    project: Project,
) -> None:
    project.queue("changes.handles", {"signum": int(signal.SIGALRM)})
    job = project.queue("changes.spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


@pytest.mark.parametrize("path", ["switches_slowly", "blocks_signals"])
def test_a_timeout_ends_code_that_keeps_the_processor_after_a_task_has_kept_threads_from_running(
    project: Project, path: str
) -> None:
    project.queue(f"changes.{path}")
    job = project.queue("changes.spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


@pytest.mark.parametrize("path", ["ignores_at_once", "blocks_at_once"])
def test_a_timeout_ends_code_that_keeps_the_processor_after_a_short_job_has_taken_its_signal(
    project: Project, path: str
) -> None:
    project.queue("changes.handled", {"signum": 1})  # imports
    for _ in range(3):
        project.queue(f"changes.{path}")
    job = project.queue("changes.spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


def test_a_timeout_ends_code_that_has_kept_threads_from_running(project: Project) -> None:
    job = project.queue("changes.switches_slowly_and_spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


@pytest.mark.parametrize("signum", [signal.SIGPIPE, signal.SIGXFSZ])
def test_signals_that_python_ignores_are_ignored_after_a_task_has_replaced_their_handlers(
    project: Project, signum: signal.Signals
) -> None:
    before = project.queue("changes.handled", {"signum": int(signum)})
    project.queue("changes.defaults", {"signum": int(signum)})
    after = project.queue("changes.handled", {"signum": int(signum)})
    project.work_off()
    assert project.ended(before).result == project.ended(after).result == "1"


@pytest.mark.parametrize("task", ["loops", "handles", "defaults"])
def test_the_log_file_is_opened_again_after_a_task_has_replaced_the_handler_of_its_signal(
    project: Project, task: str
) -> None:
    file, moved = project.path / "log", project.path / "log.1"
    worker = project.start("worker", "--log-file", str(file), "--max-latency", "0.05")
    project.queue(f"changes.{task}", {"signum": int(signal.SIGUSR1)})
    until(lambda: file.exists() and "signal.restored SIGUSR1" in file.read_text(), what="the handler")
    file.rename(moved)
    worker.send(signal.SIGUSR1)
    until(file.exists, what="the new file")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize("is_early", [False, True])
def test_programs_of_later_jobs_have_exit_codes_after_children_were_ignored(
    project: Project, is_early: bool
) -> None:
    if is_early:
        earlier = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            worker = project.start("worker", "--max-jobs", "1")
        finally:
            signal.signal(signal.SIGCHLD, earlier)
    else:
        ignoring = project.queue("changes.handles", {"signum": int(signal.SIGCHLD)})
        worker = project.worker("--max-jobs", "2")
        project.ended(ignoring)
        worker.until_output("signal.restored SIGCHLD")
    job = project.queue("changes.codes")
    assert project.ended(job).result == [3, 3]
    assert worker.wait() == 0


@pytest.mark.parametrize("seconds", [0, 0.01])
@pytest.mark.parametrize("greenlets", [1, 2])
def test_a_signal_writes_nothing_to_a_file_after_a_task_has_left_its_wakeup_descriptor(
    project: Project, greenlets: int, seconds: float
) -> None:
    """The C half of each signal handler writes a byte to that number, whatever was opened there since."""
    project.write(
        "wakeup.py",
        """
        import asyncio, os, signal, socket, time
        from mrq_core import task

        def handle(*_): pass

        @task
        def waits():
            while not os.path.exists("go"):
                time.sleep(0.01)

        @task
        def listens():
            async def main():
                heard = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, heard.set)
                for _ in range(200):
                    if os.path.exists("left"):
                        os.kill(os.getpid(), signal.SIGUSR2)
                    try:
                        return await asyncio.wait_for(heard.wait(), 0.05)
                    except asyncio.TimeoutError:
                        pass
            return asyncio.run(main())

        @task
        def leaves(seconds):
            a, b = socket.socketpair()
            a.setblocking(False)
            signal.set_wakeup_fd(a.fileno())
            number = a.fileno()
            time.sleep(seconds)
            a.close(), b.close()
            open("left", "w").close()
            return number

        @task
        def signals(number):
            try:
                os.fstat(number)
                return "taken"  # by the worker meanwhile
            except OSError:
                pass
            signal.signal(signal.SIGUSR1, handle)
            descriptor = os.open("file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, b"data")
            os.dup2(descriptor, number)
            os.lseek(descriptor, 0, os.SEEK_SET)
            for _ in range(3):
                signal.raise_signal(signal.SIGUSR1)
            with open("file") as file:
                found = file.read()
            os.close(number)
            return found
        """,
    )
    beside = [project.queue("wakeup.waits") for _ in range(greenlets - 1)]
    worker = project.worker("--greenlets", str(greenlets))
    found: list[object] = []
    while len(found) < 2:
        left = project.ended(project.queue("wakeup.leaves", {"seconds": seconds}))
        job = project.ended(project.queue("wakeup.signals", {"number": left.result}))
        assert (left.status, job.status) == (Status.SUCCESS, Status.SUCCESS), job.traceback
        if job.result != "taken":
            found.append(job.result)
    assert found == ["data", "data"]
    (project.path / "go").touch()
    for waiting in beside:
        assert project.ended(waiting).status == Status.SUCCESS
    if greenlets > 1:
        (project.path / "left").unlink()
        listening = project.queue("wakeup.listens")
        for _ in range(3):
            project.ended(project.queue("wakeup.waits"))
        (project.path / "left").touch()
        assert project.ended(listening).result is True, "a job may listen for its own signals"
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "a task had replaced the descriptor that signals write to" in worker.output


@pytest.mark.parametrize(
    "takes",
    [
        "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set)",
        "signal.signal(signal.SIGTERM, lambda *_: heard.set())",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    ],
    ids=["asyncio", "handler", "ignored", "default"],
)
def test_sigterm_stops_a_worker_whose_jobs_take_it(project: Project, takes: str) -> None:
    """Each job sets its handler as it starts: the worker hardly ever has its own."""
    project.write(
        "taking.py",
        f"""
        import asyncio, os, signal
        from mrq_core import task

        @task
        def takes(number):
            async def main():
                heard = asyncio.Event()
                {takes}
                if number == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                try:
                    await asyncio.wait_for(heard.wait(), 0.3)
                except asyncio.TimeoutError:
                    pass
                return heard.is_set()
            return asyncio.run(main())
        """,
    )
    jobs = [project.queue("taking.takes", {"number": number}) for number in range(20)]
    worker = project.worker("--greenlets", "1", "--stop-grace", "20")
    assert worker.wait() == 0
    records = [project.client.fetch(job) for job in jobs]
    assert {record.status for record in records[:4]} == {Status.SUCCESS}
    assert {record.status for record in records[6:]} == {Status.QUEUED}, "one more may have been claimed"
    assert records[3].result is ("heard" in takes), "the handler of the job is called, too"


def test_sigterm_stops_a_worker_whose_jobs_watch_for_it_by_gevent(project: Project) -> None:
    project.write(
        "watching.py",
        """
        import gevent, signal, time
        from mrq_core import task

        @task
        def watches():
            watcher = gevent.signal_handler(signal.SIGTERM, int)
            open("begun", "w").close()
            time.sleep(0.4)
            watcher.cancel()
        """,
    )
    jobs = [project.queue("watching.watches") for _ in range(60)]
    worker = project.worker("--greenlets", "1", "--stop-grace", "20")
    assert project.ended(jobs[2]).status == Status.SUCCESS
    (project.path / "begun").unlink()
    until((project.path / "begun").exists, what="a job that watches for the signal")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert project.client.fetch(jobs[-1]).status == Status.QUEUED


def test_what_the_handler_of_a_job_raises_does_not_reach_its_neighbour(project: Project) -> None:
    project.write(
        "raising.py",
        """
        import os, signal, sys, time
        from mrq_core import task

        @task
        def exits_on_sigterm():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
            open("set", "w").close()
            time.sleep(3)

        @task(at_most_once=True)
        def computes():
            while not os.path.exists("set"):
                time.sleep(0.01)
            time.sleep(1)  # longer than between two examinations
            os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                pass
            return "computed"
        """,
    )
    jobs = [project.queue("raising.exits_on_sigterm"), project.queue("raising.computes")]
    worker = project.worker("--greenlets", "2", "--stop-grace", "20")
    assert worker.wait() == 0
    records = [project.client.fetch(job) for job in jobs]
    assert [(record.status, record.result) for record in records] == [
        (Status.SUCCESS, None),
        (Status.SUCCESS, "computed"),
    ]


WAITS = """
import os
import signal
import time

from mrq_core import task


@task
def waits(signum: int):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    os.kill(os.getpid(), signum)
    return signal.sigtimedwait([signum], 10).si_signo


@task(isolate=True)
def waits_alone(signum: int):
    return waits(signum)


@task
def waits_long(signum: int):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    time.sleep(1.5)
    os.kill(os.getpid(), signum)
    return signal.sigtimedwait([signum], 10).si_signo


@task
def leaves(signum: int):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    os.kill(os.getpid(), signum)


@task
def is_blocked(signum: int):
    return signum in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def test_a_task_gets_the_signal_that_it_has_blocked_to_wait_for_it(project: Project) -> None:
    """The system gives a signal to any thread that does not block it, and its default ends the process."""
    project.write("waiting.py", WAITS)
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 1, signal.SIGIO]
    jobs = [
        (project.queue(f"waiting.{name}", {"signum": int(number)}), int(number))
        for name in ("waits", "waits_alone")
        for number in numbers
    ]
    worker = project.work_off()
    assert [project.ended(job_id).result for job_id, _ in jobs] == [number for _, number in jobs], (
        worker.output
    )


@pytest.mark.parametrize("greenlets", [1, 2])
def test_a_signal_stays_blocked_while_the_job_runs_that_waits_for_it(
    project: Project, greenlets: int
) -> None:
    project.write("waiting.py", WAITS)
    number = int(signal.SIGUSR2)
    long = project.queue("waiting.waits_long", {"signum": number})
    beside = project.queue("waiting.is_blocked", {"signum": number})
    left = project.queue("waiting.leaves", {"signum": number})
    project.work_off("--greenlets", str(greenlets))
    assert project.ended(long).result == number
    assert {project.ended(one).status for one in (beside, left)} == {Status.SUCCESS}
    after = project.queue("waiting.is_blocked", {"signum": number})
    project.queue("waiting.leaves", {"signum": number})
    last = project.queue("waiting.is_blocked", {"signum": number})
    project.work_off("--greenlets", "1")
    assert [project.ended(one).result for one in (after, last)] == [False, False]


HANDLES = """
import os
import signal
import time

import gevent
from mrq_core import task


def raises(*arguments):
    raise ValueError("signal")


def leaves(*arguments):
    raise SystemExit(3)


def waits(*arguments):
    time.sleep(0.01)


def kills(*arguments):
    gevent.getcurrent().kill(block=False)


def interrupts(*arguments):
    gevent.Timeout.start_new(0.0001)


@task
def handles(name: str):
    signal.signal(signal.SIGUSR2, globals()[name])


@task
def gets():
    signal.signal(signal.SIGUSR2, raises)
    assert signal.getsignal(signal.SIGUSR2) is raises
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(10)
    except ValueError as error:
        return str(error)


@task(at_most_once=True)
def once(number: int):
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.001)
"""


@pytest.mark.parametrize("name", ["raises", "leaves", "waits", "kills", "interrupts"])
def test_a_handler_of_a_task_is_not_called_amid_the_worker_or_another_job(
    project: Project, name: str
) -> None:
    project.write("handling.py", HANDLES)
    worker = project.worker("--greenlets", "5")
    project.ended(project.queue("handling.handles", {"name": name}))
    jobs = project.client.queue_jobs("handling.once", [{"number": number} for number in range(300)])
    for job_id in jobs:
        while project.client.fetch(job_id).status in (Status.QUEUED, Status.STARTED):
            assert worker.popen.poll() is None, worker.output
            worker.send(signal.SIGUSR2)
    assert {project.ended(job_id).status for job_id in jobs} == {Status.SUCCESS}, worker.output
    assert sorted(map(int, project.ledger())) == list(range(300))
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_handler_that_raises_does_so_in_its_job(project: Project) -> None:
    project.write("handling.py", HANDLES)
    job_id = project.queue("handling.gets")
    worker = project.work_off()
    assert project.ended(job_id).result == "signal", worker.output


CALLS = """
import signal
import time

from mrq_core import Job, queue_job, task

raised = []


def raises(*arguments):
    raised.append(1)
    raise ValueError("signal")


@task(timeout=60)
def calls():
    end = time.monotonic() + 4
    signal.signal(signal.SIGPROF, raises)
    signal.setitimer(signal.ITIMER_PROF, 0.004, 0.004)
    while time.monotonic() < end:
        try:
            for _ in range(3):
                Job(queue_job("calling.noop")).fetch()
        except ValueError:
            pass


@task(timeout=25)
def calls_too(number: int):
    for count in range(100):
        job_id = queue_job("calling.noop", {"number": 100 * number + count})
        assert Job(job_id).fetch().params == {"number": 100 * number + count}
        time.sleep(0.02)
    return len(raised)


@task
def noop(number: int = 0):
    return number
"""


def test_what_a_handler_raises_amid_a_call_to_the_broker_harms_no_call_of_another_job(
    project: Project,
) -> None:
    project.write("calling.py", CALLS)
    others = [project.queue("calling.calls_too", {"number": number}) for number in range(3)]
    project.queue("calling.calls")
    worker = project.work_off("--greenlets", "4")
    ended = [project.ended(other) for other in others]
    assert {other.status for other in ended} == {Status.SUCCESS}, worker.output
    assert any(other.result for other in ended)  # the handler was called
