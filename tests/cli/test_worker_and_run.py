"""`mrq worker` and `mrq run`."""

from __future__ import annotations

import re
import signal

import pytest

from mrq_core.cli.errors import UsageError
from mrq_core.cli.run_command import params_from
from mrq_core.contract.codec import storable_params
from mrq_core.errors import InvalidValue
from tests.cli.conftest import Shell, in_another_process
from tests.operations.test_filters import UNSTORABLE
from tests.support import Project


def test_a_burst_ends_when_the_jobs_are_done(mrq: Shell, project: Project) -> None:
    job_id = project.queue("tasks.Add", {"a": 1, "b": 2})
    said = mrq("worker", "--burst")
    assert "worker.started" in said.err
    assert project.client.fetch(job_id).result == 3


def test_burst_goes_together_with_the_configured_strategy(mrq: Shell, project: Project) -> None:
    first, second = project.queue("tasks.greet", {"name": "A"}, queue="mail"), project.queue("tasks.fail")
    mrq("worker", "mail", "default", "--burst", "--dequeue-strategy", "parallel")
    assert project.client.fetch(first).status == "success"
    assert project.client.fetch(second).status == "failed"


def test_queues_are_arguments_and_may_be_joined_by_commas(mrq: Shell) -> None:
    assert "queues=high, low, mail/ " in mrq("worker", "high,low", "mail/", "--burst").err


def test_naming_queues_twice_is_an_error(mrq: Shell) -> None:
    assert "twice" in mrq("worker", "high", "--queues", "low", code=2).err


def test_a_worker_exits_with_0_whatever_became_of_its_jobs(mrq: Shell, project: Project) -> None:
    project.queue("tasks.fail")
    said = mrq("worker", "--burst", "--quiet")
    assert "job.failed" in said.err
    assert "worker.started" not in said.err


def test_the_log_names_the_type_and_the_message_of_an_exception_with_notes(
    mrq: Shell, project: Project
) -> None:
    project.write(
        "noted.py",
        """
        from mrq_core import task

        @task
        def noted():
            error = ValueError("the message\\nits second line")
            error.add_note("the note")
            raise error
        """,
    )
    job_id = project.queue("noted.noted")
    said = mrq("worker", "--burst", "--quiet")
    assert f" job.failed id={job_id} path=noted.noted " in said.err.splitlines()[0]
    assert said.err.splitlines()[0].endswith(" error=ValueError: the message")


def test_options_of_tasks_are_checked_before_work_begins(mrq: Shell, project: Project) -> None:
    project.write("mrq-config.py", "TASKS = {'tasks.Add': {'timout': 3}}\n")
    for command in (["worker", "--burst"], ["run", "tasks.fail"]):
        said = mrq(*command, code=2)
        assert "did you mean 'timeout'" in said.err
        assert "worker.started" not in said.err


@pytest.mark.parametrize("params", [['{"a": 1, "b": 2}'], ["--", '{"a": -1, "b": 4}']])
def test_run_prints_the_result_alone_on_standard_output(mrq: Shell, params: list[str]) -> None:
    said = mrq("run", "tasks.Add", *params)
    assert said.out == "3\n"
    assert "printed by the task" in said.err
    assert "adding" in said.err


LOUD = """
import os
import subprocess
import sys
import atexit
import threading

from mrq_core import task

print("printed by the import")
os.system("echo echoed by the import")


@task
def loud(forks: bool = False):
    print("printed")
    sys.__stdout__.write("written")
    os.write(1, b"raw")
    os.system("echo system")
    subprocess.run(["echo", "subprocess"], check=True)
    subprocess.run(["sh", "-c", "echo by itself >&1"], stdout=sys.stdout, check=True)
    atexit.register(os.system, "echo late")
    os.close(os.dup(1))
    return {"a": 1}
"""


def test_only_the_result_of_a_run_goes_to_standard_output(mrq: Shell, project: Project) -> None:
    project.write("loud.py", LOUD)
    project.write("mrq-config.py", "print('printed by the configuration')\n")
    said = mrq("run", "loud.loud")
    assert said.out == '{\n  "a": 1\n}\n'
    words = ["printed", "written", "raw", "system", "subprocess", "by itself", "late", "by the configuration"]
    assert [word for word in words if word not in said.err] == []
    said = mrq("run", "loud.loud", "--async")
    assert project.client.fetch(said.out.removesuffix("\n")).path == "loud.loud"
    assert "echoed by the import" in said.err


