"""Each action: who may ask for it, that it is done once, audited, and told to the visitor who asked."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.bulk.bulk_actions import begin_bulk, list_bulks
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.saved_views import save_view, saved_views
from mrq_core.operations.receipts import ABANDONED, RECEIPTS_NAMESPACE
from mrq_dashboard.app import ENDPOINTS
from mrq_dashboard.auth import Role, Visitor
from mrq_dashboard.endpoint import Endpoint
from mrq_dashboard.guard import API
from tests.dashboard import scenes
from tests.dashboard.conftest import MakeSite
from tests.dashboard.room_examples import ROOMS

HERE = {"sec-fetch-site": "same-origin"}
ELSEWHERE = {"sec-fetch-site": "cross-site", "origin": "http://evil.example"}
VIEW = {"name": "broken", "query": "status:failed"}
ACTIONS = [one for one in ENDPOINTS if one.is_action]


class Example(NamedTuple):
    """Valid inputs of an action. `make` prepares the broker and returns the variable parts of the path."""

    inputs: dict[str, Any]
    make: Callable[[Client], dict[str, str]]


def nothing(client: Client) -> dict[str, str]:
    return {}


def a_view(client: Client) -> dict[str, str]:
    save_view(client.broker, **VIEW)
    return {}


def a_failed_job(client: Client) -> dict[str, str]:
    job_id = scenes.put(client.broker, "mail")
    scenes.fail(client.broker, scenes.take(client.broker, "mail"))
    return {"id": job_id}


def a_waiting_job(client: Client) -> dict[str, str]:
    return {"id": scenes.put(client.broker, "mail")}


def a_bulk(client: Client) -> dict[str, str]:
    query = parse_query(client.broker, "status:failed")
    bulk = begin_bulk(client.broker, query, Requeue(), "anna", expected=1, is_counted=True)
    return {"id": bulk.id}


EXAMPLES: dict[str, Example] = {
    "/views": Example(VIEW, nothing),
    "/views/delete": Example({"name": "broken"}, a_view),
    **{path: Example(*example) for path, example in ROOMS.items()},
    "/jobs/bulk": Example({"action": "requeue", "query": "status:failed"}, a_failed_job),
    "/jobs/bulk/{id}/stop": Example({}, a_bulk),
    "/jobs/{id}/requeue": Example({}, a_failed_job),
    "/jobs/{id}/cancel": Example({}, a_failed_job),
    "/jobs/{id}/remove": Example({}, a_failed_job),
    "/jobs/{id}/rerun": Example({}, a_failed_job),
    "/jobs/{id}/move": Example({"queue": "fast"}, a_waiting_job),
    "/jobs/{id}/priority": Example({"priority": 3}, a_waiting_job),
    "/jobs/{id}/edit": Example({"params": '{"n": 2}'}, a_waiting_job),
}
"""By the path of the page's endpoint; the endpoint for programs is the same below /api."""


def example_of(endpoint: Endpoint) -> Example:
    path = endpoint.path.removeprefix(API.rstrip("/"))
    thing, has_name, verb = path.partition("s/{")  # /api/queues/{name:path}/pause is like /queue/pause
    if has_name and "}/" in verb and path not in EXAMPLES:
        path = f"{thing}/{verb.partition('}/')[2]}"
    assert path in EXAMPLES, f"add an example of {path} to EXAMPLES"
    return EXAMPLES[path]


def send(site: TestClient, client: Client, endpoint: Endpoint, headers: dict[str, str], **more: str) -> Any:
    return post(site, client, endpoint, example_of(endpoint), headers, **more)


def post(
    site: TestClient,
    client: Client,
    endpoint: Endpoint,
    example: Example,
    headers: dict[str, str],
    **more: str,
) -> Any:
    path = endpoint.path
    for name, value in example.make(client).items():
        path = path.replace(f"{{{name}}}", quote(value)).replace(f"{{{name}:path}}", quote(value))
    if endpoint.is_api:
        return site.post(path, json=example.inputs, headers=headers)
    return site.post(path, data={**example.inputs, **more}, headers=headers, follow_redirects=False)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker runs: an answer is not waited for."""
    monkeypatch.setattr("mrq_dashboard.actions.workers._PATIENCE", 0.1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One broker: what is tested here is the dashboard's own."""
    return load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3", "store": ""}, environ={})


def is_named(endpoint: Endpoint) -> str:
    return endpoint.path


