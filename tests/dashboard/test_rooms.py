"""Actions on queues, tasks, schedules, workers and limits: with real and with bad input."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

import pytest
from markupsafe import escape
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.clock import after
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import Limit, RawItem
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.shared_state import Versions
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.explaining.reasons import in_shell
from mrq_core.operations.limits import find_limit, list_limits, publish_limits, set_limit
from mrq_core.operations.queries.query_parts import quoted_value
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.requests import store_answer
from mrq_core.operations.schedule_sync import sync_schedules
from mrq_core.operations.schedules import find_schedule, list_schedules
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.scheduler.definitions import definition_from
from mrq_core.tasks.describing import describe
from mrq_core.tasks.loading import resolve_options
from mrq_core.tasks.task import task
from mrq_dashboard import Role, create_dashboard
from mrq_dashboard.app import ENDPOINTS
from tests.dashboard import scenes
from tests.dashboard.conftest import local_client
from tests.dashboard.html_reading import PageReader
from tests.dashboard.room_examples import PATH, ROOMS, SCHEDULE, WORKER, a_schedule, a_worker
from tests.dashboard.test_api import ODD_NAMES
from tests.support import until

HERE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3"}, environ={})


@pytest.fixture
def client(config: Config) -> Iterator[Client]:
    made = Client(config)
    yield made
    made.close()


@pytest.fixture
def site(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("mrq_dashboard.actions.workers._PATIENCE", 0.1)
    app = create_dashboard(config)
    with local_client(app, headers=HERE) as made:
        yield made


def done(answer: Any) -> dict[str, Any]:
    """The answer of a request that must succeed."""
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    return value


def refused(answer: Any, status: int) -> str:
    """The message of a request that must fail."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


# --- queues -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_queue_with_any_name_is_paused_and_resumed(name: str, site: TestClient, client: Client) -> None:
    assert done(site.post("/api/queue/pause", json={"name": name}))["name"] == name
    assert client.broker.rules().queues.keys() == {name}
    assert done(site.post("/api/queue/resume", json={"name": name}))["resumed"] is True
    assert client.broker.rules().queues == {}


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name not in ("..", "a?b=c&d#e%2f")])
def test_the_path_may_name_the_queue(name: str, site: TestClient, client: Client) -> None:
    # A path cannot contain `..`, and the test client decodes a path twice.
    path = f"/api/queues/{quote(name, safe='')}"
    for number in range(3):
        client.queue_job("a.B", {"n": number}, queue=name)
    assert done(site.post(f"{path}/pause"))["name"] == name
    assert client.broker.rules().queues.keys() == {name}
    assert done(site.post(f"{path}/move", json={"to": "elsewhere"}))["changed"] == 3
    client.queue_job("a.B", queue=name)
    assert done(site.post(f"{path}/purge"))["changed"] == 1
    assert client.broker.counts(["elsewhere"])[0].waiting == 3
    assert "expected one of them" in refused(site.post(f"{path}/pause", json={"name": "other"}), 400)


def test_a_pause_ends_at_a_time_or_after_a_duration(site: TestClient, client: Client) -> None:
    said = done(site.post("/api/queue/pause", json={"name": "q", "until": "2040-01-31T12:00+02:00"}))
    assert said["message"] == "The queue q is paused until 2040-01-31 10:00:00 UTC"
    until = client.broker.rules().queues["q"].until
    assert until is not None
    assert abs((until - datetime(2040, 1, 31, 10, tzinfo=UTC)).total_seconds()) < 1
    site.post("/api/queue/pause", json={"name": "q", "duration": "15m"})
    until = client.broker.rules().queues["q"].until
    assert until is not None
    assert 890 < (until - client.broker.now()).total_seconds() <= 900


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "name is missing"),
        ({"name": ""}, "name is missing"),
        ({"name": "x" * 201}, "expected a name of 1 to 200"),
        ({"name": "a\0"}, "without NUL"),
        ({"name": 7}, "Expected `str`"),
        ({"name": ["q"]}, "Expected `str`"),
        ({"name": "q", "until": "soon"}, "expected a time such as"),
        ({"name": "q", "until": "2001-01-01"}, "expected a time in the future"),
        ({"name": "q", "until": "9999-01-01"}, "about thirty years"),
        ({"name": "q", "duration": "soon"}, "expected a duration"),
        ({"name": "q", "duration": "0s"}, "expected a duration"),
        ({"name": "q", "duration": "9" * 90 + "d"}, "expected a duration"),
        ({"name": "q", "duration": "1h", "until": "2040-01-01"}, "one end"),
        ({"name": "q", "utnil": "2040-01-01"}, "unknown field"),
    ],
)
def test_a_pause_that_makes_no_sense_is_refused(
    inputs: dict[str, Any], text: str, site: TestClient, client: Client
) -> None:
    assert text in refused(site.post("/api/queue/pause", json=inputs), 400)
    assert client.broker.rules().queues == {}
    assert read_audit(client.broker)[0] == []