def test_a_child_that_a_task_forks_has_no_result(mrq: Shell, project: Project) -> None:
    project.write(
        "forks.py",
        """
        import os
        from mrq_core import task

        class Unreadable(Exception):
            def __getattribute__(self, name):
                raise SystemExit(4)

        @task
        def fork(fails: str):
            child = os.fork()
            if child == 0:
                if fails == "yes":
                    raise ValueError("in the child")
                if fails == "unreadably":
                    raise Unreadable
                if fails == "exits":
                    raise SystemExit(3)
                return "child"
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    """,
    )
    assert mrq("run", "forks.fork", "fails", "no").out == "0\n"
    exited = mrq("run", "forks.fork", "fails", "exits")
    assert (exited.out, "Traceback" in exited.err) == ("3\n", False)
    said = mrq("run", "forks.fork", "fails", "yes")
    assert (said.out, said.code) == ("1\n", 0)
    assert said.err.count("ValueError: in the child") == 1
    unreadable = mrq("run", "forks.fork", "fails", "unreadably")
    assert (unreadable.out, unreadable.code) == ("1\n", 0)
    assert "Unreadable" in unreadable.err


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("1 / 0", 1), ("os._exit(4)", 4), ("None", 0)])
@pytest.mark.parametrize(
    "place",
    [
        "gevent.spawn(fork).join()",
        "mrq_core.spawn(fork).join()",
        "mrq_core.subpool_map(2, lambda _: fork(), [1])",
        "gevent.get_hub().threadpool.apply(fork)",
        "mrq_core.log.warning('fork')",
    ],
    ids=["greenlet", "greenlet of mrq", "subpool", "native thread", "log handler"],
)
def test_a_child_that_another_greenlet_forks_ends_as_in_a_worker(
    mrq: Shell, project: Project, place: str, end: str, code: int
) -> None:
    project.write(
        "besides.py",
        f"""
        import logging
        import os
        import sys
        import gevent
        import mrq_core

        codes = []

        class Forking(logging.Handler):
            def emit(self, record):
                fork()

        mrq_core.log.addHandler(Forking())

        def fork():
            child = os.fork()
            if child == 0:
                {end}
            else:
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        @mrq_core.task
        def forks():
            {place}
            return codes
        """,
    )
    said = mrq("run", "besides.forks")
    assert said.out == f"[\n  {code}\n]\n", said.err


def test_a_run_waits_for_a_child_that_dies_before_its_fork_returns(mrq: Shell, project: Project) -> None:
    project.write(
        "brief.py",
        """
        import os
        import time
        from gevent.monkey import get_original
        from mrq_core import task

        os.register_at_fork(after_in_parent=lambda: get_original("time", "sleep")(0.5))

        @task
        def brief():
            child = os.fork()
            if child == 0:
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    """,
    )
    assert mrq("run", "brief.brief").out == "7\n"


