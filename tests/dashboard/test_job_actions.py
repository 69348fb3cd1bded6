"""Actions on one job and on many: what they do, whom they refuse, and what their pages say."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.testclient import TestClient

from mrq_core import hookimpl
from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.ids import new_id
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.bulk import bulk_changes, bulk_steps
from mrq_core.operations.bulk.bulk_actions import begin_bulk, read_bulk
from mrq_core.operations.bulk.bulk_changes import bounded
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.task_descriptions import publish_task
from mrq_core.tasks.describing import TaskDescription
from mrq_dashboard import create_dashboard
from mrq_dashboard.api import exporting
from mrq_dashboard.api.exporting import COLUMNS
from mrq_dashboard.backend import Backend
from tests.dashboard import scenes
from tests.dashboard.conftest import MakeSite, local_client
from tests.dashboard.html_reading import PageReader
from tests.support import until

HERE = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One broker: operations are tested on each."""
    return load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3", "store": ""}, environ={})


def post(site: TestClient, path: str, value: object = None, status: int = 200) -> Any:
    answer = site.post(f"/api{path}", json={} if value is None else value, headers=HERE)
    assert answer.status_code == status, answer.text
    return answer.json()


def failed(client: Client, number: int = 1, queue: str = "mail", **fields: Any) -> list[str]:
    ids = [scenes.put(client.broker, queue, **fields) for _ in range(number)]
    scenes.fail(client.broker, scenes.take(client.broker, queue, number))
    return ids


def statuses(client: Client) -> dict[str, int]:
    return client.broker.count(JobFilter(), "status").numbers


# --- one job ------------------------------------------------------------------------------------------


def test_a_failed_job_is_requeued_on_its_queue_or_another(site: TestClient, client: Client) -> None:
    first, second = failed(client, 2)
    assert post(site, f"/jobs/{first}/requeue")["change"] == "done"
    post(site, f"/jobs/{second}/requeue", {"queue": "again"})
    assert [client.fetch(one).queue for one in (first, second)] == ["mail", "again"]
    refused = post(site, f"/jobs/{first}/requeue", status=409)
    assert "its status is queued" in refused["error"]["message"]


