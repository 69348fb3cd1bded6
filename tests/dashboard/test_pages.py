"""The pages on each broker: with data, without, and with a broker that is away."""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.client.schedules import add_schedule
from mrq_core.clock import after
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import NewJob
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.auditing import audit
from mrq_core.operations.queues import pause_queues
from mrq_core.operations.views import iso
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_dashboard import create_dashboard
from mrq_dashboard.rendering import MENU, moments
from tests.dashboard import scenes
from tests.dashboard.conftest import MakeSite, local_client
from tests.dashboard.html_reading import PageReader
from tests.support import until

PATHS = [path for path, _, _ in MENU]
_MOST_GZIPPED = 60_000


def read(site: TestClient, path: str, *, status: int = 200, **query: Any) -> PageReader:
    """Fetches a page, and checks what holds for each page."""
    response = site.get(path, params=query or None, follow_redirects=False)
    assert response.status_code == status, f"{path}: {PageReader(response.text).text[:2000]}"
    page = PageReader(response.text)
    assert page.dangers() == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "ids are unique"
    assert [tag for tag, _ in page.elements].count("h1") == 1
    return page


def links_of(page: PageReader, beginning: str) -> list[str]:
    return [link for link in page.links if link.startswith(beginning)]


# --- a bad day --------------------------------------------------------------------------------------


@pytest.fixture
def named(client: Client) -> dict[str, str]:
    """The data of a bad day; ids of jobs by what is special about them."""
    return scenes.bad_day(client, jobs=20)


def test_each_page_shows_a_bad_day(site: TestClient, named: dict[str, str]) -> None:
    for path in PATHS:
        page = read(site, path)
        [here] = [a for tag, a in page.elements if tag == "a" and a.get("aria-current") == "page"]
        assert here["href"] == path
    _check_queues(site)
    _check_jobs(site, named)
    _check_workers(site, named)
    _check_limits(site, named)
    _check_schedules(site)
    _check_exceptions(site)
    _check_system(site)
    _check_overview(site)
    _check_tasks(site)


@pytest.mark.parametrize("start", ["9999-06-01T00:00:00", "9999-12-31T23:59:59.999"])
def test_a_schedule_that_starts_at_the_end_of_the_calendar_shows_its_next_fire(
    site: TestClient, client: Client, start: str
) -> None:
    add_schedule(path="shop.Sell", name="late", interval=86_400, start=start, client=client)
    assert "late shop.Sell active every day in 29" in read(site, "/schedules").text
    assert start[:10] in site.get("/schedules", params={"name": "late"}).text


def _check_queues(site: TestClient) -> None:
    queues = read(site, "/queues").text
    assert "reports/daily paused with the tree reports/ 40 40 0" in queues
    assert "crawl_timed_set raw timed set no worker 0 120 0" in queues
    assert "\\u202e gnp.exe" in queues
    mail = read(site, "/queues", name="mail").text
    assert "Due 25" in mail
    assert "Nothing holds the queue mail back: 25 jobs are due" in mail
    assert f"{scenes.WORKER} working" in mail
    paused = read(site, "/queues", name="reports/daily").text
    assert "The queue reports/daily has been paused for" in paused
    assert "paused with the tree reports/" in paused
    assert "Resume the tree reports/" in paused
    timed = read(site, "/queues", name="crawl_timed_set").text
    assert "Parameters waiting 120" in timed
    assert "https://example.com/0" in timed
    assert "Parameter Due" in timed
    assert "When parameters become due" in timed
    tree = read(site, "/queues", name="reports/").text
    assert "Queues · tree" in tree
    assert "Due 40" in tree


