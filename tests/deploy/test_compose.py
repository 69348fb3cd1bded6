"""docker-compose.yml says what the program, its settings and the servers really are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import mrq_broker_mongo.server.checks
import mrq_broker_redis.server.checks
from mrq_core.config.settings import Config
from mrq_core.operations.checking.checks import broker_findings
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from tests.deploy.dockerfiles import command_of_the_image
from tests.deploy.program import TIME_TO_STOP, checked
from tests.docs.pages import ROOT
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import Process, Project, open_project, until

_VARIABLE = re.compile(r"\$\{(\w+)(:?)-([^}]*)\}")
_UNITS = {"s": 1, "m": 60}


def compose(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file, with its variables filled in as in this environment."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert "$" not in _VARIABLE.sub("", text), "only ${NAME:-default} and ${NAME-default} are understood"

    def value(found: re.Match[str]) -> str:
        name, colon, default = found.groups()
        return (environ.get(name) or default) if colon else environ.get(name, default)

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(item) for name, item in part.items()}
        if isinstance(part, list):
            return [filled(item) for item in part]
        return _VARIABLE.sub(value, part) if isinstance(part, str) else part

    whole: dict[str, Any] = filled(yaml.safe_load(text))
    return whole


FILE = compose({})
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "mrq"}
WORKERS = [name for name in OURS if name not in ("scheduler", "dashboard")]
REPORTING = [name for name in OURS if name != "dashboard"]


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service["environment"].items()}


def seconds(text: str) -> float:
    """A duration such as ``15s`` or ``1m30s``."""
    parts = re.findall(r"(\d+)([sm])", text)
    assert "".join(number + unit for number, unit in parts) == text
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def the_command(service: Mapping[str, Any]) -> list[str]:
    """What is put behind the entrypoint: the service's command, or the image's."""
    given = service.get("command")
    assert given is None or isinstance(given, list), "a list, which no shell takes apart"
    return command_of_the_image() if given is None else [str(word) for word in given]


# --- what holds for all services ---------------------------------------------------------------------


def test_there_are_the_servers_a_worker_a_scheduler_and_a_dashboard() -> None:
    assert set(SERVICES) == {"redis", "mongo", "worker", "scheduler", "dashboard"}
    assert set(OURS) == {"worker", "scheduler", "dashboard"}
    assert the_command(SERVICES["scheduler"]) == ["scheduler"]
    assert the_command(SERVICES["worker"])[0] == "worker"


def test_worker_and_scheduler_have_the_same_broker_and_the_same_code() -> None:
    worker, scheduler = SERVICES["worker"], SERVICES["scheduler"]
    for name in ("MRQ_BROKER", "MRQ_STORE", "MRQ_REDIS", "MRQ_MONGODB"):
        assert environment(worker)[name] == environment(scheduler)[name]
    assert worker["volumes"] == scheduler["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_that_can_end_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert check["retries"] > 1
    assert seconds(check["start_period"]) >= 30


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_started_again_whatever_its_exit_code(name: str) -> None:
    # A worker that MAX_MEMORY has stopped exits with 0.
    assert SERVICES[name]["restart"] in ("always", "unless-stopped")


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_be_reached_from_outside(name: str) -> None:
    # The dashboard has no login: only this machine reaches its port.
    ports = SERVICES[name].get("ports", [])
    assert ports == (["127.0.0.1:5555:5555"] if name == "dashboard" else [])
    assert "network_mode" not in SERVICES[name]
    assert set(SERVICES[name]["networks"]) <= set(FILE["networks"])
    if name not in OURS:
        assert all(FILE["networks"][network]["internal"] for network in SERVICES[name]["networks"])


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_or_built_here(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or re.fullmatch(r"[\w./-]+:\d+\.\d+(-\w+)?", service["image"])


def test_volumes_that_are_named_are_declared_and_used() -> None:
    named = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }
    assert named == set(FILE["volumes"]) == {"redis", "mongo"}
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
    assert SERVICES["mongo"]["volumes"] == ["mongo:/data/db"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_only_for_what_says_that_it_is_healthy(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert "healthcheck" in SERVICES[other]
        assert how == {"condition": "service_healthy"}


# --- the worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen", [{}, {"MRQ_BROKER": "redis"}, {"MRQ_BROKER": "mongo", "MRQ_STORE": ""}], ids=str
)
@pytest.mark.parametrize("name", OURS)
def test_our_commands_and_settings_are_real(name: str, chosen: dict[str, str]) -> None:
    service = compose(chosen)["services"][name]
    config = checked(the_command(service), environment(service))
    assert config.broker == chosen.get("MRQ_BROKER", "redis")
    for url in urls(config):
        host, port = url.partition("://")[2].partition("/")[0].split(":")
        assert {"redis": "6379", "mongo": "27017"}[host] == port
        assert host in service["depends_on"]
        assert set(SERVICES[host]["networks"]) & set(service["networks"])


def urls(config: Config) -> list[str]:
    return [url for url in (config.broker, config.redis, config.mongodb) if "://" in url]


@pytest.mark.parametrize("name", WORKERS)
def test_settings_can_be_given_from_outside(name: str) -> None:
    service = compose({"MRQ_QUEUES": "mail/ default", "MRQ_GREENLETS": "3"})["services"][name]
    config = checked(the_command(service), environment(service))
    assert (config.queues, config.greenlets) == (("mail/", "default"), 3)


@pytest.mark.parametrize("name", OURS)
def test_a_worker_has_the_time_to_stop_that_it_needs(name: str) -> None:
    assert SERVICES[name].get("stop_signal", "SIGTERM") == "SIGTERM"
    assert seconds(SERVICES[name]["stop_grace_period"]) >= TIME_TO_STOP


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_stops_by_itself_before_its_memory_is_at_the_limit(name: str) -> None:
    config = checked(the_command(SERVICES[name]), environment(SERVICES[name]))
    limit = re.fullmatch(r"(\d+)m", SERVICES[name]["mem_limit"])
    assert limit is not None
    assert 0 < config.max_memory * 1e6 < 0.8 * int(limit[1]) * 2**20


@pytest.mark.parametrize("name", REPORTING)
def test_a_worker_writes_only_where_it_may(name: str) -> None:
    service = SERVICES[name]
    config = checked(the_command(service), environment(service))
    assert service["read_only"]
    assert str(Path(config.report_file).parent) in service["tmpfs"]
    assert config.broker != "sqlite"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as opened:
        yield opened


@pytest.mark.parametrize("name", REPORTING)
def test_the_health_check_of_a_worker_tells_the_living_from_the_dead(name: str, project: Project) -> None:
    service = SERVICES[name]
    how, script = service["healthcheck"]["test"]
    assert how == "CMD-SHELL"
    inside, file = environment(service)["MRQ_REPORT_FILE"], project.path / "report.json"
    assert script.count(inside) == 1

    def is_healthy() -> bool:
        here = script.replace(inside, str(file))
        return subprocess.run(["/bin/sh", "-c", here], capture_output=True, check=False).returncode == 0

    def start(*flags: str) -> Process:
        if name in WORKERS:
            return project.worker("--report-file", str(file), *flags)
        project.env["MRQ_REPORT_FILE"] = str(file)
        process = project.start("scheduler")
        process.until_output("scheduler.started")
        until(file.exists)
        return process

    assert not is_healthy()
    worker = start()
    assert is_healthy()
    worker.end()  # killed: the file stays behind
    assert is_healthy()
    interval = checked(the_command(service), environment(service)).report_interval
    for age, healthy in ((3 * interval, True), (120, False)):
        os.utime(file, (time.time() - age,) * 2)
        assert is_healthy() == healthy
    again = start("--report-interval", "0.1") if name in WORKERS else start()
    until(is_healthy, what="the next process's report")
    again.end()


# --- the servers ----------------------------------------------------------------------------------


def redis_options() -> list[str]:
    options: list[str] = SERVICES["redis"]["command"][1:]
    assert SERVICES["redis"]["command"][0] == "redis-server"
    assert all(isinstance(option, str) for option in options), "yes without quotes is true"
    return options


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer(*redis_options())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mongo_server() -> Iterator[MongoServer]:
    program, *options = SERVICES["mongo"]["command"]
    assert program == "mongod"
    assert options[0] == "--bind_ip_all"
    server = MongoServer(*options[1:])
    yield server
    server.stop()


def findings(broker: str) -> dict[str, str]:
    """The subjects of what `mrq check` finds, with their levels."""
    config = checked(["check"], {"MRQ_BROKER": broker})
    opened = open_broker(config, Plugins(config))
    opened.prepare()
    found = {finding.subject: finding.level for finding in broker_findings(opened)}
    opened.close()
    return found


def test_redis_takes_these_options_and_check_is_content(redis_server: RedisServer) -> None:
    assert set(findings(redis_server.url).values()) == {"ok"}
    with redis_server.client() as client:
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_mongo_takes_these_options_and_check_is_content(mongo_server: MongoServer) -> None:
    assert set(findings(mongo_server.url).values()) == {"ok"}


def test_the_dashboard_listens_at_its_port_and_answers_its_health_check(project: Project) -> None:
    service = SERVICES["dashboard"]
    config = checked(the_command(service), environment(service))
    assert (config.dashboard_ip, config.dashboard_port) == ("0.0.0.0", 5555)
    how, program, flag, script = service["healthcheck"]["test"]
    assert (how, program, flag) == ("CMD", "python", "-c")
    process = project.start(*the_command(service), "--dashboard-port", "0", "--dashboard-hosts", "localhost")
    process.until_output("The dashboard is at ")
    port = re.search(r"The dashboard is at http://0\.0\.0\.0:(\d+)/", process.output)
    assert port is not None

    def is_healthy(port: str) -> bool:
        here = [sys.executable, "-c", script.replace("5555", port)]
        return subprocess.run(here, capture_output=True, check=False).returncode == 0

    assert is_healthy(port[1])
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert not is_healthy(port[1])


def test_the_health_check_of_redis_is_right(redis_server: RedisServer) -> None:
    how, script = SERVICES["redis"]["healthcheck"]["test"]
    assert how == "CMD-SHELL"
    client = Path(redis_server.program.require()).with_name("redis-cli")
    if not client.exists():
        pytest.skip("there is no redis-cli beside the server")

    def is_healthy(port: int) -> bool:
        here = script.replace("redis-cli", f"{client} -p {port}", 1)
        return subprocess.run(["/bin/sh", "-c", here], capture_output=True, check=False).returncode == 0

    assert is_healthy(redis_server.port)
    other = RedisServer("--requirepass", "secret")
    try:
        assert not is_healthy(other.port)  # it answers, but not with PONG
    finally:
        other.stop()
    assert not is_healthy(other.port)


def test_the_versions_of_the_servers_are_those_that_the_drivers_take() -> None:
    for name, oldest in (
        ("redis", mrq_broker_redis.server.checks.OLDEST),
        ("mongo", mrq_broker_mongo.server.checks.OLDEST),
    ):
        tag = SERVICES[name]["image"].partition(":")[2].partition("-")[0]
        assert tuple(map(int, tag.split("."))) >= oldest
