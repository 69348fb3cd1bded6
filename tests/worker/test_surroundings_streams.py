"""What a task does to the standard streams and their descriptors."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

BREAKS = [
    "close()",
    "detach()",
    "buffer.close()",
    "buffer.detach()",
    "reconfigure(encoding='ascii'); time.sleep(0.01)",
]


@pytest.mark.parametrize("greenlets", [1, 3])
def test_later_jobs_print_after_a_task_has_broken_the_standard_streams(
    project: Project, greenlets: int
) -> None:
    functions = [
        f"@task\ndef breaks_{number}():\n    sys.stdout.{call}; sys.stderr.{call}\n"
        for number, call in enumerate(BREAKS)
    ]
    project.write(
        "streams.py",
        "import sys, time\nfrom mrq_core import task\n\n"
        "@task\ndef prints(word):\n"
        "    print(word + '\\u20ac', flush=True)\n    print(word, file=sys.stderr)\n\n"
        "@task\ndef waits():\n    time.sleep(60)\n\n" + "\n\n".join(functions),
    )
    beside = [project.queue("streams.waits") for _ in range(greenlets - 1)]
    worker = project.worker("--greenlets", str(greenlets))
    calls = BREAKS[:-1] if beside else BREAKS  # another job may need the encoding
    for number in range(len(calls)):
        broken = project.ended(project.queue(f"streams.breaks_{number}"))
        job = project.ended(project.queue("streams.prints", {"word": f"word{number}"}))
        assert (broken.status, job.status) == (Status.SUCCESS, Status.SUCCESS), job.traceback
        until(lambda: worker.output.count(f"word{number}") == 2, what="what the job has printed")  # noqa: B023
    worker.send(signal.SIGTERM)
    worker.wait()
    assert "worker.stopped" in worker.output


def test_later_jobs_start_threads_after_a_task_has_deleted_the_standard_streams(project: Project) -> None:
    """While another job runs, which may need what stands in their place: here nothing does."""
    project.write(
        "deletes.py",
        """
        import sys, threading, time
        from mrq_core import task

        @task
        def waits():
            time.sleep(60)

        @task
        def deletes():
            del sys.stdout, sys.stderr

        @task
        def starts():
            thread = threading.Thread(target=print, args=("from a thread",))
            thread.start()
            thread.join()
        """,
    )
    waiting = project.queue("deletes.waits")
    worker = project.worker("--greenlets", "2")
    deleted = project.ended(project.queue("deletes.deletes"))
    started = project.ended(project.queue("deletes.starts"))
    assert (deleted.status, started.status) == (Status.SUCCESS, Status.SUCCESS), started.traceback
    until(lambda: "from a thread" in worker.output, what="what the thread prints")
    assert project.client.fetch(waiting).status is Status.STARTED
    worker.send(signal.SIGTERM)
    worker.wait()


@pytest.mark.parametrize(
    "buffer", ["{0}.buffer", "io.BufferedWriter(getattr({0}.buffer, 'raw', {0}.buffer))"]
)
def test_later_jobs_print_after_a_task_has_wrapped_the_standard_streams(
    project: Project, buffer: str
) -> None:
    """As scripts do to write UTF-8. Python closes the buffer with the last reference to such a wrapper."""
    project.write(
        "wraps.py",
        f"""
        import io, sys, time
        from mrq_core import task

        @task
        def wraps():
            sys.stdout = io.TextIOWrapper({buffer.format("sys.stdout")}, encoding="utf-8")
            sys.stderr = io.TextIOWrapper({buffer.format("sys.stderr")}, encoding="utf-8")
            print("by the wrapper")
            time.sleep(0.01)

        @task
        def prints(word):
            print(word, flush=True)
            print(word, file=sys.stderr, flush=True)
        """,
    )
    jobs = []
    for number in range(3):
        jobs += [project.queue("wraps.wraps"), project.queue("wraps.prints", {"word": f"word{number}"})]
    worker = project.work_off()
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * len(jobs)
    assert [worker.output.count(f"word{number}") for number in range(3)] == [2, 2, 2]
    assert worker.output.count("by the wrapper") == 3


@pytest.mark.parametrize("greenlets", [1, 3])
@pytest.mark.parametrize(
    "opened",
    [
        "os.fdopen({0}, 'w', 1)",
        "io.TextIOWrapper(open({0}, 'wb', 0), write_through=True)",
        "codecs.getwriter('utf-8')(os.fdopen({0}, 'wb'))",
        "Unbuffered(os.fdopen({0}, 'w'))",
    ],
    ids=["fdopen", "unbuffered", "codecs", "own class"],
)
def test_jobs_print_after_another_has_opened_a_standard_descriptor_as_its_stream(
    project: Project, opened: str, greenlets: int
) -> None:
    """Such a file closes the descriptor when it is collected, and the next file would get the number."""
    project.write(
        "opening.py",
        f"""
        import codecs, io, os, sys, time
        from mrq_core import task

        class Unbuffered:
            def __init__(self, stream):
                self.stream = stream

            def write(self, text):
                self.stream.write(text)
                self.stream.flush()

            def flush(self):
                self.stream.flush()

        sys.stdout = {opened.format("sys.stdout.fileno()")}

        @task
        def opens(word):
            sys.stdout = {opened.format(1)}
            sys.stderr = {opened.format(2)}
            print(word, flush=True)
            time.sleep(0.05)
            print(word, file=sys.stderr, flush=True)

        @task
        def saves(word):
            with open(word, "w") as file:
                print(word, flush=True)
                print(word, file=sys.stderr, flush=True)
                file.write("data")
                file.flush()
                os.write(1, b"by number " + word.encode() + b"\\n")
            return file.name
        """,
    )
    jobs = []
    for number in range(3):
        jobs += [project.queue("opening.opens", {"word": f"opened{number}"}) for _ in range(2)]
        jobs += [project.queue("opening.saves", {"word": f"saved{number}"})]
    worker = project.work_off("--greenlets", str(greenlets))
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * len(jobs)
    assert [worker.output.count(f"opened{number}") for number in range(3)] == [4, 4, 4]
    assert [worker.output.count(f"saved{number}") for number in range(3)] == [3, 3, 3]
    assert {(project.path / f"saved{number}").read_text() for number in range(3)} == {"data"}


def test_jobs_print_after_others_have_left_a_closed_stream_as_the_standard_one(project: Project) -> None:
    """Two overlapping `redirect_stdout` leave the stream of the first one, which is closed."""
    project.write(
        "capturing.py",
        """
        import contextlib, io, os, time
        from mrq_core import task
        from tasks import note

        def wait_for(name):
            while name not in os.listdir("."):
                time.sleep(0.01)

        @task
        def captures(go):
            with io.StringIO() as out, contextlib.redirect_stdout(out):
                note(go)
                wait_for(go)
                return out.getvalue()

        @task
        def waits():
            wait_for("never")

        @task
        def prints():
            print("printed", flush=True)
    """,
    )
    project.queue("capturing.waits")
    worker = project.worker("--greenlets", "4")
    first = project.queue("capturing.captures", {"go": "one"})
    until(lambda: project.ledger() == ["one"], what="the first stream")
    second = project.queue("capturing.captures", {"go": "two"})
    until(lambda: project.ledger() == ["one", "two"], what="the second stream")
    for name, job in (("one", first), ("two", second)):
        project.write(name, "")
        assert project.ended(job).status == Status.SUCCESS
    assert project.ended(project.queue("capturing.prints")).status == Status.SUCCESS
    until(lambda: "printed" in worker.output, what="what the job prints")


CLOSES = """
import os
import socket