def _check_jobs(site: TestClient, named: dict[str, str]) -> None:
    listed = read(site, "/jobs", q="status:maxretries")
    assert links_of(listed, f"/jobs/{named['mail']}")
    assert "mails that fail" in listed.text
    assert "maxretries" in listed.text
    assert "Refused: 451 too many connections from this host" in listed.text
    assert "All" in listed.text
    assert "Success 17" in listed.text
    job = read(site, f"/jobs/{named['mail']}").text
    assert "Attempt 1 retry" in job
    assert "Attempt 3 maxretries" in job
    assert "421 try again later" in job
    assert "shop.smtp.Refused: 451 too many connections" in job
    assert "mrq run --queue=mail shop.mail.SendReceipt" in job
    parked = read(site, f"/jobs/{named['parked']}").text
    assert "Why is this not running?" in parked
    assert "It is parked under the limit partner:acme" in parked
    running = read(site, f"/jobs/{named['running']}").text
    assert "42 % done" in running
    assert "line 77, in resize" in running
    parent = read(site, f"/jobs/{named['parent']}").text
    assert "s3cret" not in parent
    assert '"api_key": "***"' in parent
    assert str(2**63 - 1) in parent
    assert links_of(read(site, f"/jobs/{named['child']}"), f"/jobs/{named['parent']}")
    assert "Jobs" in read(site, "/jobs/" + "0" * 24, status=404).text


def _check_workers(site: TestClient, named: dict[str, str]) -> None:
    workers = read(site, "/workers").text
    assert f"{scenes.DEAD_WORKER} dead" in workers
    assert "At work 2 Dead 1" in workers
    worker = read(site, f"/workers/{scenes.WORKER}")
    assert links_of(worker, f"/jobs/{named['running']}")
    assert "of 10 greenlets" in worker.text
    assert "has not reported since" in read(site, f"/workers/{scenes.DEAD_WORKER}").text
    response = site.get("/workers/web-1", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/workers/{scenes.WORKER}")
    assert "no worker named 'none'" in read(site, "/workers/none", status=404).text


def _check_limits(site: TestClient, named: dict[str, str]) -> None:
    limits = read(site, "/limits")
    assert "partner:acme at its limit 2 of 2" in limits.text
    assert "Parked jobs 5" in limits.text
    assert links_of(limits, f"/jobs/{named['holder']}")
    assert links_of(limits, f"/jobs/{named['parked']}")
    assert "Change Remove" in limits.text
    assert "No job runs or waits under a limit" in read(site, "/limits", name="other").text


def _check_schedules(site: TestClient) -> None:
    schedules = read(site, "/schedules").text
    assert "carts shop.carts.Expire paused 3 failures in a row" in schedules
    assert "No scheduler has reported" in schedules
    carts = read(site, "/schedules", name="carts").text
    assert "3 failures in a row" in carts
    assert "job gone" in carts
    assert "every day at 02:30, UTC" in read(site, "/schedules", name="nightly").text
    assert "there is no schedule 'none'" in read(site, "/schedules", name="none", status=404).text


def _check_exceptions(site: TestClient) -> None:
    listed = read(site, "/exceptions")
    assert "Refused 451 too many connections from this host" in listed.text
    [link] = links_of(listed, "/exceptions?group=")
    group = read(site, link).text
    assert "shop.smtp.Refused" in group
    assert "raise Refused(code, text)" in group
    assert "Last 24 hours 90" in group


def _check_system(site: TestClient) -> None:
    system = read(site, "/system")
    assert "ben requeue status:failed queue:mail 1,204 done , 3 refused" in system.text
    assert "BROKER" in system.text
    assert "No entry has these words" in read(site, "/system", audit="missing").text


def _check_overview(site: TestClient) -> None:
    overview = read(site, "/")
    assert f"1 worker is dead : {scenes.DEAD_WORKER}" in overview.text
    assert "reports/daily stands still: 40 due, the oldest for 30 min." in overview.text
    assert "Resume the tree reports/" in overview.text
    limit = "The limit partner:acme is reached: 2 of 2 jobs run. 5 jobs wait for it, the oldest"
    assert f"{limit} queued 12 min ago . Show its jobs Change the limit partner" in overview.text
    assert links_of(overview, "/limits?name=partner%3Aacme")
    assert "/limit/set?name=partner" in overview.links
    assert "Oldest due 30 min ago reports/daily" in overview.text
    assert "Refused shop.mail.SendReceipt succeeded since" in overview.text
    titles = [tag for tag, _ in overview.elements if tag == "title"]
    assert len(titles) > 60
    for span in ("3h", "24h", "72h"):
        assert f" in {span}" in read(site, "/", span=span).text


def _check_tasks(site: TestClient) -> None:
    tasks = read(site, "/tasks", find="MAIL")
    assert links_of(tasks, "/tasks/") == [f"/tasks/{scenes.MAIL}"]
    task = read(site, f"/tasks/{scenes.MAIL}").text
    assert "Waiting 25" in task
    assert "Failure rate 1 %" in task
    assert "no stored job has the task 'a.B'" in read(site, "/tasks/a.B", status=404).text


# --- other brokers ------------------------------------------------------------------------------------


def test_each_page_of_an_empty_broker_says_what_to_do_next(site: TestClient, client: Client) -> None:
    client.broker.prepare()
    commands = {
        "/": "mrq worker",
        "/tasks": "mrq run --async",
        "/queues": "mrq demo",
        "/jobs": "mrq run --async",
        "/schedules": "mrq schedules add",
        "/workers": "mrq worker",
        "/limits": "mrq limits set",
    }
    for path in PATHS:
        assert commands.get(path, "") in read(site, path).text


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["redis", "mongodb"])
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_broker_that_is_away_is_told_within_two_seconds(kind: str, is_silent: bool, silent: str) -> None:
    where = silent if is_silent else "127.0.0.1:1"
    config = load_config({"broker": f"{kind}://{where}/0", "dashboard_timeout": 0.3}, environ={})
    with local_client(create_dashboard(config)) as site:
        paths = [*PATHS, "/queues?name=x", f"/jobs/{new_id()}", "/tasks/a.B", "/workers/w"]
        for path in paths[:3] if is_silent else paths:
            began = time.monotonic()
            page = read(site, path, status=503)
            assert time.monotonic() - began < 2
            assert "The broker does not answer" in page.text
            assert "mrq check" in page.text
        system = read(site, "/system", status=503)
        assert "DASHBOARD_TIMEOUT" in system.text
        assert "Plugins" in system.text
        answer = site.get("/api/system")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "3"
        value = answer.json()
        assert value["error"]["message"]
        assert "DASHBOARD_TIMEOUT" in [one["name"] for one in value["settings"]]


