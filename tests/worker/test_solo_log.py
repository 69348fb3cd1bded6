"""Isolated jobs that configure logging for themselves: their own lines, and the lines of the worker."""

from __future__ import annotations

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until
from tests.worker.test_surroundings_logging import CHANGES, WAYS

ALONE = """
import logging, os, sys, time, warnings

import changes
from mrq_core import log, task
from tasks import note


class Hostile(logging.Handler):
    def emit(self, record):
        raise LookupError("no line")


class OwnLogger(logging.Logger):
    def handle(self, record):
        pass


def refuse(*arguments, **more):
    raise LookupError("no line")


def logger_class():
    logging.setLoggerClass(OwnLogger)
    logging.captureWarnings(True)
    warnings.warn("captured")


def factory():
    logging.setLogRecordFactory(refuse)


def odd_factory():
    logging.setLogRecordFactory(lambda *arguments, **more: None)


def filters():
    for name in ("mrq", "mrq.job", "mrq.worker"):
        logging.getLogger(name).addFilter(lambda record: False)


def raising_filters():
    logging.getLogger("mrq.worker").addFilter(refuse)


def raising_handlers():
    logging.getLogger("mrq.worker").addHandler(Hostile())
    logging.getLogger("mrq").addHandler(Hostile())
    logging.getLogger().handlers.insert(0, Hostile())


def disabled_logger():
    logging.getLogger("mrq.worker").disabled = True


def closed_stream():
    sys.stderr.close()


def detached_stream():
    sys.stderr.detach()


def no_stream():
    sys.stdout = sys.stderr = None


def ascii_stream():
    sys.stderr.reconfigure(encoding="ascii", errors="strict")


def closed_descriptors():
    os.close(1)
    os.close(2)


def replaced_descriptors():
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)


@task(isolate=True)
def configures(way: str):
    (globals().get(way) or getattr(changes, way))()
    raise ValueError("configured, \\u00e9")


@task
def configures_here(way: str):
    (globals().get(way) or getattr(changes, way))()


@task(isolate=True)
def goes_on():
    changes.dict_config()
    changes.disable()
    while "go" not in os.listdir("."):
        log.info("here")
        time.sleep(0.05)
"""

OWN_WAYS = (
    *("factory", "filters", "odd_factory", "logger_class", "raising_filters", "raising_handlers"),
    *("disabled_logger", "closed_stream", "detached_stream", "no_stream", "ascii_stream"),
    *("closed_descriptors", "replaced_descriptors"),
)


@pytest.fixture(autouse=True)
def alone(project: Project) -> None:
    project.write("changes.py", CHANGES)
    project.write("alone.py", ALONE)


@pytest.mark.parametrize("log_file", [False, True])
@pytest.mark.parametrize("way", [*WAYS, *OWN_WAYS])
def test_an_isolated_job_has_its_last_line_whatever_it_does_to_logging(
    project: Project, way: str, log_file: bool
) -> None:
    job = project.queue("alone.configures", {"way": way})
    worker = project.work_off(*(["--log-file", "worker.log"] if log_file else []))
    assert project.ended(job).exception_message == "configured, é"
    lines = (project.path / "worker.log").read_text() if log_file else worker.output
    told = lines.count(f"job.failed id={job}")
    assert told == 1 or (told and way == "levels_none")  # which adds a handler for standard error
    assert "configured, é" in lines
    assert "restored" not in lines


@pytest.mark.parametrize("way", OWN_WAYS)
def test_a_job_that_spoils_logging_silences_no_line_of_its_worker(project: Project, way: str) -> None:
    spoiling = project.queue("alone.configures_here", {"way": way})
    failing = project.queue("tasks.fail")
    worker = project.work_off()
    assert project.ended(spoiling).status == Status.SUCCESS
    for line in (f"job.success id={spoiling}", f"job.failed id={failing}", "worker.stopped"):
        assert worker.output.count(line) == 1


def test_the_lines_of_an_isolated_job_are_stored_after_it_has_configured_logging(project: Project) -> None:
    job = project.queue("alone.goes_on")
    worker = project.worker()
    until(lambda: project.log_of(job), what="a line of the job")
    project.write("go", "")
    assert project.ended(job).status == Status.SUCCESS
    worker.until_output(f"job.success id={job}")


@pytest.mark.parametrize("options", ["isolate=True", ""])
def test_a_module_that_configures_logging_when_it_is_imported_costs_its_job_no_line(
    project: Project, options: str
) -> None:
    project.write(
        "configured.py",
        f"""
        import logging.config
        from mrq_core import log, task

        logging.config.dictConfig({{"version": 1, "root": {{"level": "ERROR", "handlers": []}}}})
        logging.getLogger("mrq.job").setLevel(logging.WARNING)

        @task({options})
        def says():
            log.info("left out")
            log.warning("here")
        """,
    )
    job = project.queue("configured.says")
    worker = project.work_off()
    assert project.ended(job).status == Status.SUCCESS
    assert project.log_of(job) == ["here"]
    assert worker.output.count(f"job.success id={job}") == 1


def test_the_worker_logs_the_end_of_a_job_whose_process_cannot_run_the_config_file(project: Project) -> None:
    project.write(
        "mrq-config.py", "import os\n\nif os.path.exists('later'):\n    raise LookupError('later')\n"
    )
    project.write("later.py", "from mrq_core import task\n\n@task(isolate=True)\ndef runs():\n    pass\n")
    worker = project.worker()
    project.write("later", "")
    job = project.queue("later.runs")
    assert project.ended(job).status == Status.FAILED
    worker.until_output(f"job.failed id={job}")