from mrq_core import log, task
from tasks import note

taken = []


@task
def closes(connects: bool):
    os.closerange(0, 3)
    if connects:
        taken.extend(socket.socketpair() + socket.socketpair())
        note([one.fileno() for one in taken][:3] == [0, 1, 2])


@task
def talks(word: str):
    log.info("log of %s", word)
    print("print of", word, flush=True)
"""


def test_lines_of_neighbours_do_not_fill_the_pipe_of_a_task_that_captures_standard_error(
    project: Project,
) -> None:
    project.write(
        "capturing.py",
        """
        import os
        import time
        from mrq_core import log, task
        from tasks import note

        @task
        def captures():
            source, sink = os.pipe()
            kept = os.dup(2)
            os.dup2(sink, 2)
            os.close(sink)
            note("captures")
            os.write(2, b"of a library")
            while not os.path.exists("go"):
                time.sleep(0.01)
            os.dup2(kept, 2)
            os.close(kept)
            return os.read(source, 1 << 20).decode()

        @task
        def talks():
            for number in range(1000):
                log.info("line %d %s", number, "x" * 300)
    """,
    )
    job = project.queue("capturing.captures")
    worker = project.worker("--greenlets", "2")
    until(project.ledger, what="the pipe")
    assert project.ended(project.queue("capturing.talks")).status == Status.SUCCESS
    assert "line 999" in worker.output
    project.write("go", "")
    assert project.ended(job).result == "of a library"
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize("connects", [True, False])
def test_a_task_that_closes_the_standard_descriptors_takes_no_lines_of_the_worker(
    project: Project, connects: bool
) -> None:
    project.write("closes.py", CLOSES)
    worker = project.worker()
    # Another thread of the worker may take a descriptor before the sockets do.
    for word in ("one", "two", "three", "four", "five"):
        project.ended(project.queue("closes.closes", {"connects": connects}))
        job = project.ended(project.queue("closes.talks", {"word": word}))
        assert (job.status, job.claims) == ("success", 1)
        worker.until_output(f"log of {word}")
        worker.until_output(f"print of {word}")
        if word != "one" and ("True" in project.ledger()) == connects:
            break
    assert ("True" in project.ledger()) == connects
    assert all(f"descriptor.restored number={number}" in worker.output for number in (1, 2))


def test_programs_of_later_jobs_have_standard_output_after_a_task_has_kept_it_from_them(
    project: Project,
) -> None:
    project.write(
        "keeping.py",
        """
        import os, subprocess
        from mrq_core import task

        @task
        def keeps():
            for number in (0, 1, 2):
                os.set_inheritable(number, False)

        @task
        def echoes(word):
            subprocess.run(["sh", "-c", f"echo {word}; echo {word} >&2"], check=True)
        """,
    )
    jobs = []
    for number in range(2):
        jobs += [project.queue("keeping.keeps"), project.queue("keeping.echoes", {"word": f"word{number}"})]
    worker = project.work_off("--greenlets", "1")
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 4
    assert [worker.output.count(f"word{number}") for number in range(2)] == [2, 2]