# --- queues ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a/b", "with space", "🦄", "..", "/", "a?b#c&d=%2f", "<script>"])
def test_the_path_of_a_queue_leads_to_its_page(site: TestClient, client: Client, name: str) -> None:
    client.queue_job("a.B", queue=name)
    [link] = [link for link in read(site, "/queues").links if link.startswith("/queues?name=")]
    page = read(site, link)
    assert (
        f"mrq run --queue={name}" in page.text
        or f"Queues {'· tree ' if name == '/' else ''}{name}" in page.text
    )
    response = site.get("/queues/a%20b/c%3Fd", follow_redirects=False)
    assert response.headers["location"] == "/queues?name=a+b%2Fc%3Fd"


def test_many_queues_are_shown_in_pages_and_found_by_name(site: TestClient, client: Client) -> None:
    now = client.broker.now()
    records = [
        JobRecord(id=new_id(), path="a.B", params={}, queue=f"q{n:04}", queued_at=now, updated_at=now)
        for n in range(250)
    ]
    client.broker.enqueue([NewJob(record=record) for record in records])
    first = read(site, "/queues")
    assert len(links_of(first, "/queues?name=q")) == 100
    assert "1 to 100 of 250" in first.text
    [last] = links_of(read(site, links_of(first, "/queues?sort=name&page=")[0]), "/queues?sort=name&page=3")
    assert len(links_of(read(site, last), "/queues?name=q")) == 50
    found = read(site, "/queues", find="Q024")
    assert len(links_of(found, "/queues?name=q024")) == 10
    assert "No queue has “ zzz ”" in read(site, "/queues", find="zzz").text


def test_queues_are_ordered_by_what_waits(site: TestClient, client: Client) -> None:
    for queue, number in (("a", 1), ("b", 3), ("c", 2)):
        for _ in range(number):
            client.queue_job("a.B", queue=queue)
    assert links_of(read(site, "/queues", sort="due"), "/queues?name=") == [
        "/queues?name=b",
        "/queues?name=c",
        "/queues?name=a",
    ]
    read(site, "/queues", status=400, sort="size")