def test_who_resumes_a_part_of_a_paused_tree_is_told(site: TestClient) -> None:
    site.post("/api/queue/pause", json={"name": "mail/"})
    said = done(site.post("/api/queue/resume", json={"name": "mail/fast"}))
    assert said["resumed"] is False
    assert "was not paused itself, but is part of the paused tree mail/" in said["message"]


@pytest.mark.parametrize("page", ["/queues", "/queues?name=mail/a", "/jobs/{id}", "/"])
def test_a_queue_that_is_paused_with_its_tree_offers_to_resume_the_tree(
    page: str, site: TestClient, client: Client
) -> None:
    old = after(client.broker.now(), -300.0)
    job_id = scenes.put(client.broker, "mail/a", due_at=old)
    pause_queues(client.broker, ["mail/"])
    address = page.format(id=job_id)
    text = site.get(address).text
    form = next(one for one in text.split("<form")[1:] if "/queue/resume" in one)
    assert 'name="name" value="mail/"' in form
    assert "Resume the tree mail/" in form
    data = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.partition("</form>")[0]))
    assert "The tree mail/ is resumed" in site.post("/queue/resume", data=data, headers=HERE).text
    assert client.broker.rules().queues == {}
    assert "Resume" not in site.get(address).text
    pause_queues(client.broker, ["mail/", "mail/a"])
    assert 'name="name" value="mail/a"' in site.get("/queues").text


def test_a_job_of_a_paused_task_offers_to_resume_the_task(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail", PATH)
    site.post("/task/pause", data={"path": PATH})
    text = site.get(f"/jobs/{job_id}").text
    form = next(one for one in text.split("<form")[1:] if "/task/resume" in one)
    data = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.partition("</form>")[0]))
    assert data["path"] == PATH
    assert f"The task {PATH} is resumed" in site.post("/task/resume", data=data).text
    assert client.broker.rules().tasks == {}


def test_a_purge_asks_with_the_numbers_first(site: TestClient, client: Client) -> None:
    client.queue_jobs("a.B", [{"n": number} for number in range(204)], queue="mail")
    scenes.take(client.broker, "mail")
    page = PageReader(site.get("/queue/purge", params={"name": "mail"}).text)
    assert "Remove 203 jobs" in page.text
    assert "cannot be undone" in page.text
    said = done(site.post("/api/queue/purge", json={"name": "mail"}))
    assert said == {
        "message": "203 jobs removed from queue mail",
        "name": "mail",
        "changed": 203,
        "left": 0,
        "waiting": 0,
        "complete": True,
    }
    [entry] = read_audit(client.broker)[0]
    assert (entry.action, entry.target, entry.counts) == ("purge queue", "mail", {"changed": 203})
    assert "Nothing waits here" in site.get("/queue/purge", params={"name": "mail"}).text


@pytest.mark.parametrize("verb", ["purge", "move"])
def test_many_jobs_are_changed_by_and_by(verb: str, site: TestClient, client: Client) -> None:
    name = "a* b/?"
    client.queue_jobs("a.B", [{"n": number} for number in range(2100)], queue=name)
    client.queue_job("a.B", queue="a1 b/2")
    answer = site.post(f"/api/queue/{verb}", json={"name": name, **({"to": "z"} if verb == "move" else {})})
    assert answer.status_code == 202, answer.text
    assert answer.json()["bulk"]["id"]
    until(lambda: client.broker.counts([name])[0].waiting == 0, what="the bulk action")
    assert client.broker.counts(["a1 b/2"])[0].waiting == 1
    assert client.broker.counts(["z"])[0].waiting == (2100 if verb == "move" else 0)


def test_a_raw_queue_is_purged_and_not_moved(site: TestClient, client: Client) -> None:
    client.broker.raw("in_raw").push([RawItem(param=f"p{n}") for n in range(7)])
    assert "Remove 7 parameters" in site.get("/queue/purge", params={"name": "in_raw"}).text
    assert "holds parameters" in refused(
        site.post("/api/queue/move", json={"name": "in_raw", "to": "x"}), 400
    )
    assert done(site.post("/api/queue/purge", json={"name": "in_raw"}))["changed"] == 7