@pytest.mark.parametrize("endpoint", ACTIONS, ids=is_named)
def test_an_action_says_what_it_has_done(endpoint: Endpoint) -> None:
    returns = inspect.signature(endpoint.answer, eval_str=True).return_annotation
    assert returns.__name__ == "Done"
    assert endpoint.role > Role.READ


@pytest.mark.parametrize("endpoint", ACTIONS, ids=is_named)
def test_an_action_refuses_strangers_other_sites_and_lower_roles(
    endpoint: Endpoint, site: TestClient, make_site: MakeSite, client: Client
) -> None:
    def entries() -> int:  # without the end of the bulk action of an example
        return sum(entry.who != "anna" for entry in read_audit(client.broker)[0])

    before = entries()
    strange = make_site(broker=client.broker, authorize=lambda request: None)
    assert send(strange, client, endpoint, HERE).status_code == 401
    low = make_site(broker=client.broker, authorize=lambda request: Role(endpoint.role - 1))
    assert send(low, client, endpoint, HERE).status_code == 403
    assert send(site, client, endpoint, ELSEWHERE).status_code == 403
    assert entries() == before


def durations_of(endpoint: Endpoint) -> list[str]:
    hints = get_type_hints(endpoint.inputs)
    return [name for name, hint in hints.items() if {float, str} <= {hint, *get_args(hint)}]


def test_numbers_of_seconds_may_be_words() -> None:
    numbers = {
        name
        for endpoint in ENDPOINTS
        for name, hint in get_type_hints(endpoint.inputs).items()
        if float in (hint, *get_args(hint)) and name not in durations_of(endpoint)
    }
    assert numbers == {"rate"}


WITH_DURATIONS = [(one, name) for one in ACTIONS for name in durations_of(one)]
INSTEAD = {"interval": {"cron", "dailytime"}, "duration": {"until"}}
"""Inputs of examples that a duration replaces."""


@pytest.mark.parametrize(("endpoint", "name"), WITH_DURATIONS, ids=lambda one: getattr(one, "path", one))
def test_a_duration_is_a_number_of_seconds_or_words(
    endpoint: Endpoint, name: str, site: TestClient, client: Client
) -> None:
    example = example_of(endpoint)
    kept = {key: value for key, value in example.inputs.items() if key not in INSTEAD.get(name, ())}
    more = {"rate": 3} if name == "per" else {}
    for given in ("1.5m", "90", *((90,) if endpoint.is_api else ()), "soon"):
        inputs = {**kept, **more, name: given}
        answer = post(site, client, endpoint, Example(inputs, example.make), HERE)
        assert (answer.status_code == 400) == (given == "soon" or "there is a schedule" in answer.text)
        assert ("expected a duration" in answer.text) == (given == "soon")


@pytest.mark.parametrize("endpoint", ACTIONS, ids=is_named)
def test_an_action_is_audited_and_logged(
    endpoint: Endpoint, make_site: MakeSite, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mrq.dashboard")
    site = make_site(broker=client.broker, authorize=lambda request: endpoint.role)
    answer = send(site, client, endpoint, HERE)
    assert answer.status_code in (200, 202) if endpoint.is_api else answer.status_code == 303, answer.text
    [entry] = [one for one in read_audit(client.broker)[0] if one.who == "anonymous"]
    assert entry.action
    assert entry.target
    said = f"dashboard.did who=anonymous action={entry.action} target="
    assert [text for text in caplog.messages if text.startswith(said)]
    if endpoint.is_api:
        assert answer.json()["message"]


# --- the notice ---------------------------------------------------------------------------------------


def test_the_next_page_says_what_was_done(site: TestClient) -> None:
    answer = site.post("/views", data=VIEW, headers=HERE)
    assert answer.history[0].status_code == 303
    assert "The query is saved as broken" in answer.text
    assert urlsplit(str(answer.url)).path == "/jobs"


def test_a_notice_is_for_the_visitor_who_acted(make_site: MakeSite, client: Client) -> None:
    names = iter(["anna", "anna", "ben"])
    site = make_site(
        broker=client.broker, authorize=lambda request: Visitor(name=next(names), role=Role.WRITE)
    )
    url = site.post("/views", data=VIEW, headers=HERE, follow_redirects=False).headers["location"]
    assert "is saved as" in site.get(url).text
    assert "is saved as" not in site.get(url).text


@pytest.mark.parametrize("done", ["", "x", "<b>", "a" * 32, "../..", "0" * 5000])
def test_an_address_cannot_forge_a_notice(done: str, site: TestClient) -> None:
    answer = site.get("/jobs", params={"_done": done})
    assert answer.status_code == 200
    assert 'class="notice"' not in answer.text


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "evil", "/a\nb", "/ü"],
)
def test_a_form_leads_back_to_pages_of_the_dashboard_only(
    back: str, site: TestClient, client: Client
) -> None:
    a_view(client)
    data = {"name": "broken", "_back": back}
    answer = site.post("/views/delete", data=data, headers=HERE, follow_redirects=False)
    assert urlsplit(answer.headers["location"]).path == "/"
    assert answer.headers["location"].startswith("/?_done=")


