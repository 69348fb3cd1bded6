"""The JSON API on each broker: a row of the table of endpoints each."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.metrics import ENDED, measured
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable, SchemaTooNew
from mrq_core.ids import new_id
from mrq_core.operations.auditing import audit
from mrq_core.operations.limits import set_limit
from mrq_core.operations.queries.query_parts import LONGEST
from mrq_core.operations.queries.saved_views import save_view
from mrq_core.operations.schedules import add_schedule
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.scheduler.definitions import definition_from
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_dashboard.app import ENDPOINTS
from tests.dashboard.conftest import MakeSite

ODD_NAMES = [
    "a/pause",
    "/main",
    "with spaces",
    "emoji 🦄",
    "a?b=c&d#e%2f",
    "<b>",
    "x" * 200,
    "ä/ö/ü",
    "..",
    "a//b",
]
LARGE = 2**63 - 1


def claimed(client: Client, queue: str = "default") -> JobRecord:
    request = ClaimRequest(worker="w.host.1", wanted=(Wanted(name=queue),), limit=1, lease=60.0)
    return client.broker.claim(request).records[0]


def failed(client: Client, message: str = "connection refused", **params: Any) -> JobRecord:
    client.queue_job("shop.Pay", params, queue="fail")
    record = claimed(client, "fail")
    outcome = Outcome(
        status=Status.FAILED,
        ttl=1000.0,
        exception_type="builtins.ValueError",
        exception_message=message,
        error_group="shop.Pay ValueError pay.py:12 charge",
        traceback="Traceback: ...",
    )
    assert client.broker.settle([Settlement(id=record.id, token=record.token or "", outcome=outcome)]) == [
        True
    ]
    return client.fetch(record.id)


# --- queues ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_queue_may_have_any_name(name: str, site: TestClient, client: Client) -> None:
    client.queue_job("a.B", queue=name)
    assert [queue["name"] for queue in site.get("/api/queues").json()["queues"]] == [name]
    shown = site.get("/api/queue", params={"name": name}).json()
    assert (shown["name"], shown["waiting"]) == (name, 1)
    assert [reason["kind"] for reason in shown["reasons"]] == ["no_worker"]


def test_queues_are_listed_in_pages(site: TestClient, client: Client) -> None:
    for number in range(5):
        client.queue_job("a.B", queue=f"q{number}")
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = site.get("/api/queues", params={"limit": 2, "after": after, "prefix": "q"}).json()
        names += [queue["name"] for queue in page["queues"]]
        after = page["next"]
    assert names == [f"q{number}" for number in range(5)]


# --- jobs -----------------------------------------------------------------------------------------


def test_jobs_are_found_by_a_query_and_listed_in_pages(site: TestClient, client: Client) -> None:
    ids = client.queue_jobs("a.B", [{"n": number} for number in range(5)])
    client.queue_job("other.Task")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = site.get("/api/jobs", params={"q": "path:a.*", "limit": 2, "cursor": cursor}).json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
    assert found == ids[::-1]
    assert site.get("/api/jobs/counts", params={"q": "path:a.B"}).json() == {
        "numbers": {"queued": 5},
        "is_complete": True,
    }


def test_a_failed_job_is_found_by_words_of_its_error(site: TestClient, client: Client) -> None:
    job = failed(client)
    failed(client, "out of stock")
    found = site.get("/api/jobs", params={"q": 'error:ValueError message:"Refused CONNECTION"'}).json()
    assert [row["id"] for row in found["jobs"]] == [job.id]
    assert found["jobs"][0]["exception_message"] == "connection refused"


def test_a_job_is_shown_with_exact_integers(site: TestClient, client: Client) -> None:
    job = client.queue_job("a.B", {"n": LARGE, "password": "geheim"})
    shown = site.get(f"/api/jobs/{job}").json()
    assert shown["params"] == {"n": LARGE, "password": "***"}
    assert shown["status"] == "queued"


def test_a_job_that_does_not_exist_is_not_found(site: TestClient, client: Client) -> None:
    missing = new_id()
    for path in (f"/api/jobs/{missing}", f"/api/jobs/{missing}/logs", f"/api/jobs/{missing}/explain"):
        answer = site.get(path)
        assert answer.status_code == 404
        assert missing in answer.json()["error"]["message"]


def test_the_log_of_a_job_is_read_on_from_a_cursor(site: TestClient, client: Client) -> None:
    job = client.queue_job("a.B")
    now = client.broker.now()

    def line(number: int) -> LogLine:
        return LogLine(job_id=job, attempt=1, seq=number, at=now, level="INFO", message=f"line {number}")

    client.broker.append_logs([line(1), line(2)], 1000)
    page = site.get(f"/api/jobs/{job}/logs", params={"limit": 1}).json()
    assert [one["message"] for one in page["lines"]] == ["line 1"]
    page = site.get(f"/api/jobs/{job}/logs", params={"cursor": page["cursor"]}).json()
    assert [one["message"] for one in page["lines"]] == ["line 2"]
    client.broker.append_logs([line(3)], 1000)
    page = site.get(f"/api/jobs/{job}/logs", params={"cursor": page["cursor"]}).json()
    assert [one["message"] for one in page["lines"]] == ["line 3"]


def test_a_waiting_job_says_why_it_does_not_run(site: TestClient, client: Client) -> None:
    job = client.queue_job("a.B", queue="main/x")
    client.broker.pause(["main/"])
    kinds = [reason["kind"] for reason in site.get(f"/api/jobs/{job}/explain").json()["reasons"]]
    assert kinds[0] == "paused"


# --- workers, schedules, limits ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.host.1", "a/b", "<b>", "emoji 🦄"])
def test_workers_are_listed_and_shown(name: str, site: TestClient, client: Client) -> None:
    now = client.broker.now()
    report = WorkerReport(
        name=name, host="host", pid=1, status="wait", queues=("default",), greenlets=3, started_at=now,
        reported_at=now, jobs={"success": 2}, running=(), unsettled=0, memory=1, cpu_time=0.5, version="1",
    )  # fmt: skip
    client.broker.state.put(WORKERS_NAMESPACE, name, report_to_json(report), ttl=100.0)
    assert [one["name"] for one in site.get("/api/workers").json()["workers"]] == [name]
    assert site.get(f"/api/workers/{quote(name)}").json()["done_jobs"] == 2
    assert site.get("/api/workers/missing").status_code == 404
    assert site.get("/api/workers/host").json()["name"] == name


def test_schedules_are_listed_and_shown(site: TestClient, client: Client) -> None:
    add_schedule(client.broker, definition_from({"path": "a.B", "interval": 60, "name": "each minute"}))
    assert [one["name"] for one in site.get("/api/schedules").json()["schedules"]] == ["each minute"]
    assert site.get("/api/schedules/each minute").json()["path"] == "a.B"
    assert site.get("/api/schedules/none").status_code == 404


def test_limits_are_listed(site: TestClient, client: Client) -> None:
    set_limit(client.broker, "mail", concurrency=3)
    [rule] = site.get("/api/limits").json()["limits"]
    assert (rule["name"], rule["concurrency"], rule["source"]) == ("mail", 3, "person")


# --- tasks and exceptions ----------------------------------------------------------------------------


def test_tasks_are_listed_and_shown(site: TestClient, client: Client) -> None:
    failed(client)
    client.queue_job("shop.Pay")
    [task] = site.get("/api/tasks").json()["tasks"]
    assert (task["name"], task["numbers"], task["paused"]) == ("shop.Pay", {"failed": 1, "queued": 1}, False)
    client.broker.pause_tasks(["shop.Pay"])
    shown = site.get("/api/tasks/shop.Pay").json()
    assert (shown["name"], shown["paused"]) == ("shop.Pay", True)
    assert site.get("/api/tasks/no path").status_code == 400


def test_exceptions_are_grouped_with_their_times(site: TestClient, client: Client) -> None:
    first, last = failed(client), failed(client, "out of stock")
    page = site.get("/api/exceptions", params={"text": "pay.py CHARGE"}).json()
    [group] = page["exceptions"]
    assert (page["total"], page["cursor"]) == (1, None)
    assert (group["task"], group["exception_type"]) == ("shop.Pay", "builtins.ValueError")
    assert (group["numbers"], group["sample_id"]) == ({"failed": 2}, last.id)
    assert group["first_seen"] == site.get(f"/api/jobs/{first.id}").json()["ended_at"]
    assert group["last_success"] is None
    assert site.get("/api/exceptions", params={"text": "other"}).json()["exceptions"] == []


def test_a_query_gets_suggestions(site: TestClient, client: Client) -> None:
    client.queue_job("shop.Pay", queue="main/x")
    found = site.get("/api/suggestions", params={"text": "queue:ma"}).json()["suggestions"]
    assert {one["text"] for one in found} == {"queue:main/", "queue:main/x"}
    assert {(one["start"], one["end"]) for one in found} == {(0, 8)}


# --- numbers over time, and the system -----------------------------------------------------------------


def test_the_overview_has_the_numbers_of_all_jobs(site: TestClient, client: Client) -> None:
    failed(client)
    client.queue_job("a.B")
    found = site.get("/api/stats", params={"number": 5}).json()
    assert found["numbers"] == {"failed": 1, "queued": 1}
    assert (found["due"], found["oldest_queue"], len(found["rates"])) == (1, "default", 5)
    assert (found["greenlets"], found["usage"], found["stuck"]) == (0, None, [])


def test_a_metric_has_a_point_for_each_minute(site: TestClient, client: Client) -> None:
    now = client.broker.now()
    tags = (("queue", "q"), ("status", "success"), ("task", "a.B"))
    client.broker.record_metrics([measured(ENDED, now, tags, [0.5, 0.5, 1.5])])
    for inputs, count in (({}, 3), ({"queue": "q"}, 3), ({"queue": "other"}, 0), ({"task": "a.B"}, 3)):
        found = site.get("/api/metrics", params={"name": "ended", "number": 10, **inputs}).json()
        assert len(found["points"]) == 10
        assert sum(point["count"] for point in found["points"]) == count


@pytest.mark.parametrize("second", [0.0, 0.001, 0.5, 30.0, 59.999])
@pytest.mark.parametrize("resolution", ["minute", "hour"])
def test_the_last_point_of_a_metric_is_the_minute_that_runs(
    make_site: MakeSite, second: float, resolution: str
) -> None:
    clock = ManualClock()
    clock.advance(3600 - clock.now_ms() % 3_600_000 / 1000 + second)
    broker = MemoryBroker(clock=clock)
    site = make_site(broker=broker)
    broker.record_metrics([measured(ENDED, broker.now(), (("queue", "q"),), [0.5])])
    found = site.get("/api/metrics", params={"name": "ended", "number": 3, "resolution": resolution})
    points = found.json()["points"]
    assert [point["count"] for point in points] == [0, 0, 1]


def test_the_system_shows_settings_without_secrets(site: TestClient, client: Client) -> None:
    found = site.get("/api/system").json()
    names = {setting["name"]: setting for setting in found["settings"]}
    assert names["GREENLETS"]["value"] == 1
    assert found["findings"]
    assert {driver["name"] for driver in found["drivers"]} == {"sqlite", "redis", "mongo"}


def test_actions_are_listed_newest_first(site: TestClient, client: Client) -> None:
    audit(client.broker, "anna", "requeue", "status:failed", {"done": 3})
    audit(client.broker, "bob", "pause", "mail/")
    found = site.get("/api/audit", params={"limit": 1}).json()
    assert [entry["who"] for entry in found["entries"]] == ["bob"]
    found = site.get("/api/audit", params={"cursor": found["cursor"]}).json()
    assert [(entry["who"], entry["counts"]) for entry in found["entries"]] == [("anna", {"done": 3})]
    assert len(site.get("/api/audit", params={"text": "PAUSE bob"}).json()["entries"]) == 1


def test_saved_views_are_listed(site: TestClient, client: Client) -> None:
    save_view(client.broker, "broken mails", "status:failed queue:mail")
    [view] = site.get("/api/views").json()["views"]
    assert (view["name"], view["query"]) == ("broken mails", "status:failed queue:mail")


def test_a_view_is_saved_replaced_and_deleted(site: TestClient) -> None:
    headers = {"sec-fetch-site": "same-origin"}
    for query in ("status:failed", "status:timeout"):
        saved = site.post("/api/views", json={"name": "broken", "query": query}, headers=headers)
        assert saved.json()["query"] == query
    assert "Delete this view" in site.get("/jobs?q=status:timeout").text
    form = {"name": "slow", "query": "duration:>5s"}
    answer = site.post("/views", data=form, headers=headers, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/jobs?q=duration%3A%3E5s&_done=")
    assert {view["name"] for view in site.get("/api/views").json()["views"]} == {"broken", "slow"}
    assert site.post("/api/views/delete", json={"name": "slow"}, headers=headers).status_code == 200
    assert site.post("/api/views/delete", json={"name": "slow"}, headers=headers).status_code == 404
    assert site.post("/views/delete", data={"name": "broken"}, headers=headers).status_code == 200
    assert site.get("/api/views").json()["views"] == []
    done = [entry["action"] for entry in site.get("/api/audit").json()["entries"]]
    assert done == ["delete view", "delete view", "save view", "save view", "save view"]
    wrong = site.post("/api/views", json={"name": "x", "query": "colour:red"}, headers=headers)
    assert wrong.status_code == 400


def test_prometheus_reads_the_numbers(site: TestClient, client: Client) -> None:
    failed(client)
    client.queue_job("a.B", queue='odd "name"\n')
    answer = site.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'mrq_jobs{status="failed"} 1\n' in answer.text
    assert 'mrq_queue_due_jobs{queue="odd \\"name\\"\\n"} 1\n' in answer.text
    assert "mrq_greenlets 0\n" in answer.text
    for line in answer.text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) mrq_\w+ .+|mrq_\w+(\{.*\})? [0-9.e+-]+", line)


# --- what is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/jobs?q=colour:red", "'colour' is no part of a query"),
        ("/api/jobs?limit=0", "a whole number of at least 1"),
        ("/api/jobs?limit=99999999999999999999999", "limit"),
        ("/api/jobs?limit=1&limit=2", "limit is given twice"),
        ("/api/jobs?colour=red", "unknown field `colour`"),
        ("/api/jobs?cursor=x%00", "cursor"),
        ("/api/jobs?order=random", "expected one of "),
        ("/api/jobs/no-id", "expected 24 hex digits"),
        ("/api/queue", "missing required field `name`"),
        ("/api/queue?name=x&empty_in=nan", "empty_in"),
        ("/api/queue?name=" + "x" * 2000, "name"),
    ],
)
def test_a_wrong_input_is_refused_in_words(path: str, words: str, site: TestClient) -> None:
    answer = site.get(path)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"name": "a", "name": "b"}', "body has the key 'name' twice: expected each key once"),
        ('{"name": "a", "query": "", "\\u006eame": "b"}', "the key 'name' twice"),
        ('{"name": "a", "extra": [{"to": 1, "to": 2}]}', "the key 'to' twice"),
        ('{"name": "\\ud800"}', "body has a lone surrogate, which UTF-8 cannot hold"),
        ('{"name": "\\udfff and more"}', "body has a lone surrogate, which UTF-8 cannot hold"),
        ('{"\\ud800": 1}', "body has a lone surrogate, which UTF-8 cannot hold"),
        ('{"name": 1e400}', "body has a number that 64 bits cannot hold"),
        ('{"name": "a', "the body is not valid JSON: Input data was truncated"),
        ('{"name": "a\n"}', "the body is not valid JSON"),
        (b'{"name": "\xff"}', "the body is not valid JSON: 'utf-8' codec"),
        ("[" * 100_000, "body is nested more than 64 levels deep"),
    ],
)
def test_a_body_that_is_no_sound_json_is_refused(body: str | bytes, words: str, make_site: Any) -> None:
    headers = {"content-type": "application/json", "sec-fetch-site": "same-origin"}
    answer = make_site().post("/api/views", content=body, headers=headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["path"] == "body"


def test_an_argument_that_a_form_has_twice_is_refused(make_site: Any) -> None:
    form = "path=a.B&argument.to=1&argument.to=2"
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "sec-fetch-site": "same-origin",
        "x-fragment": "1",
    }
    answer = make_site().post("/task/queue", content=form, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "argument.to is given twice: expected one value"


def test_an_address_that_leads_nowhere_is_not_found_in_json(site: TestClient) -> None:
    for path in ("/api/nothing", "/api", "/api/"):
        assert site.get(path).json()["error"]["status"] == 404
    assert "json" not in site.get("/apis").headers["content-type"]
    answer = site.post("/api/queues")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["message"] == "there is no POST at /api/queues: expected GET, HEAD"


def test_the_document_describes_each_endpoint(site: TestClient) -> None:
    document = site.get("/api/openapi.json").json()
    described = {(method.upper(), path) for path, one in document["paths"].items() for method in one}
    wanted = {(one.method, one.path.replace(":path", "")) for one in ENDPOINTS if one.is_api}
    assert described == wanted
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"].endswith(".")
            assert all("description" in one for one in operation["parameters"] if one["in"] == "query")


@pytest.mark.parametrize(("text", "is_right"), [("5m", True), ("300", True), ("0", False), ("2d", False)])
def test_the_load_of_a_queue_is_for_a_time_in_words(text: str, is_right: bool, make_site: Any) -> None:
    answer = make_site().get(f"/api/queue?name=q&empty_in={text}")
    assert (answer.status_code == 200) == is_right
    assert is_right or "expected a duration above 0 and at most 1d, such as 30s" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/api/jobs?q=", "/api/jobs/counts?q=", "/api/jobs/export?q=", "/api/suggestions?text=", "/jobs?q="],
)
def test_a_query_has_one_limit_which_the_document_names(path: str, make_site: Any) -> None:
    site = make_site()
    address, _, name = path[:-1].partition("?")
    operation = site.get("/api/openapi.json").json()["paths"].get(address)
    if operation is not None:
        [schema] = [one["schema"] for one in operation["get"]["parameters"] if one["name"] == name]
        assert schema["maxLength"] == LONGEST
    assert site.get(path + "x" * LONGEST).status_code == 200
    refused = site.get(path + "x" * (LONGEST + 1))
    assert refused.status_code == 400
    assert f"expected at most {LONGEST} characters" in refused.text


@pytest.mark.parametrize("query", ["", "?format=csv"])
def test_an_export_that_the_broker_breaks_off_has_no_end_and_no_traceback(
    query: str, make_site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaking(MemoryBroker):
        def find(self, *given: Any, **more: Any) -> Any:
            if self.is_broken:
                raise BrokerUnavailable("the broker is away")
            self.is_broken = True
            return super().find(*given, **more)

        is_broken = True

    broker = Breaking()
    site = make_site(broker=broker)
    site.app.state.site.backend.client.queue_jobs("a.B", [{}] * 300)
    refused = site.get(f"/api/jobs/export{query}")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
    assert refused.json()["error"]["message"] == "the broker is away"
    caplog.clear()
    broker.is_broken = False
    assert len(site.get(f"/api/jobs/export{query}").text.splitlines()) == (201 if query else 200)
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        ("export.cut_off error=the broker is away", None)
    ]


@pytest.mark.parametrize(
    "error", [BrokerCorrupt("the file is not a database"), SchemaTooNew("a newer mrq", found=3, supported=2)]
)
@pytest.mark.parametrize("path", ["/api/jobs", "/jobs"])
def test_data_that_an_operator_must_repair_are_one_line_in_the_log(
    path: str, error: Exception, make_site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryBroker):
        def find(self, *given: Any, **more: Any) -> Any:
            raise error

    answer = make_site(broker=Broken()).get(path)
    assert answer.status_code == 500
    assert str(error) in answer.text
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
        (f"dashboard.broke path={path} error={error}", None)
    ]