def test_why_a_queue_stands_still_is_found_in_one_click_and_mended_in_two(
    site: TestClient, client: Client
) -> None:
    scenes.bad_day(client)
    overview = PageReader(site.get("/").text)
    assert "/queues?name=reports%2Fdaily" in overview.links
    first = PageReader(site.get("/queues?name=reports%2Fdaily").text)  # the first click
    assert "paused" in first.text
    assert "reports/" in first.text
    [form] = [at for tag, at in first.elements if tag == "form" and at.get("action") == "/queue/resume"]
    values = [at["value"] for tag, at in first.elements if tag == "input" and at.get("name") == "name"]
    assert form["method"] == "post"
    assert values == ["reports/"]
    second = site.post("/queue/resume", data={"name": values[0], "_back": "/queues?name=reports/daily"})
    assert "The tree reports/ is resumed" in second.text
    assert "reports/" not in client.broker.rules().queues


@pytest.mark.parametrize("role", ["read", "operate", "write"])
def test_a_page_shows_the_actions_that_its_visitor_may_do(role: str, config: Config, client: Client) -> None:
    a_schedule(client)
    a_worker(client)
    set_limit(client.broker, "api", concurrency=1)
    client.queue_job(PATH, queue="q")
    allowed = {"read": 0, "operate": 1, "write": 2}[role]
    verbs = {
        "/queues?name=q": ({"/queue/pause", "/queue/move"}, {"/queue/purge"}),
        f"/schedules?name={quote(SCHEDULE)}": (
            {"/schedule/run", "/schedule/pause"},
            {"/schedule/edit", "/schedule/backfill", "/schedule/delete"},
        ),
        f"/tasks/{PATH}": ({"/task/pause"}, {"/task/queue"}),
        f"/workers/{WORKER}": ({"/worker/stop", "/worker/drain", "/worker/profile"}, set()),
        "/limits": (set(), {"/limit/set", "/limit/remove"}),
        "/queues": ({"/queue/pause"}, set()),
        "/schedules": ({"/schedule/run"}, {"/schedule/add"}),
        "/workers": ({"/worker/drain"}, set()),
        "/tasks": (set(), {"/task/queue"}),
    }
    with local_client(create_dashboard(config, authorize=lambda request: role)) as site:
        for path, (operate, write) in verbs.items():
            answer = site.get(path)
            assert answer.status_code == 200, path
            page = PageReader(answer.text)
            leading = [at for tag, at in page.elements if tag in ("a", "form")]
            found = {at.get("href", at.get("action", "")).partition("?")[0] for at in leading}
            found &= {one.path for one in ENDPOINTS if one.role > Role.READ}
            assert found == (set(), operate, operate | write)[allowed], path


# --- bodies ------------------------------------------------------------------------------------


BODIES = (b"[]", b'"x"', b"7", b"null", b"{", b"\xff", b"[" * 100_000)


def test_a_body_that_is_no_object_is_refused(site: TestClient, client: Client) -> None:
    for path in ROOMS:
        for body in BODIES:
            answer = site.post(f"/api{path}", content=body, headers={"content-type": "application/json"})
            message = refused(answer, 400)
            assert any(text in message for text in ("Expected `object`", "not valid JSON", "nested more"))
    assert read_audit(client.broker)[0] == []


@pytest.mark.parametrize("path", ["/queue/pause", "/schedule/add", "/task/queue"])
def test_a_body_of_ten_megabytes_is_refused(path: str, site: TestClient) -> None:
    assert site.post(f"/api{path}", json={"name": "x" * 10_000_000}).status_code == 413
    assert site.post(path, data={"name": "x" * 10_000_000}).status_code == 413


def test_an_unknown_thing_is_refused_and_nothing_is_made(site: TestClient, client: Client) -> None:
    need_not_exist = ("/queue/", "/task/", "/limit/set", "/schedule/add")
    for path in [path for path in ROOMS if not path.startswith(need_not_exist)]:
        inputs = {**ROOMS[path][0], "name": "<b>nothing</b>"}
        assert "<b>nothing</b>" in refused(site.post(f"/api{path}", json=inputs), 404)
        page = site.post(path, data=inputs)
        assert page.status_code == 404
        assert PageReader(page.text).dangers() == []
    assert list_schedules(client.broker) == []
    assert list_limits(client.broker) == []


# --- forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(ROOMS))
def test_each_form_has_no_dangers_and_leads_to_its_action(
    path: str, site: TestClient, client: Client
) -> None:
    inputs, make = ROOMS[path]
    make(client)
    key = "path" if path.startswith("/task") else "name"
    answer = site.get(path, params={key: inputs[key]} if path != "/schedule/add" else {})
    if answer.status_code == 405:
        return  # acts without confirmation
    page = PageReader(answer.text)
    assert answer.status_code == 200
    assert page.dangers() == []
    assert ("form", path) in [(tag, attributes.get("action")) for tag, attributes in page.elements]