TALKATIVE = """
import os
import subprocess
import sys

from mrq_core import hookimpl


def talk(where):
    print("printed by", where)
    sys.__stdout__.write(f"written by {where}\\n")
    os.write(1, f"raw by {where}\\n".encode())
    subprocess.run(["echo", "echoed by", where], check=True)


talk("import")


@hookimpl
def mrq_decode(value):
    talk("decode")
    return value
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("jobs", "list"),
        ("jobs", "show", "ID"),
        ("jobs", "logs", "ID"),
        ("queues", "list"),
        ("workers", "list"),
        ("check",),
        ("plugins",),
    ],
)
def test_what_plugins_and_the_config_file_print_does_not_spoil_json(
    project: Project, arguments: tuple[str, ...]
) -> None:
    job_id = project.queue("tasks.Add", {"a": 1, "b": 2})
    project.write("talkative.py", TALKATIVE)
    project.write("mrq-config.py", "import talkative\nPLUGINS = ['talkative']\ntalkative.talk('config')\n")
    words = [job_id if word == "ID" else word for word in arguments]
    said = in_another_process((*words, "--json"), project.path, project.env)
    assert said.code in (0, 1), said
    assert said.json is not None
    for how in ("printed", "written", "raw", "echoed"):
        assert f"{how} by import" in said.err
        assert f"{how} by config" in said.err
    assert ("raw by decode" in said.err) == (arguments[:2] in (("jobs", "list"), ("jobs", "show")))


@pytest.mark.parametrize(
    "arguments", [("jobs", "cancel", "--path", "tasks.Add"), ("queues", "pause", "q"), ("jobs", "list")]
)
def test_what_the_config_file_prints_is_not_in_the_output_of_a_command(
    mrq: Shell, project: Project, arguments: tuple[str, ...]
) -> None:
    project.queue("tasks.Add", {"a": 1, "b": 2})
    project.write("mrq-config.py", "print('printed by the configuration')\n")
    for call in (mrq, lambda *words: in_another_process(words, project.path, project.env)):
        said = call(*arguments)
        assert "printed by the configuration" in said.err
        assert said.out
        assert "printed by" not in said.out


@pytest.mark.parametrize("timer", ["ITIMER_REAL", "ITIMER_PROF", "dump"])
def test_a_timer_that_a_task_leaves_does_not_end_the_command(
    mrq: Shell, project: Project, timer: str
) -> None:
    project.write(
        "leaving.py",
        """
        import faulthandler, signal
        from mrq_core import task

        @task
        def leaves(timer: str):
            if timer == "dump":
                faulthandler.dump_traceback_later(0.03, exit=True)
            else:
                signal.setitimer(getattr(signal, timer), 0.01)
            return 1
        """,
    )
    for _ in range(3):
        done = mrq("run", "leaving.leaves", "timer", timer)
        assert (done.code, done.out) == (0, "1\n"), done.err


def test_a_task_that_closes_standard_output_does_not_lose_its_result(mrq: Shell, project: Project) -> None:
    project.write(
        "closing.py",
        """
        import os, sys
        from mrq_core import task

        @task
        def stream():
            sys.stdout.close()
            return 1

        @task
        def descriptor():
            os.close(1)
            return 2

        @task
        def nothing():
            sys.stdout = None
            return 3

        @task
        def all():
            sys.stdout.close()
            sys.stderr.close()
            raise ValueError("told all the same")
        """,
    )
    assert "ValueError: told all the same" in mrq("run", "closing.all", code=1).err
    assert mrq("run", "closing.descriptor").out == "2\n"
    assert mrq("run", "closing.stream").out == "1\n"
    assert mrq("run", "closing.nothing").out == "3\n"


def test_run_takes_keys_and_values_as_strings(mrq: Shell) -> None:
    assert mrq("run", "tasks.Add", "a", "1", "b", "2").json == "12"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["a"], "a key without a value"),
        (["a", "1", "b"], "'b' has no value"),
        (["a", "1", "a", "2"], "'a' twice"),
        (['{"a": '], "not valid JSON"),
        (["[1]"], "no object"),
        (["3"], "no object"),
        (['{"a": 1}', "b"], "follows the JSON"),
    ],
)
def test_params_that_make_no_sense_are_refused(words: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        params_from(words)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"b": [{"a": null, "c": 3, "a": {}}]}'])
@pytest.mark.parametrize("more", [[], ["--async"]])
def test_json_that_names_a_key_twice_is_a_usage_error(mrq: Shell, text: str, more: list[str]) -> None:
    said = mrq("run", "tasks.Add", text, *more, code=2)
    assert (said.out, said.err) == ("", "mrq: params has the key 'a' twice: expected each key once\n")


@pytest.mark.parametrize("value", UNSTORABLE)
def test_params_that_no_job_can_store_are_refused(value: str) -> None:
    with pytest.raises(InvalidValue, match=r"^params") as caught:
        storable_params(params_from([f'{{"a": {value}}}']), max_size=100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("more", [[], ["--async"]])
def test_deeply_nested_params_are_a_usage_error(mrq: Shell, more: list[str]) -> None:
    said = mrq("run", "tasks.Add", '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", *more, code=2)
    assert (said.out, said.err) == ("", "mrq: params is nested more than 64 levels deep: store it flatter\n")


def test_bad_params_are_a_usage_error(mrq: Shell) -> None:
    assert "expected one JSON object" in mrq("run", "tasks.Add", "a", code=2).err


@pytest.mark.parametrize("path", ["tasks", "tasks.", ".fail", "", "a b.c"])
def test_a_path_without_a_module_or_a_name_is_a_usage_error(mrq: Shell, path: str) -> None:
    for more in ([], ["--async"]):
        said = mrq("run", path, *more, code=2)
        assert said.out == ""
        assert re.fullmatch(r"mrq: task is '.*': expected a path such as 'module\.Name', .*\n", said.err), (
            said
        )


def test_a_task_that_fails_exits_with_1_and_its_traceback(mrq: Shell) -> None:
    said = mrq("run", "tasks.fail", code=1)
    assert said.out == ""
    assert "Traceback" in said.err
    assert "ValueError: it does [bold]not[/bold] work" in said.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["tasks.nothing"], "tasks has no 'nothing'"),
        (["json.loads"], "is not a task"),
        (["tasks.greet", "nam", "x"], "did you mean 'name'?"),
        (["tasks.again"], "asked to be retried"),
        (["tasks.stop"], "aborted itself"),
    ],
)
def test_other_ends_exit_with_1_and_a_sentence(mrq: Shell, arguments: list[str], what: str) -> None:
    said = mrq("run", *arguments, code=1)
    assert what in said.err
    assert len(said.err.splitlines()) == 1


def test_a_task_run_here_can_queue_jobs(mrq: Shell, project: Project) -> None:
    ids = mrq("run", "tasks.children", '{"number": 2}').json
    assert [project.client.fetch(job_id).status for job_id in ids] == ["queued", "queued"]


def test_run_queues_a_job_where_it_is_told_to(mrq: Shell, project: Project) -> None:
    asked = mrq("run", "tasks.greet", "name", "Anna", "--queue", "high").out.strip()
    own = mrq("run", "tasks.greet", '{"name": "Bo"}', "--async").out.strip()
    assert project.client.fetch(asked).queue == "high"
    assert project.client.fetch(own).queue == "mail"
    assert project.client.fetch(own).params == {"name": "Bo"}


def test_run_with_an_idempotency_key_queues_one_job_and_prints_its_id_again(
    mrq: Shell, project: Project
) -> None:
    arguments = ("tasks.greet", "name", "Anna", "--async", "--idempotency-key", "order 7, part *")
    [first, second] = [mrq("run", *arguments).out.strip() for _ in range(2)]
    assert first == second
    assert project.client.fetch(first).unique_key == "order 7, part *"
    assert "order 7, part *" in mrq("jobs", "show", first).out
    refused = mrq("run", "tasks.greet", "name", "Anna", "--idempotency-key", "k", code=2)
    assert "add --async, or --queue with a queue" in refused.err
    empty = mrq("run", "tasks.greet", "--async", "--idempotency-key", "", code=2)
    assert "--idempotency-key is ''" in empty.err


def test_run_says_when_the_queued_task_is_not_here(mrq: Shell, project: Project) -> None:
    said = mrq("run", "elsewhere.Task", "--async")
    assert "elsewhere.Task cannot be found" in said.err
    assert project.client.fetch(said.out.strip()).path == "elsewhere.Task"


@pytest.mark.parametrize("words", [("__main__.ok", "--async"), ("elsewhere.Task", "--queue", "")])
def test_run_says_that_a_job_is_queued_only_if_it_is(mrq: Shell, words: tuple[str, ...]) -> None:
    said = mrq("run", *words, code=2)
    assert (said.out, said.err.count("\n"), "queued all the same" in said.err) == ("", 1, False)


def test_run_refuses_a_bad_name_of_a_queue(mrq: Shell) -> None:
    assert "expected a name of 1 to 200" in mrq("run", "tasks.fail", "--queue", "", code=2).err


def test_names_with_spaces_and_commas_are_quoted_in_lists(mrq: Shell, project: Project) -> None:
    names = ["two words", "a,b", "mail/", 'say "hi"', "line\nbreak"]
    ids = {name: mrq("run", "tasks.greet", "name", "Bo", "--queue", name).out.strip() for name in names}
    listed = [row["name"] for row in mrq("queues", "list", "--json").json]
    assert listed == sorted(names)
    assert "line\\nbreak" in mrq("queues", "list").out
    found = mrq("jobs", "list", "--queue", '"a,b",two words', "--json").json
    assert {row["id"] for row in found} == {ids["a,b"], ids["two words"]}
    paused = mrq("queues", "pause", '"a,b"', "two words", "line\nbreak").out
    assert paused == 'paused: "a,b", "two words", "line\\nbreak"\n'
    assert 'begins with " and does not end with it: expected' in mrq("queues", "resume", '"a,b', code=2).err
    mrq("queues", "resume", "'a,b',two words,line\nbreak")
    mrq("worker", "two words", '"a,b"', "mail/", "--burst", "--quiet")
    statuses = {name: project.client.fetch(job_id).status for name, job_id in ids.items()}
    assert [name for name, status in statuses.items() if status == "success"] == names[:3]
    mrq("worker", "--queues", '"line\nbreak", \'say "hi"\'', "--burst", "--quiet")
    assert {project.client.fetch(job_id).status for job_id in ids.values()} == {"success"}


def test_interrupting_a_run_exits_with_130(project: Project) -> None:
    process = project.start("run", "tasks.nap", '{"seconds": 60}')
    process.until_output("first line")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert "KeyboardInterrupt" not in process.output


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize(
    "beside",
    [
        "gevent.spawn(end).join()",
        "mrq_core.spawn(end).join()",
        "(gevent.get_hub().loop.run_callback(end), gevent.sleep(0.05))",
        "(gevent.spawn_later(0.01, end), gevent.sleep(0.05))",
        "(lambda one: (one.start(), one.join()))(threading.Thread(target=end))",
        "gevent.get_hub().threadpool.spawn(end).wait()",
    ],
    ids=["spawn", "spawn of mrq", "callback", "later", "thread", "native thread"],
)
def test_what_ends_another_greenlet_does_not_end_the_task(
    mrq: Shell, project: Project, beside: str, error: str
) -> None:
    project.write(
        "besides.py",
        f"""
        import threading
        import gevent
        import mrq_core

        def end():
            raise {error}

        @mrq_core.task
        def goes_on():
            {beside}
            return "went on"
        """,
    )
    assert mrq("run", "besides.goes_on").out == '"went on"\n'


def test_lost_places_can_be_looked_for_on_every_broker(mrq: Shell, project: Project) -> None:
    """Where entries are the records, there are none to be looked for."""
    project.queue("tasks.stop")
    looked = 1 if project.address.broker.startswith("redis") else 0
    found = mrq("run", "mrq_core.basetasks.cleaning.RequeueLostJobs").json
    assert found == {"examined": looked, "requeued": 0}
    assert f"Examined {looked} unfinished job" in mrq("check", "--repair").err


def test_maintenance_tasks_take_keys_and_values_and_refuse_others_in_one_line(
    mrq: Shell, project: Project
) -> None:
    tasks = "mrq_core.basetasks"
    started = f"{tasks}.cleaning.RequeueStartedJobs"
    found = mrq("run", started, "timeout", "5", "dry_run", "1", "--quiet").json
    assert found == {"requeued": 0, "started": 0, "overdue": 0}
    for params, said in (
        ([started, "timeout", "x"], "mrq: timeout is 'x': expected seconds, from 0 to 1e+09"),
        ([f"{tasks}.cleaning.Prune", "dry_run", "x"], "mrq: dry_run is 'x': expected true or false"),
        (
            [f"{tasks}.utils.JobAction", "action", "nope"],
            "mrq: action is 'nope': expected one of cancel, requeue, requeue_retry",
        ),
    ):
        err = mrq("run", *params, "--quiet", code=1).err
        assert err.splitlines()[-1:] == [said]
        assert "Traceback" not in err
    job_id = project.queue(started, {"timeout": "x"})
    mrq("worker", "--burst", "--quiet")
    record = project.client.fetch(job_id)
    assert (record.status, record.exception_type) == ("failed", "mrq_core.errors.InvalidParams")


@pytest.mark.parametrize("call", ["close()", "detach()"])
def test_a_run_prints_its_result_after_the_task_has_broken_the_streams(
    mrq: Shell, project: Project, call: str
) -> None:
    project.write(
        "streams.py",
        f"""
        import sys
        from mrq_core import task

        @task
        def breaks():
            sys.stdout.{call}
            sys.stderr.{call}
            return 7
    """,
    )
    assert mrq("run", "streams.breaks").out == "7\n"


def test_a_run_says_that_its_task_has_closed_standard_output(mrq: Shell, project: Project) -> None:
    project.write(
        "closing.py",
        """
        import os
        from mrq_core import task

        @task
        def closes():
            os.closerange(3, 256)  # as a program that becomes a daemon does
            return 7
    """,
    )
    said = in_another_process(("run", "closing.closes"), project.path, project.env)
    assert "the command is done; what it prints is lost" in said.err
    assert "standard output could not be written (a task has closed its descriptor)" in said.err