def test_a_paused_tree_without_queues_is_shown(site: TestClient, client: Client) -> None:
    pause_queues(client.broker, ["gone/"])
    assert "Also paused gone/" in read(site, "/queues").text


# --- jobs -----------------------------------------------------------------------------------------------


def test_jobs_are_shown_in_pages(site: TestClient, client: Client) -> None:
    ids = [client.queue_job("a.B", {"n": n}) for n in range(120)]
    seen: list[str] = []
    link = "/jobs?q=path:a.B"
    while link:
        page = read(site, link)
        links = [one for one in links_of(page, "/jobs/") if one != "/jobs/bulk"]
        shown = [one.removeprefix("/jobs/") for one in links]
        assert len(shown) <= 50
        seen += shown
        link = next(iter(links_of(page, "/jobs?q=path%3Aa.B&cursor=")), "")
    assert seen == ids[::-1]


def test_pages_after_the_last_one_say_that_there_is_no_more(site: TestClient, client: Client) -> None:
    job = client.queue_job("a.B", queue="x")
    scenes.fail(client.broker, scenes.take(client.broker, "x"))
    entry = audit(client.broker, "anna", "requeue", "x")
    assert "No more jobs are stored" in read(site, "/jobs", cursor=job).text
    assert "No more jobs match" in read(site, "/jobs", cursor=job, q="queue:x").text
    assert "No more exceptions" in read(site, "/exceptions", cursor="50").text
    assert "There are no more entries." in read(site, "/system", cursor=entry.id).text


def test_tabs_keep_the_rest_of_the_query(site: TestClient, client: Client) -> None:
    client.queue_job("a.B", queue="x")
    [taken] = scenes.take(client.broker, "x")
    scenes.fail(client.broker, [taken])
    client.queue_job("a.B", queue="x")
    page = read(site, "/jobs", q="queue:x status:success")
    assert "/jobs?q=queue%3Ax+status%3Afailed" in page.links
    assert "/jobs?q=queue%3Ax" in page.links
    assert "All 2 Queued 1 Success 0 Failed 1" in page.text
    assert "No job matches" in page.text


def test_queues_without_a_worker_need_one_answer(site: TestClient, client: Client) -> None:
    broker = client.broker
    old = after(broker.now(), -300.0)
    for queue in ("-odd", "mail", "mail", "two words"):
        scenes.put(broker, queue, due_at=old)
    assert "No worker claims from 3 queues" in read(site, "/").text
    assert "No worker is at work" in read(site, "/").text
    scenes.report(broker, queues=("mail",))
    overview = read(site, "/").text
    assert "No worker claims from 2 queues that stand still: -odd (1 due), two words (1 due)." in overview
    assert "mrq worker -- -odd 'two words'" in overview
    scenes.report(broker, "other.host.1", queues=("two words",))
    assert "-odd stands still: 1 due, the oldest for 5 min. No worker claims from" in read(site, "/").text


def test_a_list_of_jobs_says_why_due_jobs_wait(site: TestClient, named: dict[str, str]) -> None:
    for query, words in (
        ("queue:reports/daily", "its queue is paused"),
        ("path:shop.names.Mirrored", "no worker claims from its queue"),
        ("queue:partner status:queued", "parked under partner:acme"),
        ("path:shop.carts.Expire", "due in 24 h"),
        ("queue:mail status:queued", "due"),
    ):
        assert words in read(site, "/jobs", q=query).text, query
    assert "its queue is paused" not in read(site, "/jobs", q="queue:mail").text


def test_ages_are_by_the_clock_of_the_broker(make_site: MakeSite) -> None:
    clock = ManualClock()  # months behind the clock of the dashboard
    broker = MemoryBroker(clock=clock)
    scenes.put(broker, "default")
    now, year = broker.now(), 365 * 86_400.0
    scenes.report(broker, started_at=after(now, year - 18_000), reported_at=after(now, year), interval=600.0)
    clock.advance(300)
    site = make_site(broker=broker)
    for path, words in (("/queues", ["5 min ago"]), ("/workers", ["5 min ago", "5 h ago"])):
        shown = re.findall(r"<time [^>]*title[^>]*>([^<]+)</time>", site.get(path).text)
        assert [word for word in shown if "UTC" not in word] == words
    until(lambda: site.get("/api/system").json()["checked_at"])
    assert site.get("/api/system").json()["checked_at"] == iso(broker.now())
    assert ">now</time>" in site.get("/system").text


