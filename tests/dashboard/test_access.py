"""Who may ask what: logins, tokens, roles, the host application's answer, and requests of other sites."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mrq_core.errors import ConfigError
from mrq_dashboard import Role, Visitor
from mrq_dashboard.app import ENDPOINTS
from mrq_dashboard.auth import SAFE_METHODS
from mrq_dashboard.endpoint import Endpoint
from tests.dashboard.conftest import MakeSite

LOGIN, TOKEN = "anna:a:b ü", "t0ken"
ID = "6b0b7a0e1ff3cab5511319ef"
_VARIABLE = re.compile(r"\{\w+(?::path)?\}")


def basic(login: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def address(endpoint: Endpoint) -> str:
    return _VARIABLE.sub(ID, endpoint.path)


def test_the_table_has_each_method_and_path_once() -> None:
    rows = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    "headers", [{}, basic("anna:wrong"), {"authorization": "Bearer x"}, {"authorization": "Basic ?"}]
)
def test_no_route_answers_a_stranger(headers: dict[str, str], make_site: MakeSite) -> None:
    site = make_site(dashboard_httpauth=LOGIN)
    for endpoint in ENDPOINTS:
        answer = site.request(endpoint.method, address(endpoint), headers=headers, follow_redirects=False)
        assert answer.status_code == 401, endpoint
        assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("role", list(Role))
def test_a_role_below_that_of_a_route_is_refused(role: Role, make_site: MakeSite) -> None:
    site = make_site(authorize=lambda request: role)
    headers = {"sec-fetch-site": "same-origin"}
    for endpoint in ENDPOINTS:
        status = site.request(
            endpoint.method, address(endpoint), headers=headers, follow_redirects=False
        ).status_code
        assert (status == 403) is (role < endpoint.role), endpoint
        assert status < 500, endpoint


def test_each_route_that_changes_something_needs_more_than_reading() -> None:
    for endpoint in ENDPOINTS:
        assert endpoint.method in SAFE_METHODS or endpoint.role > Role.READ, endpoint


@pytest.mark.parametrize("headers", [basic(LOGIN), {"authorization": f"Bearer {TOKEN}"}])
def test_the_login_and_the_token_open_the_dashboard(headers: dict[str, str], make_site: MakeSite) -> None:
    site = make_site(dashboard_httpauth=LOGIN, dashboard_token=TOKEN)
    assert site.get("/api/queues", headers=headers).status_code == 200


def test_the_page_names_the_visitor(make_site: MakeSite) -> None:
    site = make_site(dashboard_httpauth=LOGIN)
    assert "anna, write" in site.get("/queues", headers=basic(LOGIN)).text


async def _later(request: Request) -> str:
    return "operate"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda request: None, 401),
        (lambda request: "read", 200),
        (lambda request: Visitor(name="x", role=Role.READ), 200),
        (lambda request: Visitor(name="x", role="read"), 200),  # type: ignore[arg-type]
        (_later, 200),
    ],
)
def test_the_host_application_answers_who_a_visitor_is(answer: Any, status: int, make_site: MakeSite) -> None:
    assert make_site(authorize=answer).get("/api/queues").status_code == status


@pytest.mark.parametrize(
    "answer",
    ["admin", "", 7, True, Visitor(name="x", role=3), Visitor(name=None, role=Role.READ)],  # type: ignore[arg-type]
)
@pytest.mark.parametrize("path", ["/api/queues", "/api/nothing"])
def test_an_answer_that_is_no_role_is_an_error_of_the_host(
    answer: Any, path: str, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    answered = make_site(authorize=lambda request: answer).get(path)
    assert answered.status_code == 500
    assert "authorize" in answered.json()["error"]["message"]
    assert "dashboard.broke" in caplog.text


def test_a_host_that_fails_is_an_error_of_each_page(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    def authorize(request: object) -> None:
        raise RuntimeError("no database at anna:secret@db")

    site = make_site(authorize=authorize)
    for path in ("/queues", "/nothing", "/api/nothing"):
        answer = site.get(path)
        assert answer.status_code == 500
        assert "authorize raised RuntimeError" in answer.text
        assert "no database" not in answer.text  # a stranger reads it
    assert "no database" in caplog.text


def test_a_host_that_fails_has_let_nothing_be_done(make_site: MakeSite) -> None:
    answer = make_site(authorize=lambda request: 1 / 0).post("/api/queue/pause", json={"name": "q"})
    assert (answer.status_code, "may have been done" in answer.text) == (500, False)


@pytest.mark.parametrize("path", ["/queues", "/api/queues", "/nothing"])
def test_the_host_application_refuses_a_visitor_with_its_status_and_headers(
    path: str, make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    def authorize(request: object) -> None:
        raise HTTPException(401, "ask Anna", headers={"WWW-Authenticate": "Negotiate"})

    answer = make_site(authorize=authorize).get(path)
    if path != "/nothing":
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Negotiate")
        assert "ask Anna" in answer.text
    assert answer.status_code in (401, 404)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"dashboard_httpauth": "anna"},
        {"dashboard_httpauth": "anna:secret\n"},
        {"dashboard_httpauth": "anna:"},  # as `anna:$PASSWORD` leaves it where the variable is not set
        {"dashboard_httpauth": ":secret"},
        {"dashboard_httpauth": ":"},
        {"dashboard_token": "two words"},
    ],
)
def test_a_login_without_a_password_is_refused(settings: dict[str, str], make_site: MakeSite) -> None:
    with pytest.raises(ConfigError):
        make_site(**settings)


# --- requests that change something -------------------------------------------------------------------

VIEW = {"name": "broken", "query": "status:failed"}
FROM_HERE = [
    {"sec-fetch-site": "same-origin"},
    {"origin": "http://localhost"},
    {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
]
FROM_ELSEWHERE: list[dict[str, str]] = [
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
    {"origin": "http://evil.example"},
    {"origin": "http://localhost.evil.example"},
    {"origin": "http://localhost:81"},
    {"origin": "null"},
    {"origin": ""},
]


@pytest.mark.parametrize("headers", FROM_HERE, ids=str)
def test_a_page_of_the_dashboard_may_change_things(headers: dict[str, str], make_site: MakeSite) -> None:
    site = make_site()
    assert site.post("/api/views", json=VIEW, headers=headers).status_code == 200
    assert len(site.get("/api/views").json()["views"]) == 1


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
def test_a_page_of_another_site_may_not(headers: dict[str, str], make_site: MakeSite) -> None:
    site = make_site(dashboard_httpauth=LOGIN)
    for path, sent in (("/api/views", {"json": VIEW}), ("/views", {"data": {"name": "x", "q": ""}})):
        answer = site.post(path, headers={**basic(LOGIN), **headers}, **sent)  # type: ignore[arg-type]
        assert answer.status_code == 403
    assert site.get("/api/views", headers=basic(LOGIN)).json()["views"] == []


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
def test_a_program_with_a_token_may(headers: dict[str, str], make_site: MakeSite) -> None:
    site = make_site(dashboard_token=TOKEN)
    token = {"authorization": f"Bearer {TOKEN}"}
    assert site.post("/api/views", json=VIEW, headers={**token, **headers}).status_code == 200


def test_who_reads_only_saves_no_view(make_site: MakeSite) -> None:
    site = make_site(authorize=lambda request: "read")
    answer = site.post("/api/views", json=VIEW, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 403
    assert "the role operate" in answer.json()["error"]["message"]
    assert "Save this query" not in site.get("/jobs?q=status:failed").text
