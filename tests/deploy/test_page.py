"""What the page on deployment says beside its examples for supervisors: containers, probes, rights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from mrq_core.config.settings import Config
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.deploy.dockerfiles import STAGES, command_of_the_image, last, stages
from tests.deploy.program import TIME_TO_STOP, checked
from tests.deploy.snippets import PAGE, SCRIPTS, TITLED, compose_calls
from tests.deploy.test_compose import OURS, SERVICES, compose, environment
from tests.docs.pages import ROOT, blocks, name_of, pages
from tests.redis.servers import Server
from tests.support import open_project

CHECKED = {
    "Dockerfile", "Procfile", "supervisord.conf", "mrq-worker@.service",
    "mrq-worker@.service.d/patience.conf", "worker.yaml", "lifecycle.yaml", "scaling.yaml",
}  # fmt: skip
"""The examples that the tests of this folder look at."""


def test_every_example_that_is_not_run_is_looked_at() -> None:
    for page in pages():
        for block in blocks(page.read_text()):
            if block.language in ("yaml", "ini", "dockerfile") or block.title == "Procfile":
                assert block.title in CHECKED, f"{name_of(page)}, line {block.line}"
    assert set(TITLED) >= CHECKED


def test_an_image_with_tasks_is_made_from_ours() -> None:
    [instructions] = stages(TITLED["Dockerfile"])
    assert instructions[0].rest == SERVICES["worker"]["image"]
    assert last(instructions, "USER") == last(STAGES[-1], "USER")
    assert not [one for one in instructions if one.name == "ENTRYPOINT"]
    assert checked(last(instructions, "CMD").words, {}).queues == ("mail/", "default")


def test_calls_of_compose_fit_the_file() -> None:
    seen = set()
    for environ, words in compose_calls():
        seen.add(words[0])
        for name in environ:
            assert re.search(rf"\$\{{{name}:?-", (ROOT / "docker-compose.yml").read_text()), name
        service = compose(environ)["services"]["worker"]
        checked(command_of_the_image(), environment(service))
        if words[0] == "exec":
            assert words[1] in OURS
        if "--scale" in words:
            name, _, number = words[words.index("--scale") + 1].partition("=")
            assert name in OURS
            assert int(number) > 1
    assert seen == {"up", "exec", "down"}


def test_the_probe_in_the_text_is_that_of_the_compose_file() -> None:
    probe = SERVICES["worker"]["healthcheck"]["test"][1]
    assert f"```sh\n{probe}\n```" in PAGE
    assert checked(["worker"], environment(SERVICES["worker"])).report_interval == 10


def test_the_page_names_the_time_that_a_worker_needs_to_stop() -> None:
    assert "gone within eight seconds, or `STOP_GRACE` + 3; give it 15" in PAGE
    assert (Config().stop_grace, LEAVE_WITHIN) == (5, 3)
    assert TIME_TO_STOP <= 15


def test_the_rights_that_the_page_gives_a_user_of_redis_are_enough(tmp_path: Path) -> None:
    [line] = [line for script in SCRIPTS for line in script.splitlines() if line.startswith("redis-cli ")]
    words = shlex.split(line)[1:]
    assert words[:3] == ["ACL", "SETUSER", "mrq"]
    server = Server("--appendonly", "yes")
    try:
        with server.client() as client:
            client.execute_command(*words)
            url = server.url.replace("redis://", "redis://mrq:secret@")
            with open_project(tmp_path, url) as project:
                project.write(
                    "tasks.py", "from mrq_core import task\n@task\ndef one() -> int:\n    return 1\n"
                )
                worker = project.worker()
                assert project.ended(project.queue("tasks.one")).result == 1
                assert "0 errors" in project.mrq("check", "--fix")
                project.mrq("queues", "pause", "mail/")
                project.mrq("workers")
                project.mrq("jobs", "requeue", "--status", "success")
                project.mrq("jobs", "remove", "--status", "success")
                assert "failed" not in worker.output
            # redis-py tells the server its name and goes on where it may not; Redis 6.2 calls that dangerous.
            assert {one["object"] for one in client.acl_log()} <= {"client"}
    finally:
        server.stop()


def test_docker_is_said_to_stop_what_the_compose_file_gives_it() -> None:
    service = SERVICES["worker"]
    within, limit = re.findall(r"has (\d+) seconds; it is killed at (\d+) MiB", re.sub(r"\s+", " ", PAGE))[0]
    assert (f"{within}s", f"{limit}m") == (service["stop_grace_period"], service["mem_limit"])