def test_a_refused_form_keeps_what_was_typed_and_says_what_is_wrong_at_its_field(site: TestClient) -> None:
    answer = site.post("/queue/pause", data={"name": "q", "duration": "soon <b>", "_back": "/queues?name=q"})
    assert answer.status_code == 400
    page = PageReader(answer.text)
    inputs = {attributes["name"]: attributes for tag, attributes in page.elements if tag == "input"}
    assert inputs["duration"]["value"] == "soon <b>"
    assert inputs["duration"]["aria-invalid"] == "true"
    assert "aria-invalid" not in inputs["until"]
    assert inputs["name"]["value"] == "q"
    assert inputs["_back"]["value"] == "/queues?name=q"
    described = inputs["duration"]["aria-describedby"].split()[0]
    assert any(attributes.get("id") == described for tag, attributes in page.elements)
    assert "expected a duration above 0, such as 30s" in page.text
    assert page.dangers() == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("/limit/set", {"name": "api", "rate": "fast"}, "rate is 'fast': expected a number"),
        ("/limit/set", {"name": "api", "rate": "0"}, "rate is '0': expected a number above 0"),
        (
            "/limit/set",
            {"name": "api", "concurrency": "1.5"},
            "'1.5': expected a whole number",
        ),
        ("/limit/set", {"name": "api", "concurrency": "-1"}, "'-1': expected a whole number of at least 0"),
        ("/limit/set", {"name": "api", "per": "1" * 30}, "expected a duration above 0"),
        ("/worker/stop", {"name": "w", "now": "perhaps"}, "now is 'perhaps': expected true or false"),
        (
            "/queue/pause",
            {"name": "q", "until": "2020-01-31T12:00"},
            "until is 2020-01-31 12:00:00 UTC: expected",
        ),
    ],
)
def test_a_wrong_text_is_told_in_words(path: str, value: dict[str, str], said: str, site: TestClient) -> None:
    answer = site.post(path, data=value, headers={"x-fragment": "1"})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_refused_form_without_a_wrong_field_shows_the_problem(site: TestClient, client: Client) -> None:
    a_schedule(client)
    answer = site.post("/schedule/edit", data={"name": SCHEDULE, "path": PATH, "interval": "9m", "seen": "x"})
    assert answer.status_code == 409
    assert "changed since you opened it" in PageReader(answer.text).text
    assert 'value="9m"' in answer.text


# --- tasks -------------------------------------------------------------------------------------


@task
def charge(user_id: int, note: str = "x", mode: Literal["fast", "slow"] = "slow", loud: bool = False) -> None:
    """Charges a user."""


def publish(client: Client) -> None:
    options = {
        PATH: {"queue": "pay", "priority": 2, "at_most_once": True, "limits": {"u:{user_id}": Limit(rate=1)}}
    }
    config = load_config({"tasks": options}, environ={})
    loaded = resolve_options(PATH, charge.task_class, config)
    publish_task(client.broker, describe(loaded, evaluates=True))


def test_a_job_is_queued_from_the_form_of_its_task(site: TestClient, client: Client) -> None:
    publish(client)
    page = PageReader(site.get("/task/queue", params={"path": PATH}).text)
    names = [attributes.get("name") for tag, attributes in page.elements if tag in ("input", "select")]
    assert {"argument.user_id", "argument.note", "argument.mode", "argument.loud", "queue"} <= set(names)
    form = {"path": PATH, "argument.user_id": str(2**63 - 1), "argument.mode": '"fast"', "argument.note": ""}
    answer = site.post("/task/queue", data=form)
    assert answer.history[0].status_code == 303
    job_id = answer.url.path.rpartition("/")[2]
    record = client.fetch(job_id)
    assert record.params == {"user_id": 2**63 - 1, "mode": "fast"}
    assert (record.queue, record.priority, record.at_most_once) == ("pay", 2, True)
    assert record.limit_keys == (f"u:{2**63 - 1}",)
    assert f"A job of {PATH} is queued" in answer.text


@pytest.mark.parametrize(
    ("form", "field", "text"),
    [
        ({}, "argument.user_id", "is missing: expected int"),
        ({"argument.user_id": "seven"}, "argument.user_id", "expected a number"),
        ({"argument.user_id": "7.5"}, "argument.user_id", "expected int"),
        ({"argument.user_id": "7", "queue": "in_raw"}, "queue", "is a raw queue"),
        ({"argument.user_id": "7", "priority": "9"}, "priority", "expected a whole number of at most 4"),
        ({"argument.user_id": "7", "delay": "soon"}, "delay", "expected a duration"),
    ],
)
def test_a_form_of_a_task_with_a_wrong_field(
    form: dict[str, str], field: str, text: str, site: TestClient, client: Client
) -> None:
    publish(client)
    answer = site.post("/task/queue", data={"path": PATH, **form})
    assert answer.status_code == 400
    assert text in answer.text
    wrong = [at.get("name") for _, at in PageReader(answer.text).elements if "aria-invalid" in at]
    assert wrong == [field]
    assert client.broker.totals().by_status() == {}