def test_a_form_leads_back_to_the_page_that_it_came_from(site: TestClient, client: Client) -> None:
    for sent, headers in (
        ({"_back": "/jobs?q=a+b&_done=x"}, {}),
        ({}, {"referer": "http://localhost/jobs?q=a+b"}),
    ):
        a_view(client)
        data = {"name": "broken", **sent}
        answer = site.post("/views/delete", data=data, headers={**HERE, **headers}, follow_redirects=False)
        parts = urlsplit(answer.headers["location"])
        assert (parts.path, parse_qs(parts.query)["q"]) == ("/jobs", ["a b"])
        assert len(parse_qs(parts.query)["_done"]) == 1


# --- once ---------------------------------------------------------------------------------------------


def test_a_form_that_is_sent_twice_acts_once(site: TestClient, client: Client) -> None:
    urls = set()
    for _ in range(2):
        data = {**VIEW, "_once": "key-of-the-form"}
        answer = site.post("/views", data=data, headers=HERE, follow_redirects=False)
        assert answer.status_code == 303
        urls.add(answer.headers["location"])
    assert len(urls) == 1
    assert len(read_audit(client.broker)[0]) == 1


def test_a_program_that_repeats_its_key_gets_the_same_answer(site: TestClient, client: Client) -> None:
    headers = {**HERE, "idempotency-key": "key-of-the-program"}
    first, second = (site.post("/api/views", json=VIEW, headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert len(read_audit(client.broker)[0]) == 1
    other = site.post("/api/views", json={**VIEW, "name": "other"}, headers=headers)
    assert other.status_code == 409
    assert "earlier request" in other.json()["error"]["message"]
    assert [view.name for view in saved_views(client.broker)] == ["broken"]


@pytest.mark.parametrize("key", ["short", "x" * 201, "two words of it"])
def test_a_malformed_key_is_refused(key: str, site: TestClient) -> None:
    answer = site.post("/api/views", json=VIEW, headers={**HERE, "idempotency-key": key})
    assert answer.status_code == 400
    assert "8 to 200" in answer.json()["error"]["message"]


def test_a_request_that_was_refused_may_be_sent_again(site: TestClient, client: Client) -> None:
    headers = {**HERE, "idempotency-key": "key-of-the-program"}
    assert site.post("/api/views/delete", json={"name": "broken"}, headers=headers).status_code == 404
    a_view(client)
    assert site.post("/api/views/delete", json={"name": "broken"}, headers=headers).status_code == 200


def test_a_request_whose_first_has_not_ended_is_refused(site: TestClient, client: Client) -> None:
    headers = {**HERE, "idempotency-key": "key-of-the-program"}
    site.post("/api/views", json=VIEW, headers=headers)
    [item] = client.broker.state.list(RECEIPTS_NAMESPACE)
    assert isinstance(item.value, dict)
    client.broker.state.put(RECEIPTS_NAMESPACE, item.name, {**item.value, "text": None})
    answer = site.post("/api/views", json=VIEW, headers=headers)
    assert answer.status_code == 409
    assert "has not ended" in answer.json()["error"]["message"]


def test_an_action_whose_process_died_may_be_repeated_after_a_minute(
    site: TestClient, client: Client
) -> None:
    headers = {**HERE, "idempotency-key": "key-of-the-program"}
    site.post("/api/views", json=VIEW, headers=headers)
    [item] = client.broker.state.list(RECEIPTS_NAMESPACE)
    assert isinstance(item.value, dict)
    for age, status in ((ABANDONED - 20, 409), (ABANDONED + 1, 200)):
        tried_at = (client.broker.now() - timedelta(seconds=age)).isoformat()
        value = {**item.value, "text": None, "tried_at": tried_at}
        client.broker.state.put(RECEIPTS_NAMESPACE, item.name, value)
        assert site.post("/api/views", json=VIEW, headers=headers).status_code == status


def again(site: TestClient, path: str, inputs: dict[str, Any]) -> int:
    headers = {**HERE, "idempotency-key": "key-of-the-program"}
    return site.post(path, json=inputs, headers=headers).status_code


def test_stars_are_no_secret_of_a_new_job(site: TestClient, client: Client) -> None:
    example = EXAMPLES["/task/queue"]
    example.make(client)
    before = client.broker.find(JobFilter(), limit=100).records
    answer = site.post(
        "/api/task/queue", json={**example.inputs, "params": {"password": "***"}}, headers=HERE
    )
    assert answer.status_code == 400
    assert "params.password is ***, which stands for no known secret" in answer.text
    assert client.broker.find(JobFilter(), limit=100).records == before


@pytest.mark.parametrize("path", ["/task/queue", "/jobs/{id}/rerun", "/schedule/run"])
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost answer", "error after it"])
def test_a_request_that_is_repeated_makes_one_job(
    path: str, is_lost: bool, site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = EXAMPLES[path]
    address = f"/api{path}".format(**example.make(client))
    before = {record.id for record in client.broker.find(JobFilter(), limit=100).records}
    real = Client.enqueue

    def lose(self: Client, jobs: Any) -> Any:
        real(self, jobs)
        raise BrokerUnavailable("no answer") if is_lost else RuntimeError("a plugin failed")

    monkeypatch.setattr(Client, "enqueue", lose)
    assert again(site, address, example.inputs) == (503 if is_lost else 500)
    assert len(client.broker.state.list(RECEIPTS_NAMESPACE)) == 1  # it has the time of the id
    monkeypatch.setattr(Client, "enqueue", real)
    assert again(site, address, example.inputs) == 200
    after = {record.id for record in client.broker.find(JobFilter(), limit=100).records}
    assert len(after - before) == 1


@pytest.mark.parametrize("module", ["bulk", "queues"])
def test_a_request_that_is_repeated_begins_one_bulk_action(
    module: str, site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = {"bulk": "/api/jobs/bulk", "queues": "/api/queue/purge"}[module]
    inputs = {"bulk": {"action": "cancel", "query": "queue:mail"}, "queues": {"name": "mail"}}[module]
    a_waiting_job(client)
    actions = f"mrq_dashboard.actions.{module}"
    monkeypatch.setattr(f"{actions}.change_if_few", lambda *ignored: None)
    with monkeypatch.context() as patch:
        patch.setattr(f"{actions}.bulk_view", lambda bulk: 1 / 0)
        assert again(site, path, inputs) == 500
    assert again(site, path, inputs) == 202
    assert len(list_bulks(client.broker)) == 1


def test_a_script_gets_the_address_of_the_next_page_or_the_error(site: TestClient) -> None:
    headers = {**HERE, "x-fragment": "1"}
    answer = site.post("/views", data=VIEW, headers=headers)
    assert answer.json()["url"].startswith("/jobs?q=status%3Afailed&_done=")
    refused = site.post("/views", data={"name": "x", "query": "nonsense:1"}, headers=headers)
    assert refused.status_code == 400
    assert "nonsense" in refused.json()["error"]["message"]


def test_an_input_in_the_address_of_an_action_is_refused(site: TestClient, client: Client) -> None:
    scenes.put(client.broker, "mail")
    sent = {"action": "remove", "everything": True}
    answer = site.post("/api/jobs/bulk?dry_run=true", json=sent, headers=HERE)
    assert answer.status_code == 400
    assert "dry_run" in answer.json()["error"]["message"]
    assert client.broker.count(JobFilter(), "status").numbers == {"queued": 1}


@pytest.mark.parametrize(
    ("form", "words"), [("name=%ff", "UTF-8"), ("&".join(f"a{n}=1" for n in range(2001)), "fields")]
)
def test_a_form_that_cannot_be_read_says_why(form: str, words: str, site: TestClient) -> None:
    headers = {**HERE, "content-type": "application/x-www-form-urlencoded"}
    answer = site.post("/api/queue/pause", content=form, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_programs_have_no_names_of_forms(site: TestClient) -> None:
    assert site.post("/api/views", json={**VIEW, "_once": "x" * 20}, headers=HERE).status_code == 400
    assert site.get("/api/jobs", params={"_done": "x"}).status_code == 400