def test_sentences_show_exact_times_on_hover() -> None:
    sentence = (
        "a<b> \u202e has been paused for 2.7 s (2026-11-29T06:16:40.538Z), until 2026-11-30T01:02:03.000Z."
    )
    assert str(moments(sentence)) == (
        'a&lt;b&gt; \\u202e has been paused for <time datetime="2026-11-29T06:16:40Z" '
        'title="2026-11-29 06:16:40 UTC">2.7 s</time>, until <time datetime="2026-11-30T01:02:03Z" '
        'title="2026-11-30 01:02:03 UTC">2026-11-30 01:02:03 UTC</time>.'
    )
    assert str(moments("again in 9 min (2026-11-29T06:16:40.538Z)")).startswith("again <time ")
    assert str(moments("plain (text)")) == "plain (text)"


def test_a_wrong_query_is_shown_with_its_correction(site: TestClient, client: Client) -> None:
    page = read(site, "/jobs", status=400, q="queue:x staus:failed")
    assert "'staus' is no part of a query: did you mean status" in page.text
    assert "/jobs?q=queue%3Ax+status%3Afailed" in page.links
    assert any(a.get("value") == "queue:x staus:failed" for tag, a in page.elements if tag == "input")


def test_a_page_shows_the_beginning_of_large_values(site: TestClient, client: Client) -> None:
    job_id = client.queue_job("a.B", {"text": "x" * 900_000, "n": 2**63 - 1}, queue="large")
    response = site.get(f"/jobs/{job_id}")
    assert len(response.content) < 60_000
    page = PageReader(response.text)
    assert f"/api/jobs/{job_id}" in page.links
    assert "more characters are left out" in page.text
    assert "Its params are too long for a command" in page.text
    assert len(site.get("/jobs").content) < 30_000


def test_the_page_of_a_job_shows_the_end_of_a_long_log(site: TestClient, client: Client) -> None:
    job_id = client.queue_job("a.B", queue="x")
    for attempt in (1, 2):
        [taken] = scenes.take(client.broker, "x")
        for start in range(1, 3001, 1000):
            lines = [
                LogLine(
                    job_id=job_id, attempt=attempt, seq=seq, at=client.broker.now(), level="INFO",
                    message=f"line {attempt}-{seq}",
                )
                for seq in range(start, start + 1000)
            ]  # fmt: skip
            client.broker.append_logs(lines, 10_000_000)
        if attempt == 1:
            scenes.fail(client.broker, [taken], Status.RETRY, delay=0.0, is_retry=True)
    page = read(site, f"/jobs/{job_id}")
    assert page.text.count("line 1-") == page.text.count("line 2-") == 300
    assert "line 1-3000" in page.text
    assert "line 2-3000" in page.text
    assert page.text.count("2,700 earlier lines are left out") == 2
    assert {a["data-cursor"] for _, a in page.elements if "data-cursor" in a} == {"2.3000"}


def test_a_job_that_waits_again_shows_its_attempts(site: TestClient, client: Client) -> None:
    job_id = client.queue_job("a.B", queue="x")
    [taken] = scenes.take(client.broker, "x")
    scenes.fail(client.broker, [taken], Status.RETRY, delay=3600.0, is_retry=True)
    page = read(site, f"/jobs/{job_id}").text
    assert "Attempt 1 retry" in page
    assert "Due for its next attempt" in page
    assert "for its retry 1 after shop.smtp.Refused" in page
    assert f"mrq jobs edit {job_id} --in 0" in page


# --- files ------------------------------------------------------------------------------------------------


def test_the_files_of_pages_are_small() -> None:
    files = [one for one in resources.files("mrq_dashboard").joinpath("static").iterdir() if one.is_file()]
    assert sum(len(gzip.compress(one.read_bytes())) for one in files) < _MOST_GZIPPED