def test_a_waiting_job_is_cancelled_moved_and_given_a_priority(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail")
    post(site, f"/jobs/{job_id}/move", {"queue": "fast"})
    post(site, f"/jobs/{job_id}/priority", {"priority": 4})
    record = client.fetch(job_id)
    assert (record.queue, record.priority) == ("fast", 4)
    post(site, f"/jobs/{job_id}/cancel")
    assert client.fetch(job_id).status is Status.CANCEL
    for verb, value in (("cancel", {}), ("move", {"queue": "x"}), ("priority", {"priority": 1})):
        assert "cancel" in post(site, f"/jobs/{job_id}/{verb}", value, 409)["error"]["message"]


def test_a_running_job_is_marked_or_interrupted(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail")
    scenes.take(client.broker, "mail")
    answer = post(site, f"/jobs/{job_id}/cancel")
    assert (answer["change"], client.fetch(job_id).cancel_requested) == ("requested", True)
    assert "does not run again" in answer["message"]
    assert "asked to stop it" in post(site, f"/jobs/{job_id}/cancel", {"interrupt": True})["message"]
    assert post(site, f"/jobs/{job_id}/remove", status=409)


def test_a_cancel_keeps_the_job_as_long_as_its_task_says(site: TestClient, client: Client) -> None:
    publish_task(
        client.broker, TaskDescription(path=scenes.MAIL, file="x", options={"cancel_ttl": 5.0}, version="1")
    )
    job_id = scenes.put(client.broker, "mail")
    post(site, f"/jobs/{job_id}/cancel")
    record = client.fetch(job_id)
    assert record.expires_at is not None
    assert record.ended_at is not None
    assert record.expires_at - record.ended_at == timedelta(seconds=5)


def test_a_job_is_removed_and_its_page_leads_to_the_list(site: TestClient, client: Client) -> None:
    first, second = failed(client, 2)
    post(site, f"/jobs/{first}/remove")
    assert client.broker.get([first]) == [None]
    data = {"_back": f"/jobs/{second}"}
    answer = site.post(f"/jobs/{second}/remove", data=data, headers=HERE)
    assert urlsplit(str(answer.url)).path == "/jobs"
    assert f"Job {second} is removed" in answer.text


@pytest.mark.parametrize("verb", ["requeue", "cancel", "remove", "rerun"])
def test_an_unknown_job_is_not_found(verb: str, site: TestClient) -> None:
    post(site, f"/jobs/{new_id()}/{verb}", status=404)
    post(site, f"/jobs/x/{verb}", status=400)
    post(site, f"/jobs/{'ü' * 24}/{verb}", status=400)
    assert site.get(f"/jobs/{new_id()}/{verb}").status_code == 404


# --- editing and running again ------------------------------------------------------------------------

LARGE = 2**63 - 1
PARAMS = {"n": LARGE, "text": "a\u202eb \x7f 🦄 <b>", "api_key": "s3cret", "list": [{"password": "p"}, 1]}


def fields_of(site: TestClient, path: str) -> dict[str, str]:
    """What a browser would send from the form of a page."""
    text = site.get(path, headers={"referer": "http://localhost/jobs"}).text
    page = PageReader(text)
    found = {
        one["name"]: one.get("value", "") for tag, one in page.elements if tag == "input" and "name" in one
    }

    for name in ("params",):
        begin = text.find("<textarea")
        if begin >= 0:
            inner = text[text.index(">", begin) + 1 : text.index("</textarea>")]
            found[name] = unescape(inner).lstrip("\n")
    return found


def test_a_form_that_is_sent_as_it_is_keeps_each_value(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail", params=PARAMS)
    data = fields_of(site, f"/jobs/{job_id}/edit")
    assert '"***"' in data["params"]
    assert "s3cret" not in data["params"]
    answer = site.post(f"/jobs/{job_id}/edit", data={**data, "priority": "2"}, headers=HERE)
    assert answer.status_code == 200, answer.text
    record = client.fetch(job_id)
    assert (record.params, record.priority, record.edits) == (PARAMS, 2, 1)
    data = fields_of(site, f"/jobs/{job_id}/rerun")
    answer = site.post(f"/jobs/{job_id}/rerun", data=data, headers=HERE)
    new = urlsplit(str(answer.url)).path.rpartition("/")[2]
    assert new != job_id
    again = client.fetch(new)
    assert (again.params, again.queue, again.path) == (PARAMS, "mail", scenes.MAIL)


def test_an_edit_changes_what_it_names(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail", params=PARAMS)
    post(site, f"/jobs/{job_id}/edit", {"params": {"n": LARGE, "api_key": "***"}, "delay": "2h"})
    record = client.fetch(job_id)
    assert record.params == {"n": LARGE, "api_key": "s3cret"}
    assert record.due_at is not None
    assert record.due_at > client.broker.now() + timedelta(hours=1)


def test_of_two_people_who_edit_the_second_is_told(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail", params={"n": 1})
    mine, others = (fields_of(site, f"/jobs/{job_id}/edit") for _ in range(2))
    site.post(f"/jobs/{job_id}/edit", data={**others, "params": '{"n": 2}'}, headers=HERE)
    answer = site.post(f"/jobs/{job_id}/edit", data={**mine, "params": '{"n": 3}'}, headers=HERE)
    assert answer.status_code == 409
    assert "was edited since" in answer.text
    assert "&#34;n&#34;: 3" in answer.text  # what was typed is still there
    assert client.fetch(job_id).params == {"n": 2}


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"params": "{"}, "not valid JSON"),
        ({"params": "[1]"}, "expected a JSON object"),
        ({"params": {"new_password": "***"}}, "stands for no known secret"),
        ({"priority": 9}, "priority"),
        ({"priority": 10**30}, "priority"),
        ({"delay": "soon"}, "expected a duration"),
        ({"params": {"a": 2**70}}, "params.a"),
        ({}, "changes nothing: expected params"),
        ({"params": {}, "priority": 0, "claims": 0, "edits": 0}, "has these values already"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_edit_says_what_is_wrong(value: Any, part: str, site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail")
    assert part in post(site, f"/jobs/{job_id}/edit", value, 400)["error"]["message"]
    assert client.fetch(job_id).edits == 0


def test_a_job_runs_again_with_other_values_once_for_each_form(site: TestClient, client: Client) -> None:
    [job_id] = failed(client, params={"n": 1})
    value = {"path": "shop.Other", "params": {"n": 2}, "queue": "fast", "priority": -1, "job_id": new_id()}
    for _ in range(2):
        answer = post(site, f"/jobs/{job_id}/rerun", value)
    record = client.fetch(answer["id"])
    assert (record.path, record.params, record.queue, record.priority) == (
        "shop.Other",
        {"n": 2},
        "fast",
        -1,
    )
    assert statuses(client) == {"failed": 1, "queued": 1}


def test_a_new_run_under_the_id_of_another_job_says_that_it_queued_none(
    site: TestClient, client: Client
) -> None:
    [job_id] = failed(client)
    new, other = new_id(), scenes.put(client.broker, "mail")
    first = post(site, f"/jobs/{job_id}/rerun", {"job_id": new})
    assert (first["id"], first["created"]) == (new, True)
    for known in (new, other):
        answer = post(site, f"/jobs/{job_id}/rerun", {"job_id": known})
        assert (answer["id"], answer["created"]) == (known, False)
        assert "no job is queued" in answer["message"]
    assert statuses(client) == {"failed": 1, "queued": 2}


@pytest.mark.parametrize(
    ("action", "option"),
    [
        ("cancel", {"queue": "mail"}),
        ("remove", {"queue": "mail"}),
        ("remove", {"interrupt": True}),
        ("requeue", {"priority": 1}),
        ("move", {"queue": "slow", "priority": 1}),
        ("priority", {"priority": 1, "queue": "mail"}),
    ],
)
def test_an_option_of_another_action_is_refused(
    action: str, option: dict[str, Any], site: TestClient, client: Client
) -> None:
    job_id = scenes.put(client.broker, "mail")
    sent = {"action": action, "query": "status:queued", **option}
    assert "does not take it" in post(site, "/jobs/bulk", sent, 400)["error"]["message"]
    assert client.fetch(job_id).priority == 0


def test_options_that_workers_have_published_are_those_of_new_and_edited_jobs(
    site: TestClient, client: Client
) -> None:
    options: JsonObject = {"searchable": ["order"], "at_most_once": True, "limits": []}
    publish_task(client.broker, TaskDescription(path="shop.Gone", file="x", options=options, version="1"))
    job_id = scenes.put(client.broker, "mail", "shop.Gone", params={"order": 1})
    post(site, f"/jobs/{job_id}/edit", {"params": {"order": 2}})
    assert client.fetch(job_id).search_keys == {"order": 2}
    again = client.fetch(post(site, f"/jobs/{job_id}/rerun", {"params": {"order": 3}})["id"])
    assert (again.search_keys, again.at_most_once) == ({"order": 3}, True)


# --- roles --------------------------------------------------------------------------------------------


def test_who_operates_does_not_change_what_runs(make_site: MakeSite, client: Client) -> None:
    site = make_site(broker=client.broker, authorize=lambda request: "operate")
    [job_id] = failed(client)
    for verb, value in (("edit", {"priority": 1}), ("rerun", {}), ("remove", {})):
        assert "the role write" in post(site, f"/jobs/{job_id}/{verb}", value, 403)["error"]["message"]
        assert site.get(f"/jobs/{job_id}/{verb}").status_code == 403
    bulk = {"action": "remove", "ids": [job_id]}
    assert "removing jobs needs the role write" in post(site, "/jobs/bulk", bulk, 403)["error"]["message"]
    text = site.get(f"/jobs/{job_id}").text
    assert f'href="/jobs/{job_id}/requeue"' in text
    assert f"/jobs/{job_id}/edit" not in text
    assert 'value="remove"' not in site.get("/jobs").text


def test_who_reads_sees_no_button(make_site: MakeSite, client: Client) -> None:
    site = make_site(broker=client.broker, authorize=lambda request: "read")
    [job_id] = failed(client)
    assert "data-dialog>" not in site.get(f"/jobs/{job_id}").text
    assert 'name="action"' not in site.get("/jobs").text
    assert "Export" in site.get("/jobs").text


# --- many jobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which",
    [
        {"query": "status:failed queue:mail"},
        {"filter": {"status": "failed", "queue": ["mail"]}},
        {"filter": {"status": ["failed", "timeout"], "params": {"n": 1}, "queue": "mail"}},
    ],
)
def test_jobs_are_named_by_a_query_or_a_filter(which: Any, site: TestClient, client: Client) -> None:
    failed(client, 3, params={"n": 1})
    failed(client, 2, "other")
    asked = {"action": "requeue", **which}
    dry = post(site, "/jobs/bulk", {**asked, "dry_run": True})
    assert (dry["changed"], dry["left"], dry["is_complete"]) == ({"failed": 3}, {}, True)
    assert statuses(client) == {"failed": 5}
    assert read_audit(client.broker)[0] == []
    done = post(site, "/jobs/bulk", asked)
    assert (done["changes"], done["message"]) == ({"done": 3}, "3 jobs requeued")
    assert statuses(client) == {"failed": 2, "queued": 3}
    [entry] = read_audit(client.broker)[0]
    assert (entry.action, entry.counts) == ("bulk requeue", {"done": 3})
    assert "status:failed" in entry.target


def test_jobs_are_named_by_ids(site: TestClient, client: Client) -> None:
    ids = failed(client, 3)
    waiting = scenes.put(client.broker, "mail")
    asked = {"action": "requeue", "ids": [*ids[:2], waiting, new_id(), ids[0]]}
    dry = post(site, "/jobs/bulk", {**asked, "dry_run": True})
    assert (dry["changed"], dry["left"]) == ({"failed": 2}, {"queued": 1})
    done = post(site, "/jobs/bulk", asked)
    assert done["changes"] == {"done": 2, "refused": 1, "unknown": 1}
    assert ids[1] in read_audit(client.broker)[0][0].target
    assert statuses(client) == {"failed": 1, "queued": 3}


@pytest.mark.parametrize(
    ("action", "more", "after_it"),
    [
        ("cancel", {}, {"cancel": 3}),
        ("move", {"queue": "fast"}, {"queued": 3}),
        ("priority", {"priority": 2}, {"queued": 3}),
        ("remove", {}, {}),
        ("requeue", {}, {"queued": 3}),
    ],
)
def test_each_action_changes_many(
    action: str, more: Any, after_it: Any, site: TestClient, client: Client
) -> None:
    ids = [scenes.put(client.broker, "mail") for _ in range(3)]
    if action == "requeue":
        scenes.fail(client.broker, scenes.take(client.broker, "mail", 3))
    done = post(site, "/jobs/bulk", {"action": action, "query": "queue:mail", **more})
    assert done["changes"] == {"done": 3}
    assert statuses(client) == after_it
    records = [one for one in client.broker.get(ids) if one is not None]
    if action == "move":
        assert {one.queue for one in records} == {"fast"}
    if action == "priority":
        assert {one.priority for one in records} == {2}


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("query", ["queue:mail,fast", "queue:*a*", "queue:mail,fast params.a.b:1"])
def test_a_move_counts_only_the_jobs_that_it_moves(
    query: str, is_large: bool, site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("mail", "mail", "fast"):
        scenes.put(client.broker, queue, params={"a": {"b": 1}})
    failed(client, 1, "fast", params={"a": {"b": 1}})
    if is_large:
        monkeypatch.setattr("mrq_dashboard.actions.bulk.CHUNK", 1)
    asked = {"action": "move", "queue": "fast", "query": query}
    dry = post(site, "/jobs/bulk", {**asked, "dry_run": True})
    assert (dry["changed"], dry["left"]) == ({"queued": 2}, {"queued": 1, "failed": 1})
    done = post(site, "/jobs/bulk", asked)
    assert done["changes"] == {"done": 2, "unchanged": 1, "refused": 1}
    assert done["message"].startswith("2 jobs moved; 1 unchanged: already in that queue; 1 refused")


def test_a_priority_counts_only_the_jobs_that_it_changes(site: TestClient, client: Client) -> None:
    ids = [scenes.put(client.broker, "mail") for _ in range(3)]
    post(site, f"/jobs/{ids[0]}/priority", {"priority": 2})
    asked = {"action": "priority", "priority": 2, "query": "queue:mail"}
    dry = post(site, "/jobs/bulk", {**asked, "dry_run": True})
    assert (dry["changed"], dry["left"]) == ({"queued": 2}, {"queued": 1})
    assert post(site, "/jobs/bulk", asked)["changes"] == {"done": 2, "unchanged": 1}


def test_a_job_that_is_moved_to_its_own_queue_is_told_so(site: TestClient, client: Client) -> None:
    job_id = scenes.put(client.broker, "mail")
    answer = post(site, f"/jobs/{job_id}/move", {"queue": "mail"})
    assert (answer["change"], answer["message"]) == ("unchanged", f"Job {job_id} is on mail already")


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"action": "requeue"}, "no jobs are named"),
        ({"action": "requeue", "query": "status:failed", "ids": ["0" * 24]}, "in more than one way"),
        ({"action": "requeue", "query": ""}, "would change all jobs"),
        ({"action": "requeue", "filter": {}}, "would change all jobs"),
        ({"action": "requeue", "query": "colour:red"}, "colour"),
        ({"action": "requeue", "filter": {"status": "x y"}}, "no status of a job"),
        ({"action": "requeue", "filter": {"status": ""}}, "status"),
        ({"action": "requeue", "filter": {"queue": []}}, "queue"),
        ({"action": "requeue", "ids": ["x"]}, "id"),
        ({"action": "requeue", "ids": ["0" * 24] * 1001}, "1000"),
        ({"action": "shred", "query": "status:failed"}, "shred"),
        ({"action": "move", "query": "status:failed"}, "queue is missing"),
        ({"action": "move", "query": "status:failed", "queue": "x_raw"}, "raw queue"),
        ({"action": "priority", "query": "status:failed"}, "priority is missing"),
        ({"action": "priority", "query": "status:failed", "priority": 5}, "<= 4"),
    ],
)
def test_a_wrong_bulk_action_says_what_is_wrong(
    value: Any, part: str, site: TestClient, client: Client
) -> None:
    failed(client, 2)
    assert part in post(site, "/jobs/bulk", value, 400)["error"]["message"]
    assert statuses(client) == {"failed": 2}


def test_all_jobs_are_changed_only_if_that_is_said(site: TestClient, client: Client) -> None:
    failed(client, 2)
    assert post(site, "/jobs/bulk", {"action": "requeue", "everything": True})["changes"] == {"done": 2}


@pytest.mark.parametrize("text", ["<script>canary()</script>", "a,b \"c\" 'd' \\ e", "🦄 \u202e", "*", "x:y"])
def test_odd_names_stay_names(text: str, site: TestClient, client: Client) -> None:
    scenes.put(client.broker, text)
    scenes.put(client.broker, "other")
    asked = {"action": "move", "filter": {"queue": text, "path": [scenes.MAIL]}, "queue": f"{text}2"}
    done = post(site, "/jobs/bulk", asked)
    assert done["changes"] == {"done": 2 if text == "*" else 1}
    assert PageReader(site.get("/system").text).dangers() == []
    assert PageReader(site.get("/jobs/bulk").text).dangers() == []


def test_a_large_body_is_refused(site: TestClient) -> None:
    answer = site.post("/api/jobs/bulk", content=b"x" * 10_000_000, headers=HERE)
    assert answer.status_code == 413


# --- with progress ------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Above this number of jobs, an action goes on after its answer."""
    for module in (bulk_changes, bulk_steps):
        monkeypatch.setattr(module, "CHUNK", 10)
    return 10


def test_many_jobs_are_changed_with_progress(site: TestClient, client: Client, few: int) -> None:
    failed(client, 35)
    begun = post(site, "/jobs/bulk", {"action": "requeue", "filter": {"status": "failed"}}, 202)
    handle = begun["bulk"]
    assert (handle["expected"], handle["action"], handle["query"]) == (35, "requeue", "status:failed")

    def ended() -> Any:
        found = site.get(f"/api/jobs/bulk/{handle['id']}").json()
        return found if found["status"] != "running" else None

    found = until(ended)
    assert (found["status"], found["changes"], found["is_exact"], found["share"]) == (
        "done",
        {"done": 35},
        True,
        1.0,
    )
    assert statuses(client) == {"queued": 35}
    assert [one["id"] for one in site.get("/api/jobs/bulk").json()["bulk"]] == [handle["id"]]
    until(lambda: len(read_audit(client.broker)[0]) == 2)
    last, first = read_audit(client.broker)[0]
    assert (first.action, first.counts) == ("begin bulk requeue", {"matching": 35})
    assert (last.action, last.counts, last.who) == ("bulk requeue done", {"done": 35}, "anonymous")
    text = site.get("/jobs/bulk").text
    assert "35 of 35 · 35 jobs requeued" in text
    post(site, f"/jobs/bulk/{handle['id']}/stop")
    post(site, f"/jobs/bulk/{new_id()}/stop", status=404)
    assert site.get("/api/jobs/bulk/x").status_code == 404


def test_a_form_leads_to_the_progress(site: TestClient, client: Client, few: int) -> None:
    failed(client, 35)
    data = fields_of(site, "/jobs/bulk/new?action=requeue&q=status:failed&all=true")
    answer = site.post("/jobs/bulk", data=data, headers=HERE)
    assert urlsplit(str(answer.url)).path == "/jobs/bulk"
    assert "The bulk action on 35 jobs has begun" in answer.text
    until(lambda: statuses(client) == {"queued": 35})


def test_a_dashboard_that_starts_goes_on_with_what_another_left(config: Config, client: Client) -> None:
    failed(client, 35)
    query = bounded(client.broker, parse_query(client.broker, "status:failed"))
    left = begin_bulk(client.broker, query, Requeue(), "anna", expected=35, is_counted=True)
    with local_client(create_dashboard(config)):
        until(lambda: statuses(client) == {"queued": 35})
    found = read_bulk(client.broker, left.id)
    assert found is not None
    assert found.who == "anna"


def test_a_step_may_take_longer_than_a_page(config: Config) -> None:
    backend = Backend(config)
    backend._patient_broker()
    assert backend._patient is not None
    assert backend.client.config.broker_timeout < config.broker_timeout
    assert backend._patient.config.broker_timeout == config.broker_timeout
    backend.close()


def test_two_people_who_press_at_once_change_each_job_once(site: TestClient, client: Client) -> None:
    failed(client, 200)
    start = threading.Barrier(2)

    def press(_: int) -> int:
        start.wait()
        done = post(site, "/jobs/bulk", {"action": "requeue", "query": "status:failed"})
        return int(done["changes"].get("done", 0))

    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(press, range(2)))
    assert sum(numbers) == 200
    assert statuses(client) == {"queued": 200}


