"""Foreign hosts, long addresses, large bodies, and the headers of each answer."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mrq_dashboard.guard import MOST_BODY, MOST_URL
from tests.dashboard.conftest import MakeSite, local_client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:5555", 200), ("127.0.0.1:80", 200), ("[::1]:5555", 200),
        ("localhost.", 200), ("evil.example", 403), ("localhost.evil.example", 403), ("", 403),
        ("evil.example:localhost", 403), ("127.0.0.1.", 200),
    ],
)  # fmt: skip
def test_only_the_hosts_of_the_dashboard_are_answered(host: str, status: int, make_site: MakeSite) -> None:
    site = make_site(hosts=["localhost", "127.0.0.1", "::1"])
    assert site.get("/queues", headers={"host": host}).status_code == status


def test_a_foreign_host_reaches_no_file(make_site: MakeSite) -> None:
    site = make_site(hosts=["localhost"])
    for path in ("/static/x/style.css", "/api/openapi.json", "/nothing", "/healthz/", "//healthz"):
        assert site.get(path, headers={"host": "evil.example"}).status_code == 403


def test_a_probe_is_answered_by_whatever_name_it_reaches_the_machine(make_site: MakeSite) -> None:
    site = make_site(hosts=["localhost"], dashboard_httpauth="anna:secret")
    for host in ("10.0.0.7:5555", ""):  # an address of a pod, and HTTP/1.0
        assert site.get("/healthz", headers={"host": host}).text == "ok\n"


@pytest.mark.parametrize("path", ["/api/queues?prefix=%ff", "/api/jobs/%ff", "/queues?prefix=a%C3"])
def test_an_address_that_is_not_utf_8_is_refused(path: str, make_site: MakeSite) -> None:
    answer = make_site().get(path)
    assert answer.status_code == 400
    assert "UTF-8" in answer.text


def test_a_long_address_is_refused(make_site: MakeSite) -> None:
    assert make_site().get("/queues", params={"name": "x" * MOST_URL}).status_code == 414


@pytest.mark.parametrize("length", [str(MOST_BODY + 1), "9" * 5000, "-1", "x"])
def test_a_large_body_is_refused_by_its_length(length: str, make_site: MakeSite) -> None:
    answer = make_site().post("/api/queues", headers={"content-length": length}, content=b"x")
    assert answer.status_code == 413


def test_each_answer_forbids_foreign_scripts_and_frames(make_site: MakeSite) -> None:
    site = make_site()
    for path in ("/queues", "/api/queues", "/nothing", "/healthz", "/queues?x=1"):
        headers = site.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_nonce_differs_for_each_page_and_is_on_its_scripts(make_site: MakeSite) -> None:
    site = make_site()
    nonces = set()
    for _ in range(2):
        answer = site.get("/queues")
        found = re.search(r"script-src 'nonce-([^']+)'", answer.headers["content-security-policy"])
        assert found is not None
        assert set(re.findall(r'nonce="([^"]+)"', answer.text)) == {found[1]}
        nonces.add(found[1])
    assert len(nonces) == 2


def test_no_page_has_an_inline_script_handler_or_style(make_site: MakeSite) -> None:
    text = make_site().get("/queues").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", text)


def test_files_have_addresses_that_a_browser_may_keep(make_site: MakeSite) -> None:
    site = make_site()
    paths = re.findall(r'(?:src|href)="(/static/[^"]+)"', site.get("/queues").text)
    assert {path.rpartition("/")[2] for path in paths} >= {"style.css", "mrq.js", "icon.svg"}
    for path in paths:
        assert "immutable" in site.get(path).headers["cache-control"]
    assert site.get("/static/other/style.css").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["/static/x/../app.py", "/static/x/%2e%2e%2fapp.py", "/static/x/..%2f..%2fpyproject.toml", "/static/x/",
     "/static/%00/style.css%00", "/static/x/%2fetc%2fpasswd"],
)  # fmt: skip
def test_no_address_leads_to_another_file(path: str, make_site: MakeSite) -> None:
    assert make_site().get(path).status_code == 404


def test_it_works_inside_another_application(make_site: MakeSite) -> None:
    inner = make_site().app
    site = local_client(Starlette(routes=[Mount("/tools/mrq", inner)]))
    text = site.get("/tools/mrq/queues").text
    links = re.findall(r'(?:src|href)="(/[^"]*)"', text)
    assert links
    assert all(link.startswith("/tools/mrq/") for link in links)
    for link in links:
        if "/static/" in link:
            assert site.get(link).status_code == 200
    assert site.get("/tools/mrq/api/queues").json()["queues"] == []
    assert site.get("/tools/mrq/nothing").status_code == 404
    assert site.get("/tools/mrq/api/nothing").json()["error"]["status"] == 404


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/jobs/", "/jobs"),
        ("/jobs//?q=a%20b&x", "/jobs?q=a%20b&x"),
        ("/api/jobs/", "/api/jobs"),
        ("/jobs/%3Fx%25%C3%A4/", "/jobs/%3Fx%25%C3%A4"),
        ("/jobs/bulk/", "/jobs/bulk"),
    ],
)
@pytest.mark.parametrize("root", ["", "/tools/mrq"])
def test_a_slash_too_many_leads_on_without_a_host(
    path: str, location: str, root: str, make_site: MakeSite
) -> None:
    """A proxy has another name and scheme."""
    inner = make_site().app
    site = local_client(Starlette(routes=[Mount(root, inner)]))
    answer = site.get(root + path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, root + location)


@pytest.mark.parametrize("path", ["/none/", "//", "//evil.example/jobs/", "//jobs/", "/api/"])
def test_a_path_that_leads_nowhere_leads_nowhere_without_its_slash(path: str, make_site: MakeSite) -> None:
    answer = make_site().get(f"http://localhost{path}", follow_redirects=False)
    assert answer.status_code == 404


def test_the_place_in_another_application_needs_no_slash(make_site: MakeSite) -> None:
    inner = make_site().app
    site = local_client(inner, root_path="/mrq")
    answer = site.get("/mrq", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/mrq/")
