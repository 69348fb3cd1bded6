"""What a task changes of logging, and of the client of its worker."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

CHANGES = '''
import contextlib
import io
import logging
import logging.config
import os
import threading
import time
import warnings

from mrq_core import get_current_worker, log, queue_job, task

HANDLED = {"version": 1, "root": {"level": "WARNING", "handlers": []}}
FILE = """
[loggers]
keys=root
[handlers]
keys=
[formatters]
keys=
[logger_root]
level=ERROR
handlers=
"""


def dict_config():
    logging.config.dictConfig(HANDLED)


def file_config():
    logging.config.fileConfig(io.StringIO(FILE))


def basic_config():
    logging.basicConfig(force=True, level=logging.ERROR, stream=io.StringIO())


def disable():
    logging.disable(logging.CRITICAL)


def shut_down():
    logging.shutdown()


def clear():
    logging.getLogger().handlers.clear()


def raise_levels():
    logging.getLogger().setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)


def own_levels():
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("mrq"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def own_config():
    loggers = {"mrq": {"level": "CRITICAL"}}
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": loggers})


def clear_loggers():
    logging.Logger.manager.loggerDict.clear()


def handlers_none():
    logging.root.handlers = None


def handlers_tuple():
    logging.root.handlers = (*logging.root.handlers, 5)


def handlers_odd():
    logging.root.handlers.insert(0, 5)


def levels_none():
    logging.root.addHandler(logging.StreamHandler())
    for handler in logging.root.handlers:
        handler.level = None


def filters_none():
    logging.root.filters = None
    for handler in logging.root.handlers:
        handler.filters = None


def parts_of_handlers():
    for handler in logging.root.handlers:
        handler.formatter = 42
        handler.lock = handler.stream = None


def formatters():
    for handler in logging.root.handlers:
        handler.setFormatter(logging.Formatter("formatted %(levelname)s"))


def emit_raises():
    def refuses(record):
        raise KeyboardInterrupt

    for handler in logging.root.handlers:
        handler.emit = handler.handle = handler.format = refuses


def locks():
    for handler in logging.root.handlers:
        handler.lock = threading.RLock()


def root_disabled():
    logging.root.disabled = True


def other_manager():
    logging.Logger.manager = logging.Manager(logging.root)


def streams():
    for handler in logging.root.handlers:
        handler.stream = io.StringIO()


def short_levels():
    log.setLevel(logging.CRITICAL)


def short_levels_above():
    logging.getLogger("mrq").setLevel(logging.CRITICAL)


def short_handler_levels():
    for handler in logging.root.handlers:
        handler.setLevel(logging.CRITICAL)


def short_filters():
    for handler in logging.root.handlers:
        handler.addFilter(lambda record: False)


def short_propagation():
    logging.getLogger("mrq").propagate = False


def short_loggers():
    log.handlers = log.filters = None


def log_file():
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith("/worker.log"):
                os.close(number)
                time.sleep(0.01)


def other_file():
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith("/worker.log"):
                os.dup2(os.open("other", os.O_WRONLY | os.O_CREAT), number)
                log.info("at once")


def disable_odd():
    logging.Logger.manager.disable = 99


def other_root():
    logging.root = logging.Logger.root = logging.Logger("other")


def loggers():
    for name in ("mrq", "mrq.job", "mrq.worker"):
        logger = logging.getLogger(name)
        logger.handlers = logger.filters = None
        logger.propagate = False


def methods():
    logging.Logger.handle = None
    time.sleep(0.01)


def capture():
    logging.captureWarnings(True)
    warnings.warn("captured")


@task
def configures(way: str):
    globals()[way]()


@task
def closes_client():
    get_current_worker().client.close()
    return queue_job("changes.logs", {})


@task(isolate=True)
def closes_client_alone():
    get_current_worker().client.close()
    return queue_job("changes.logs", {})


@task
def logs():
    log.info("from the logger of mrq")
    logging.getLogger(__name__).info("from a logger of the task")
    logging.info("from the root")


@task
def formats_nothing():
    logging.Formatter.format = None
'''


@pytest.fixture(autouse=True)
def changes(project: Project) -> None:
    project.write("changes.py", CHANGES)


WAYS = (
    "dict_config", "short_levels_above", "file_config", "basic_config", "disable", "shut_down",
    "clear", "raise_levels", "own_levels", "own_config", "clear_loggers", "capture",
    "handlers_none", "handlers_tuple", "handlers_odd", "levels_none", "filters_none",
    "parts_of_handlers", "formatters", "locks", "root_disabled", "other_manager", "disable_odd",
    "other_root", "loggers", "methods", "streams", "short_levels", "short_handler_levels",
    "short_filters", "short_propagation", "short_loggers", "emit_raises",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_configures_logging_keeps_no_later_job_from_its_log(project: Project, way: str) -> None:
    project.queue("changes.logs")  # loggers that exist already
    project.queue("changes.configures", {"way": way})
    job = project.queue("changes.logs")
    failing = project.queue("tasks.fail")
    worker = project.work_off()
    project.ended(job)
    assert project.log_of(job) == [
        "from the logger of mrq",
        "from a logger of the task",
        "from the root",
    ]
    assert f"job.failed id={failing}" in worker.output
    assert "worker.stopped" in worker.output


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lines_go_to_the_log_file_after_a_task_has_closed_its_descriptor(project: Project) -> None:
    project.queue("changes.configures", {"way": "log_file"})
    project.queue("changes.logs")
    worker = project.work_off("--log-file", "worker.log")
    lines = (project.path / "worker.log").read_text()
    assert "from the logger of mrq" in lines
    assert "worker.stopped" in lines
    assert "Bad file descriptor" not in worker.output


def test_no_line_goes_to_another_file_that_has_the_descriptor_of_the_log_file(project: Project) -> None:
    project.queue("changes.configures", {"way": "other_file"})
    project.queue("changes.logs")
    project.work_off("--log-file", "worker.log")
    assert (project.path / "other").read_text() == ""
    assert "at once" in (project.path / "worker.log").read_text()


@pytest.mark.parametrize("task", ["closes_client", "closes_client_alone"])
def test_the_client_of_a_worker_stays_open_after_a_task_has_closed_it(project: Project, task: str) -> None:
    job = project.queue(f"changes.{task}")
    worker = project.work_off()
    record = project.ended(job)
    assert record.status == Status.SUCCESS
    assert project.ended(str(record.result)).status == Status.SUCCESS
    assert "client.kept_open" in worker.output
    assert "broker.away" not in worker.output


def test_a_task_that_goes_on_after_it_has_configured_logging_leaves_the_logs_of_its_neighbours(
    project: Project,
) -> None:
    project.write(
        "going_on.py",
        """
        import changes, os, time
        from mrq_core import log, task
        from tasks import note

        @task
        def configures():
            changes.dict_config()
            changes.disable()
            note("configured")
            while "go" not in os.listdir("."):
                time.sleep(0.01)

        @task
        def talks():
            while "go" not in os.listdir("."):
                log.info("here")
                time.sleep(0.05)
    """,
    )
    project.queue("going_on.configures")
    worker = project.worker("--greenlets", "2")
    until(project.ledger, what="the task to configure logging")
    talking = project.queue("going_on.talks")
    until(lambda: project.log_of(talking), what="a line of the neighbour")
    project.write("go", "")
    project.ended(talking)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


def test_levels_of_the_loggers_of_mrq_that_a_module_sets_when_it_is_imported_stay(project: Project) -> None:
    project.write(
        "leveling.py",
        """
        import logging, time
        from mrq_core import log, task

        log.setLevel(logging.WARNING)

        @task
        def talk():
            log.info("left out")
            log.warning("here")
            time.sleep(0.01)
        """,
    )
    jobs = [project.queue("leveling.talk") for _ in range(2)]
    project.work_off("--greenlets", "1")
    for job in jobs:
        project.ended(job)
        assert project.log_of(job) == ["here"]


def test_jobs_have_their_outcomes_after_a_task_has_broken_all_formatters(project: Project) -> None:
    project.queue("changes.formats_nothing")
    jobs = [project.queue("changes.logs"), project.queue("tasks.fail")]
    project.work_off()
    assert [project.ended(job).exception_type for job in jobs] == [None, "ValueError"]


def test_lines_that_a_handler_has_kept_are_stored_with_no_other_job(project: Project) -> None:
    project.write(
        "keeping.py",
        """
        import logging
        from logging.handlers import MemoryHandler
        from mrq_core import log, task

        @task
        def keeps():
            logging.getLogger().addHandler(MemoryHandler(1000, target=logging.getLogger().handlers[1]))
            log.info("kept")

        @task
        def says(word, level):
            log.log(level, word)
    """,
    )
    others = [
        project.queue("keeping.keeps"),
        project.queue("keeping.says", {"word": "other", "level": 20}),
    ]
    job = project.queue("keeping.says", {"word": "own", "level": 40})
    project.work_off("--greenlets", "1")
    assert [project.log_of(one) for one in others] == [["kept"], ["other"]]
    assert {*project.log_of(job)} == {"own"}


EXAMINED = """
import logging
import sys

import changes
from mrq_core.config.settings import Config
from mrq_core.running import logs

for way in sys.argv[1:]:
    logging.root.handlers = []
    logs.set_up_logging(Config())
    getattr(changes, way)()
    found = logs.is_logging_intact()
    logs.restore_logging()
    print(way, found, logs.is_logging_intact())
"""
HARMLESS = ("clear_loggers", "capture", "shut_down")
REPLACING_METHODS = ("methods",)


def test_the_examination_after_each_job_finds_what_a_short_job_has_changed(project: Project) -> None:
    project.write("examined.py", EXAMINED)
    ways = [way for way in WAYS if way not in HARMLESS + REPLACING_METHODS]
    command = [sys.executable, "examined.py", *ways]
    said = subprocess.run(command, cwd=project.path, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [f"{way} False True" for way in ways]