# --- pages --------------------------------------------------------------------------------------------


def test_a_dialog_says_first_how_many_it_would_touch(site: TestClient, client: Client) -> None:
    ids = failed(client, 3)
    scenes.put(client.broker, "mail")
    query = "/jobs/bulk/new?action=requeue&q=queue:mail&all=true"
    page = PageReader(site.get(query).text)
    assert "Requeue 3 jobs" in page.text
    assert "All jobs that match: queue:mail" in page.text
    assert "failed 3 These stay as they are: queued 1" in page.text
    one = PageReader(site.get(f"/jobs/bulk/new?action=cancel&ids={ids[0]}").text)
    assert "Cancel 1 job" in one.text
    none = site.get("/jobs/bulk/new?action=cancel").text
    assert "No job is selected" in none
    assert "<button" not in none[none.index("data-confirm") : none.index("</section>")]
    useless = site.get("/jobs/bulk/new?action=move&q=status:failed&all=true").text
    assert "No job has a status that allows this" in useless
    assert 'name="queue"' not in useless


def test_a_dialog_counts_by_the_status_of_the_query(
    site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the time is short, jobs of other statuses do not use it up."""
    failed(client, 2)
    scenes.put(client.broker, "mail")
    seen: list[JobFilter] = []
    count = EmbeddedBroker.count

    def noting(broker: EmbeddedBroker, wanted: JobFilter, *args: Any, **more: Any) -> Any:
        seen.append(wanted)
        return count(broker, wanted, *args, **more)

    monkeypatch.setattr(EmbeddedBroker, "count", noting)
    text = site.get("/jobs/bulk/new?action=requeue&q=status:failed+since:1h&all=true").text
    assert "Requeue 2 jobs" in text
    assert {one.statuses for one in seen} == {(Status.FAILED,)}


def test_a_page_of_a_job_offers_what_its_status_allows(site: TestClient, client: Client) -> None:
    [done] = failed(client)
    waiting = scenes.put(client.broker, "mail")
    for job_id, allowed in (
        (done, {"requeue", "cancel", "rerun", "remove"}),
        (waiting, {"cancel", "move", "priority", "edit", "rerun", "remove"}),
    ):
        page = PageReader(site.get(f"/jobs/{job_id}").text)
        assert {
            link.rpartition("/")[2] for link in page.links if link.startswith(f"/jobs/{job_id}/")
        } == allowed
        for verb in ("requeue", "cancel", "move", "priority", "edit", "rerun", "remove"):
            asked = site.get(f"/jobs/{job_id}/{verb}")
            assert asked.status_code == 200
            assert ("does not allow this now" in asked.text) is (verb not in allowed)
    assert site.get(f"/jobs/{done}/shred").status_code == 404


def test_each_form_works_without_scripts(site: TestClient, client: Client) -> None:
    for verb, more in (("priority", {"priority": "3"}), ("move", {"queue": "fast"}), ("cancel", {})):
        job_id = scenes.put(client.broker, "mail")
        data = fields_of(site, f"/jobs/{job_id}/{verb}")
        answer = site.post(f"/jobs/{job_id}/{verb}", data={**data, **more}, headers=HERE)
        assert urlsplit(str(answer.url)).path == "/jobs"
        assert 'class="notice"' in answer.text
        assert job_id in answer.text


def asks_of(site: TestClient, path: str, **query: str) -> dict[str, str]:
    """The bulk dialogs to which a page leads, by their verbs."""
    page = PageReader(site.get(path, params=query).text)
    asks = [link for link in page.links if link.startswith("/jobs/bulk/new")]
    return {dict(parse_qsl(urlsplit(link).query))["action"]: link for link in asks}


def test_a_group_of_exceptions_is_requeued_cancelled_and_deleted(site: TestClient, client: Client) -> None:
    failed(client, 3)
    [group] = site.get("/api/exceptions").json()["exceptions"]
    asks = asks_of(site, "/exceptions", group=group["group"])
    assert set(asks) == {"requeue", "cancel", "remove"}
    assert (
        "3 jobs requeued" in site.post("/jobs/bulk", data=fields_of(site, asks["requeue"]), headers=HERE).text
    )
    assert statuses(client) == {"queued": 3}


def test_the_list_of_exceptions_requeues_and_deletes(
    site: TestClient, client: Client, make_site: MakeSite
) -> None:
    """An odd group takes its own jobs only."""
    failed(client, 3)
    scenes.put(client.broker, "odd", 'shop.Odd "x" \\')
    scenes.fail(client.broker, scenes.take(client.broker, "odd"))
    page = PageReader(site.get("/exceptions").text)
    asks = [link for link in page.links if link.startswith("/jobs/bulk/new")]
    assert len(asks) == 4
    odd = [link for link in asks if "Odd" in link]
    assert "1 job requeued" in site.post("/jobs/bulk", data=fields_of(site, odd[0]), headers=HERE).text
    assert statuses(client) == {"failed": 3, "queued": 1}
    for link in asks_of(site, "/exceptions", find="SendReceipt").values():
        if "action=remove" in link:
            assert "3 jobs removed" in site.post("/jobs/bulk", data=fields_of(site, link), headers=HERE).text
    assert statuses(client) == {"queued": 1}
    for role, verbs in (("read", set()), ("operate", {"requeue"})):
        seen = make_site(broker=client.broker, authorize=lambda request, role=role: role)
        failed(client)
        assert set(asks_of(seen, "/exceptions")) == verbs


def test_yesterdays_failed_jobs_of_a_task_with_an_error_take_three_clicks(
    site: TestClient, client: Client
) -> None:
    """Type a query into the box of any page; check "all that match", press Requeue, confirm."""
    now = client.broker.now()
    yesterday, old = now - timedelta(days=1), now - timedelta(days=3)
    wanted = failed(client, 3, queued_at=yesterday)
    failed(client, 2)
    failed(client, 2, queued_at=old)
    failed(client, 2, path="shop.Other", queued_at=yesterday)
    other = scenes.put(client.broker, "mail", queued_at=yesterday)
    scenes.fail(client.broker, scenes.take(client.broker, "mail"), exception_type="builtins.ValueError")
    query = f"status:failed path:{scenes.MAIL} error:Refused since:36h until:12h"
    text = site.get("/jobs", params={"q": query}).text
    assert "All <strong>3</strong> that match" in text
    data = fields_of(
        site,
        str(
            site.build_request(
                "GET", "/jobs/bulk/new", params={"action": "requeue", "q": query, "all": "true"}
            ).url
        ),
    )
    assert "3 jobs requeued" in site.post("/jobs/bulk", data=data, headers=HERE).text
    queued = client.broker.find(JobFilter(statuses=(Status.QUEUED,)), limit=100).records
    assert sorted(one.id for one in queued) == sorted(wanted)
    assert client.fetch(other).status is Status.FAILED


# --- export -------------------------------------------------------------------------------------------


def test_jobs_are_exported_as_json_lines(site: TestClient, client: Client) -> None:
    ids = failed(client, 5, params={"n": LARGE, "password": "x", "formula": "=1+1"})
    scenes.put(client.broker, "other")
    answer = site.get("/api/jobs/export", params={"q": "status:failed"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert "attachment" in answer.headers["content-disposition"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["id"] for line in lines] == ids
    assert lines[0]["params"] == {"n": LARGE, "password": "***", "formula": "=1+1"}
    assert len(site.get("/api/jobs/export?limit=2").text.splitlines()) == 2
    some = site.get("/api/jobs/export", params={"ids": ids[:2], "q": ""})
    assert [json.loads(line)["id"] for line in some.text.splitlines()] == ids[:2]
    assert len(site.get("/api/jobs/export", params={"ids": ids[:2], "all": "true"}).text.splitlines()) == 6
    assert site.get("/api/jobs/export?q=colour:red").status_code == 400


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1")


def test_jobs_are_exported_as_a_table_that_runs_no_formula(site: TestClient, client: Client) -> None:
    names = ("=cmd", "+a", "-b", "@c")
    for name in names:
        scenes.put(client.broker, "mail", name, params={"n": LARGE, "text": 'a "b", c\r\n'}, priority=-2)
    for record, text in zip(scenes.take(client.broker, "mail", 4), FORMULAS[3:], strict=True):
        scenes.fail(client.broker, [record], exception_message=text)
    answer = site.get("/api/jobs/export", params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="jobs.csv"' in answer.headers["content-disposition"]
    header, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    assert tuple(header) == COLUMNS
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [one["path"] for one in found] == [f"'{name}" for name in names]
    assert [one["exception_message"] for one in found] == [f"'{text}" for text in FORMULAS[3:]]
    assert json.loads(found[0]["params"]) == {"n": LARGE, "text": 'a "b", c\r\n'}
    assert found[0]["priority"] == "-2"
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULAS) and cell != "-2"]
    assert site.get("/api/jobs/export?format=csv&q=status:success").text == ",".join(COLUMNS) + "\r\n"
    assert "one of csv, jsonl" in site.get("/api/jobs/export?format=xls").text


def test_a_large_export_is_made_part_by_part(
    site: TestClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        scenes.put(client.broker, "mail", params={"n": number})
    monkeypatch.setattr(exporting, "_PAGE", 2)
    sizes: list[int] = []
    rows = exporting._rows

    def noted(jobs: Sequence[JsonObject]) -> bytes:
        sizes.append(len(jobs))
        return rows(jobs)

    monkeypatch.setattr(exporting, "_rows", noted)
    assert len(site.get("/api/jobs/export?format=csv").text.splitlines()) == 6
    assert sizes == [2, 2, 1]


def test_a_job_that_no_plugin_can_decode_is_shown_as_it_is_stored_and_changed(
    config: Config, client: Client
) -> None:
    def mrq_decode(value: Any) -> None:
        raise ValueError("wrong key")

    module = ModuleType("config")
    module.mrq_decode = hookimpl(mrq_decode)  # type: ignore[attr-defined]
    job = client.queue_job("a.B", {"sealed": "x"})
    shown = create_dashboard(replace(config, module=module))
    with local_client(shown, raise_server_exceptions=False) as site:
        assert [one["params"] for one in site.get("/api/jobs").json()["jobs"]] == [{"sealed": "x"}]
        assert site.get(f"/api/jobs/{job}").json()["params"] == {"sealed": "x"}
        for verb in ("cancel", "move", "priority", "edit", "remove"):
            assert site.get(f"/jobs/{job}/{verb}").status_code == 200, verb
        post(site, f"/jobs/{job}/edit", {"priority": 2})
        assert client.fetch(job).priority == 2
