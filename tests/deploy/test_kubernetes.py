"""The manifests of the page on deployment hold against the program, and against a real server's keys."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mrq_core.worker.watchdog import GRACE
from tests.deploy.program import TIME_TO_STOP, checked
from tests.deploy.snippets import PAGE, container, manifests
from tests.redis.servers import Server
from tests.support import Project, open_project, until

DEPLOYMENT, BUDGET = manifests("worker.yaml")
[SCALING] = manifests("scaling.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
WORKER = container(
    DEPLOYMENT, {"MRQ_NAME": "pod-1", "MRQ_BROKER": "rediss://mrq:secret@redis.shop.svc:6379/0"}
)
CONFIG = checked(WORKER.words, WORKER.environ)
PROBES = {name: WORKER.spec[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}

_FIND = re.compile(r"find (\S+) -mmin -(\d+) \| grep -q \.")


def limit_of_memory() -> int:
    found = re.fullmatch(r"(\d+)Mi", WORKER.spec["resources"]["limits"]["memory"])
    assert found is not None
    return int(found[1]) * 2**20


def test_the_settings_of_the_deployment_are_real() -> None:
    assert (CONFIG.queues, CONFIG.name, CONFIG.greenlets) == (("mail/", "default"), "pod-1", 10)
    assert f"`{WORKER.environ['MRQ_BROKER']}`" in PAGE


def test_what_belongs_together_has_the_same_labels_and_name() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert (
        DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels == BUDGET["spec"]["selector"]["matchLabels"]
    )
    assert SCALING["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]


def test_a_pod_has_the_time_to_stop_that_it_needs() -> None:
    assert POD["terminationGracePeriodSeconds"] >= TIME_TO_STOP
    [hook] = manifests("lifecycle.yaml")
    shell, option, script = hook["lifecycle"]["preStop"]["exec"]["command"]
    found = re.fullmatch(r"kill -INT 1 && sleep (\d+)", script)
    assert (shell, option) == ("sh", "-c")
    assert found is not None
    [told] = re.findall(r"`terminationGracePeriodSeconds: (\d+)`", PAGE)
    assert int(told) >= int(found[1]) + TIME_TO_STOP


def test_a_worker_stops_by_itself_before_its_memory_is_at_the_limit() -> None:
    assert 0 < CONFIG.max_memory * 1e6 < 0.8 * limit_of_memory()


def test_the_report_is_written_where_the_pod_may_write() -> None:
    assert WORKER.spec["securityContext"]["readOnlyRootFilesystem"]
    [mount] = WORKER.spec["volumeMounts"]
    assert mount["mountPath"] == str(PurePosixPath(CONFIG.report_file).parent)
    assert [volume["name"] for volume in POD["volumes"]] == [mount["name"]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as opened:
        yield opened


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_tells_the_living_from_the_dead(name: str, project: Project) -> None:
    command = PROBES[name]["exec"]["command"]
    file = project.path / "report.json"
    assert command[-1].count(CONFIG.report_file) == 1

    def is_content() -> bool:
        here = [*command[:-1], command[-1].replace(CONFIG.report_file, str(file))]
        return subprocess.run(here, capture_output=True, check=False).returncode == 0

    assert not is_content()
    worker = project.worker("--report-file", str(file))
    assert is_content()
    worker.end()  # killed: the file stays behind
    for age, content in ((allowed(name) - 10, True), (allowed(name) + 10, False)):
        os.utime(file, (time.time() - age,) * 2)
        assert is_content() == content


def allowed(name: str) -> float:
    """The age of the file in seconds up to which a probe is content."""
    found = _FIND.fullmatch(PROBES[name]["exec"]["command"][-1])
    assert found is not None
    return 60.0 * int(found[2])


def test_probes_give_a_worker_time() -> None:
    assert PROBES["startup"]["periodSeconds"] * PROBES["startup"]["failureThreshold"] >= 60
    assert allowed("startup") == allowed("readiness") >= 3 * CONFIG.report_interval
    # No job holds the hub for longer than that.
    assert allowed("liveness") > CONFIG.default_job_timeout + GRACE + CONFIG.report_interval


# --- KEDA -----------------------------------------------------------------------------------------


def triggers() -> list[dict[str, Any]]:
    found = [trigger["metadata"] for trigger in SCALING["spec"]["triggers"]]
    assert {trigger["type"] for trigger in SCALING["spec"]["triggers"]} == {"redis"}
    return found


def test_the_keys_that_scale_hold_what_waits_and_what_runs(tmp_path: Path) -> None:
    waiting, claimed = (trigger["listName"] for trigger in triggers())
    server = Server()
    try:
        with open_project(tmp_path, server.url) as project, server.client() as client:
            project.write(
                "tasks.py",
                "import time\nfrom mrq_core import task\n@task\ndef nap():\n    time.sleep(1000)\n",
            )
            for _ in range(3):
                project.queue("tasks.nap")
            project.queue("tasks.nap", delay=1000)
            project.queue("tasks.nap", priority=1)
            project.queue("tasks.nap", queue="mail/a")
            project.worker("-g", "3")
            until(lambda: client.zcard(claimed) == 3, what="three jobs to run")
            [counts] = project.client.broker.counts(["default"])
            # The one of a higher priority runs, and two of the others; another and the delayed one wait.
            assert (counts.claimed, counts.waiting, counts.due) == (3, 2, 1)
            assert client.zcard(waiting) == counts.waiting
    finally:
        server.stop()


def test_a_worker_is_wanted_for_as_many_running_jobs_as_one_takes() -> None:
    _, claimed = triggers()
    assert int(claimed["listLength"]) == CONFIG.greenlets
    for trigger in triggers():
        assert re.fullmatch(r"[\w.-]+:\d+", trigger["address"])
        assert set(trigger) == {"address", "databaseIndex", "listName", "listLength"}
        assert all(isinstance(value, str) for value in trigger.values())