@pytest.mark.parametrize(
    ("inputs", "status", "text"),
    [
        ({"params": {"user_id": "7"}}, 400, "expected int"),
        ({"params": {"user_id": 7, "usr": 1}}, 400, "no argument 'usr'"),
        ({"params": "[1]"}, 400, "expected a JSON object"),
        ({"params": "{"}, 400, "not valid JSON"),
        ({"params": {"user_id": 7}, "delay": "1h", "at": "2040-01-01"}, 400, "expected one of them"),
        ({"params": {"user_id": 2**64}}, 400, "64"),
        ({"params": {"user_id": 7, "note": "x" * 1_200_000}}, 400, "more than 1,048,576 bytes"),
        ({"path": "no path", "params": {}}, 400, "path"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(
    inputs: dict[str, Any], status: int, text: str, site: TestClient, client: Client
) -> None:
    publish(client)
    assert text in refused(site.post("/api/task/queue", json={"path": PATH, **inputs}), status)
    assert client.broker.totals().by_status() == {}


def test_a_task_that_no_worker_has_published_takes_any_params(site: TestClient, client: Client) -> None:
    said = done(site.post("/api/tasks/not.here.Known/queue", json={"params": {"n": 2**63 - 1}, "queue": "q"}))
    record = client.fetch(said["id"])
    assert (record.path, record.params, record.queue) == ("not.here.Known", {"n": 2**63 - 1}, "q")


# --- schedules ---------------------------------------------------------------------------------


def test_a_schedule_is_added_changed_and_deleted(site: TestClient, client: Client) -> None:
    form = {"path": PATH, "name": SCHEDULE, "interval": "15m", "params": '{"password": "abc", "n": 1}'}
    assert site.post("/schedule/add", data=form).url.params["name"] == SCHEDULE
    stored = find_schedule(client.broker, SCHEDULE)
    assert (stored.definition.interval, stored.source) == (900.0, "person")
    assert "there is a schedule" in refused(site.post("/api/schedule/add", json=form), 400)

    page = PageReader(site.get("/schedule/edit", params={"name": SCHEDULE}).text)
    inputs = {at["name"]: at["value"] for tag, at in page.elements if tag == "input" and "value" in at}
    assert inputs["interval"] == "15m"
    assert "abc" not in page.text
    sent = {**inputs, "params": '{"password": "***", "n": 2}', "interval": "", "dailytime": "08:30"}
    assert site.post("/schedule/edit", data=sent).history[0].status_code == 303
    definition = find_schedule(client.broker, SCHEDULE).definition
    assert (definition.interval, definition.dailytime) == (None, "08:30")
    assert definition.params == {"password": "abc", "n": 2}

    assert done(site.post("/api/schedule/delete", json={"name": SCHEDULE}))["changed"] is True
    assert list_schedules(client.broker) == []
    assert site.post("/api/schedule/delete", json={"name": SCHEDULE}).status_code == 404


def test_of_two_people_who_change_a_schedule_the_second_is_told(site: TestClient, client: Client) -> None:
    a_schedule(client)
    forms = []
    for _ in range(2):
        page = PageReader(site.get("/schedule/edit", params={"name": SCHEDULE}).text)
        forms.append(
            {at["name"]: at["value"] for tag, at in page.elements if tag == "input" and "value" in at}
        )
    first = site.post("/schedule/edit", data={**forms[0], "interval": "1h", "queue": "one"})
    assert first.history[0].status_code == 303
    second = site.post("/schedule/edit", data={**forms[1], "queue": "two"})
    assert second.status_code == 409
    assert "changed since you opened it" in second.text
    assert find_schedule(client.broker, SCHEDULE).definition.queue == "one"


@pytest.mark.parametrize(
    ("inputs", "path", "text"),
    [
        ({}, "interval", "one of interval, cron and dailytime"),
        ({"interval": "soon"}, "interval", "expected a duration"),
        ({"interval": 0.1}, "interval", "expected seconds"),
        ({"interval": "1h", "cron": "* * * * *"}, "interval", "interval and cron"),
        ({"cron": "99 * * * *"}, "cron", "cron"),
        ({"dailytime": "25:00"}, "dailytime", "expected a time of day"),
        ({"dailytime": "08:30", "weekday": 9}, "weekday", "from 0 to 6"),
        ({"interval": "1h", "timezone": "Mars/Base"}, "timezone", "Mars"),
        ({"interval": "1h", "overlap": "maybe"}, "overlap", "expected one of"),
        ({"interval": "1h", "params": "[1]"}, "params", "expected a JSON object"),
        ({"interval": "1h", "name": " x "}, "name", "printable"),
        ({"interval": "1h", "exclude": "2026-13-01"}, "exclude", "expected dates"),
        ({"interval": "1h", "start": "soon"}, "start", "expected a datetime"),
        ({"interval": "1h", "end": "2001-01-01"}, "end", "which is past"),
        ({"interval": "1h", "queue": "in_raw"}, "queue", "raw queue"),
        ({"interval": "1h", "path": "no path"}, "path", "path"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(
    inputs: dict[str, Any], path: str, text: str, site: TestClient, client: Client
) -> None:
    answer = site.post("/api/schedule/add", json={"path": PATH, **inputs})
    assert text in refused(answer, 400)
    assert answer.json()["error"]["path"] == path
    assert list_schedules(client.broker) == []


def test_a_schedule_runs_pauses_and_resumes(site: TestClient, client: Client) -> None:
    a_schedule(client)
    path = f"/api/schedules/{quote(SCHEDULE, safe='')}"
    job_id = done(site.post(f"{path}/run"))["id"]
    assert client.fetch(job_id).schedule == SCHEDULE
    assert done(site.post(f"{path}/pause", json={"why": "stock-taking"}))["changed"] is True
    assert done(site.post(f"{path}/pause"))["changed"] is False
    assert find_schedule(client.broker, SCHEDULE).pause_reason == "stock-taking"
    assert done(site.post(f"{path}/resume"))["changed"] is True
    assert find_schedule(client.broker, SCHEDULE).paused_at is None


def test_jobs_of_a_schedule_have_the_options_that_workers_have_published(
    site: TestClient, client: Client
) -> None:
    publish(client)
    schedule = {"path": PATH, "name": SCHEDULE, "cron": "0 * * * *", "params": {"user_id": 7}}
    done(site.post("/api/schedule/add", json=schedule))
    done(site.post("/api/schedule/run", json={"name": SCHEDULE}))
    done(site.post("/api/schedule/backfill", json={"name": SCHEDULE, "start": "2h"}))
    records = client.broker.find(JobFilter(schedules=(SCHEDULE,))).records
    assert len(records) == 3
    assert {(one.queue, one.at_most_once, one.limit_keys) for one in records} == {("pay", True, ("u:7",))}


def test_the_path_alone_names_the_schedule_that_changes(site: TestClient) -> None:
    done(site.post("/api/schedule/add", json={"path": PATH, "name": SCHEDULE, "interval": 60}))
    path = f"/api/schedules/{quote(SCHEDULE, safe='')}/edit"
    assert done(site.post(path, json={"path": PATH, "interval": 90}))["options"]["interval"] == 90
    other = {"path": PATH, "interval": 90, "name": "other"}
    assert "expected one of them" in refused(site.post(path, json=other), 400)


def test_a_run_that_the_overlap_policy_forbids_is_told(site: TestClient, client: Client) -> None:
    done(site.post("/api/schedule/add", json={"path": PATH, "name": "s", "interval": 60, "overlap": "skip"}))
    first = done(site.post("/api/schedule/run", json={"name": "s"}))
    second = done(site.post("/api/schedule/run", json={"name": "s"}))
    assert (first["created"], second["created"], second["id"]) == (True, False, first["id"])
    assert "keeps the job" in second["message"]


def test_a_backfill_queues_past_fires_once(site: TestClient, client: Client) -> None:
    done(site.post("/api/schedule/add", json={"path": PATH, "name": SCHEDULE, "cron": "0 * * * *"}))
    inputs = {"name": SCHEDULE, "start": "5h"}
    assert done(site.post("/api/schedule/backfill", json=inputs))["queued"] == 5
    again = done(site.post("/api/schedule/backfill", json={**inputs, "end": "1h"}))
    assert (again["queued"], again["known"]) == (0, 4)
    for wrong, text in (
        ({"start": "5h", "end": "6h"}, "expected a beginning before the end"),
        ({"start": "500w"}, "expected at most 10,000"),
        ({"start": "x"}, "expected a time"),
        ({"start": "1h", "end": "2040-01-01"}, "an end that is past"),
    ):
        assert text in refused(site.post("/api/schedule/backfill", json={"name": SCHEDULE, **wrong}), 400)


def test_a_schedule_of_a_config_says_that_the_config_wins(site: TestClient, client: Client) -> None:
    sync_schedules(client.broker, [definition_from({"path": PATH, "name": "c", "interval": 60})])
    assert "The config defines this schedule" in site.get("/schedule/edit", params={"name": "c"}).text
    assert "delete it there, too" in done(site.post("/api/schedule/delete", json={"name": "c"}))["message"]
    assert done(site.post("/api/schedule/resume", json={"name": "c"}))["changed"] is True


# --- workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "inputs", "kind", "args"),
    [
        ("stop", {}, "stop", {}),
        ("stop", {"now": True}, "stop", {"now": True}),
        ("drain", {}, "drain", {}),
        ("profile", {"task": PATH}, "profile", {"task": PATH}),
    ],
)
def test_a_request_reaches_its_worker(
    path: str, inputs: dict[str, Any], kind: str, args: dict[str, Any], site: TestClient, client: Client
) -> None:
    a_worker(client)
    said = done(site.post(f"/api/workers/{WORKER}/{path}", json=inputs))
    [request] = client.broker.poll(WORKER, Versions()).requests
    assert (request.kind, dict(request.args)) == (kind, args)
    if kind != "profile":
        assert said["answered"] is False
        assert "has not answered so far" in said["message"]


def test_the_answer_of_a_worker_is_told(
    site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_worker(client)

    def answer(seconds: float) -> None:
        for request in client.broker.poll(WORKER, Versions()).requests:
            store_answer(client.broker, request.id, "done", "it finishes its jobs <b>")

    monkeypatch.setattr(
        "mrq_core.operations.requests.time", SimpleNamespace(monotonic=time.monotonic, sleep=answer)
    )
    monkeypatch.setattr("mrq_dashboard.actions.workers._PATIENCE", 10.0)
    page = site.post("/worker/drain", data={"name": WORKER, "_back": "/workers"})
    assert "it finishes its jobs &lt;b&gt;" in page.text


@pytest.mark.parametrize("verb", ["stop", "drain", "profile"])
def test_a_worker_that_has_stopped_or_is_unknown_is_refused(
    verb: str, site: TestClient, client: Client
) -> None:
    scenes.report(client.broker, "gone.host.2", status="stop")
    inputs = {"task": PATH} if verb == "profile" else {}
    assert site.post(f"/api/workers/unknown/{verb}", json=inputs).status_code == 404
    assert "did you mean gone.host.2?" in refused(
        site.post(f"/api/workers/gone.host.3/{verb}", json=inputs), 404
    )
    assert "has stopped" in refused(site.post(f"/api/workers/gone.host.2/{verb}", json=inputs), 409)


def test_the_log_and_the_stacks_of_a_worker_are_shown(
    site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_worker(client)
    assert site.get("/api/worker/log", params={"name": WORKER}).json()["text"] is None
    page = site.get("/worker/log", params={"name": WORKER})
    assert "has not answered so far" in page.text
    assert page.headers["refresh"] == "2"
    here = [at["href"] for _, at in PageReader(page.text).elements if at.get("aria-current") == "page"]
    assert here == ["/workers"]

    def answer(seconds: float) -> None:
        for request in client.broker.poll(WORKER, Versions()).requests:
            store_answer(client.broker, request.id, "done", f"{request.kind}: <script>alert(1)</script>")

    monkeypatch.setattr(
        "mrq_core.operations.requests.time", SimpleNamespace(monotonic=time.monotonic, sleep=answer)
    )
    for kind in ("log", "stack"):
        said = done(site.get(f"/api/worker/{kind}", params={"name": WORKER}))
        assert said == {"worker": WORKER, "text": f"{kind}: <script>alert(1)</script>"}
        page = site.get(f"/worker/{kind}", params={"name": WORKER})
        assert f"{kind}: &lt;script&gt;" in page.text
        assert PageReader(page.text).dangers() == []
    assert site.get("/worker/log", params={"name": "unknown"}).status_code == 404


def test_a_profile_is_shown_when_it_is_there(site: TestClient, client: Client) -> None:
    a_worker(client)
    page = site.post("/worker/profile", data={"name": WORKER, "task": PATH})
    assert page.url.path == "/worker/answer"
    assert page.headers["refresh"] == "2"
    [request] = client.broker.poll(WORKER, Versions()).requests
    store_answer(client.broker, request.id, "done", "total running <b>")
    page = site.get(page.url)
    assert "total running &lt;b&gt;" in page.text
    assert "refresh" not in page.headers
    said = done(site.get("/api/worker/answer", params={"request": request.id}))
    assert (said["state"], said["text"]) == ("done", "total running <b>")
    assert site.get("/api/worker/answer", params={"request": "x"}).status_code == 400


# --- limits ------------------------------------------------------------------------------------


def test_a_limit_is_changed_live_and_removed(site: TestClient, client: Client) -> None:
    publish_limits(client.broker, {"api": Limit(concurrency=2)})
    page = PageReader(site.get("/limit/set", params={"name": "api"}).text)
    assert "It replaces the limit of the task" in page.text
    assert ("concurrency", "2") in [(at.get("name"), at.get("value")) for _, at in page.elements]
    sent = {"name": "api", "concurrency": "7", "rate": "1.5", "per": "1m"}
    answer = site.post("/limit/set", data={**sent, "_back": "/limits"})
    assert "The limit api is 7 at once, 1.5 per minute" in answer.text
    rule = find_limit(client.broker, "api")
    assert rule is not None
    assert (rule.limit, rule.source) == (Limit(concurrency=7, rate=1.5, per=60.0), "person")
    done(site.post("/api/limit/remove", json={"name": "api"}))
    assert find_limit(client.broker, "api") is None
    assert site.post("/api/limit/remove", json={"name": "api"}).status_code == 404


@pytest.mark.parametrize(
    "inputs",
    [
        {"name": "x"},
        {"name": "", "concurrency": 1},
        {"name": "a:b", "concurrency": 1},
        {"name": "x", "concurrency": -1},
        {"name": "x", "concurrency": 1.5},
        {"name": "x", "concurrency": 2**70},
        {"name": "x", "rate": 0},
        {"name": "x", "rate": 1, "per": "soon"},
        {"name": "x", "rate": 1, "per": "0s"},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    inputs: dict[str, Any], site: TestClient, client: Client
) -> None:
    refused(site.post("/api/limit/set", json=inputs), 400)
    assert list_limits(client.broker) == []


def test_of_two_people_who_set_a_limit_the_last_wins_and_both_are_audited(
    site: TestClient, client: Client
) -> None:
    set_limit(client.broker, "api", concurrency=1)
    for number in (5, 6):
        done(site.post("/api/limit/set", json={"name": "api", "concurrency": number}))
    assert [entry.target for entry in read_audit(client.broker)[0]] == ["api: 6 at once", "api: 5 at once"]


def test_the_keys_at_their_limit_are_listed_with_their_holders(site: TestClient, client: Client) -> None:
    named = scenes.bad_day(client)
    said = done(site.get("/api/limits/keys"))
    found = {one["key"]: one for one in said["keys"]}["partner:acme"]
    assert (found["full"], found["running"], found["parked"]) == (True, 2, 5)
    assert named["holder"] in found["holders"]
    assert named["parked"] in found["waiters"]
    assert found["rule"]["concurrency"] == 2
    assert said["complete"] is True


# --- odd names -----------------------------------------------------------------------------------


REORDERED = "x \u202e\u200b'gnp.exe\u061c\\"


def sent_as_it_is(site: TestClient, address: str, **more: str) -> str:
    """Sends the form of a page as a browser does, and returns the text of the next page."""
    page = PageReader(site.get(address).text)
    [form] = [at for tag, at in page.elements if tag == "form" and at.get("method") == "post"]
    data = {at["name"]: at.get("value", "") for tag, at in page.elements if tag == "input" and at.get("name")}
    data.pop("q", None)
    return site.post(form["action"], data={**data, **more}).text


def test_a_name_that_reorders_text_is_shown_with_escapes_and_acted_on(
    site: TestClient, client: Client
) -> None:
    scenes.put(client.broker, REORDERED, "a.B")
    address = f"/queue/pause?name={quote(REORDERED)}"
    assert "\\u202e" in PageReader(site.get(address).text).text
    assert "is paused" in sent_as_it_is(site, address)
    assert REORDERED in client.broker.rules().queues
    listed = site.get("/queues").text.partition("<main")[2]
    assert f'name="name" value="{escape(REORDERED)}"' in listed
    text = site.post("/queue/resume", data={"name": REORDERED}).text
    assert "is resumed" in text
    asked = f"/jobs/bulk/new?action=cancel&all=true&q={quote(f'queue:{quoted_value(REORDERED)}')}"
    assert "1 job cancelled" in sent_as_it_is(site, asked)


@pytest.mark.parametrize("text", ["a b", REORDERED, "it's $(id) `id`", "\u2028\x01f", "-x\ty"])
def test_a_command_has_exactly_its_names(text: str) -> None:
    said = subprocess.run(
        ["bash", "-c", f"printf %s {in_shell(text)}"],
        capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True,
    )  # fmt: skip
    assert said.stdout.decode() == text
    assert in_shell(text).isprintable()
