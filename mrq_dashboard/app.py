"""The application: all routes in one table, and `create_dashboard`, which makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from urllib.parse import quote

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Match, Route

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_dashboard import actions, api, openapi, pages
from mrq_dashboard.actions import limits, queues, schedules, tasks, workers
from mrq_dashboard.assets import PATH, Assets
from mrq_dashboard.auth import Access, Authorize, Role
from mrq_dashboard.backend import Backend
from mrq_dashboard.endpoint import Endpoint, Site, json_response
from mrq_dashboard.guard import API, PROBE, Guard, is_of_api
from mrq_dashboard.hosts import Hosts
from mrq_dashboard.live import PATH as EVENTS
from mrq_dashboard.live import Live
from mrq_dashboard.rendering import Renderer
from mrq_dashboard.visit import Done, Page


def both(path: str, answer: Callable[..., Done], role: Role) -> tuple[Endpoint, Endpoint]:
    """The endpoints of an action: for forms of pages, and for programs below `API`."""
    return (
        Endpoint(method="POST", path=path, answer=answer, role=role),
        Endpoint(method="POST", path=f"{API.rstrip('/')}{path}", answer=answer, role=role),
    )


def asked(
    path: str, answer: Callable[..., Done], role: Role, ask: Callable[..., Page]
) -> tuple[Endpoint, ...]:
    """The endpoints of an action, and the page that asks for confirmation at the same path."""
    return (Endpoint(method="GET", path=path, answer=ask, role=role), *both(path, answer, role))


def named(
    one: str,
    many: str,
    verb: str,
    answer: Callable[..., Done],
    role: Role,
    *,
    ask: Callable[..., Page] | None = None,
    key: str = "name",
) -> tuple[Endpoint, ...]:
    """The endpoints of an action on a thing with a name. The inputs or the path have the name; a name such as
    ``..`` or ``/a`` is safe in the inputs only. `ask`: the page that asks for confirmation."""
    path = f"/{one}/{verb}"
    in_path = Endpoint(method="POST", path=f"/api/{many}/{{{key}:path}}/{verb}", answer=answer, role=role)
    asking = () if ask is None else (Endpoint(method="GET", path=path, answer=ask, role=role),)
    return (*asking, *both(path, answer, role), in_path)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(method="GET", path="/", answer=pages.overview.show),
    Endpoint(method="GET", path="/queues", answer=pages.queues.queues),
    Endpoint(method="GET", path="/queues/{name:path}", answer=pages.queues.by_path),
    Endpoint(method="GET", path="/jobs", answer=pages.jobs.jobs),
    Endpoint(method="GET", path="/jobs/bulk", answer=pages.bulk.bulks),
    Endpoint(method="GET", path="/jobs/bulk/new", answer=pages.bulk.ask_bulk, role=Role.OPERATE),
    *both("/jobs/bulk", actions.bulk.start, Role.OPERATE),
    *both("/jobs/bulk/{id}/stop", actions.bulk.stop, Role.OPERATE),
    *asked("/jobs/{id}/requeue", actions.jobs.requeue, Role.OPERATE, pages.job_actions.ask_requeue),
    *asked("/jobs/{id}/cancel", actions.jobs.cancel, Role.OPERATE, pages.job_actions.ask_cancel),
    *asked("/jobs/{id}/move", actions.jobs.move, Role.OPERATE, pages.job_actions.ask_move),
    *asked("/jobs/{id}/priority", actions.jobs.priority, Role.OPERATE, pages.job_actions.ask_priority),
    *asked("/jobs/{id}/remove", actions.jobs.remove, Role.WRITE, pages.job_actions.ask_remove),
    *asked("/jobs/{id}/edit", actions.jobs.edit, Role.WRITE, pages.job_actions.ask_edit),
    *asked("/jobs/{id}/rerun", actions.jobs.rerun, Role.WRITE, pages.job_actions.ask_rerun),
    Endpoint(method="GET", path="/jobs/{id}", answer=pages.job.job),
    Endpoint(method="GET", path="/exceptions", answer=pages.exceptions.exceptions),
    Endpoint(method="GET", path="/tasks", answer=pages.tasks.tasks),
    Endpoint(method="GET", path="/tasks/{path:path}", answer=pages.tasks.task),
    Endpoint(method="GET", path="/schedules", answer=pages.schedules.schedules),
    Endpoint(method="GET", path="/workers", answer=pages.workers.workers),
    Endpoint(method="GET", path="/workers/{id:path}", answer=pages.workers.worker),
    Endpoint(method="GET", path="/worker/log", answer=pages.worker_answers.log),
    Endpoint(method="GET", path="/worker/stack", answer=pages.worker_answers.stack),
    Endpoint(method="GET", path="/worker/answer", answer=pages.worker_answers.answer),
    Endpoint(method="GET", path="/limits", answer=pages.limits.limits),
    Endpoint(method="GET", path="/system", answer=pages.system.system, away=pages.system.away),
    Endpoint(method="GET", path="/metrics", answer=api.stats.prometheus),
    *both("/views", actions.views.save, Role.OPERATE),
    *both("/views/delete", actions.views.delete, Role.OPERATE),
    *named("queue", "queues", "pause", queues.pause, Role.OPERATE, ask=queues.ask_pause),
    *named("queue", "queues", "resume", queues.resume, Role.OPERATE),
    *named("queue", "queues", "move", queues.move, Role.OPERATE, ask=queues.ask_move),
    *named("queue", "queues", "purge", queues.purge, Role.WRITE, ask=queues.ask_purge),
    *named("task", "tasks", "pause", tasks.pause, Role.OPERATE, ask=tasks.ask_pause, key="path"),
    *named("task", "tasks", "resume", tasks.resume, Role.OPERATE, key="path"),
    *named("task", "tasks", "queue", tasks.queue, Role.WRITE, ask=tasks.ask_queue, key="path"),
    *named("schedule", "schedules", "run", schedules.run, Role.OPERATE),
    *named("schedule", "schedules", "pause", schedules.pause, Role.OPERATE, ask=schedules.ask_pause),
    *named("schedule", "schedules", "resume", schedules.resume, Role.OPERATE),
    *named("schedule", "schedules", "backfill", schedules.backfill, Role.WRITE, ask=schedules.ask_backfill),
    *named("schedule", "schedules", "edit", schedules.edit, Role.WRITE, ask=schedules.ask_edit),
    *named("schedule", "schedules", "delete", schedules.delete, Role.WRITE, ask=schedules.ask_delete),
    Endpoint(method="GET", path="/schedule/add", answer=schedules.ask_add, role=Role.WRITE),
    *both("/schedule/add", schedules.add, Role.WRITE),
    *named("worker", "workers", "stop", workers.stop, Role.OPERATE, ask=workers.ask_stop),
    *named("worker", "workers", "drain", workers.drain, Role.OPERATE, ask=workers.ask_drain),
    *named("worker", "workers", "profile", workers.profile, Role.OPERATE, ask=workers.ask_profile),
    Endpoint(method="GET", path="/limit/set", answer=limits.ask_set, role=Role.WRITE),
    *both("/limit/set", limits.set_rule, Role.WRITE),
    Endpoint(method="GET", path="/limit/remove", answer=limits.ask_remove, role=Role.WRITE),
    *both("/limit/remove", limits.remove_rule, Role.WRITE),
    Endpoint(method="GET", path="/api/stats", answer=api.stats.show),
    Endpoint(method="GET", path="/api/metrics", answer=api.stats.metrics),
    Endpoint(method="GET", path="/api/system", answer=api.system.show, away=api.system.away),
    Endpoint(method="GET", path="/api/audit", answer=api.system.audit),
    Endpoint(method="GET", path="/api/views", answer=api.system.views),
    Endpoint(method="GET", path="/api/queues", answer=api.queues.list_all),
    Endpoint(method="GET", path="/api/queue", answer=api.queues.show),
    Endpoint(method="GET", path="/api/jobs", answer=api.jobs.list_all),
    Endpoint(method="GET", path="/api/jobs/counts", answer=api.jobs.counts),
    Endpoint(
        method="GET",
        path="/api/jobs/export",
        answer=api.exporting.export,
        media_types=(api.exporting.JSON_LINES, api.exporting.CSV),
    ),
    Endpoint(method="GET", path="/api/jobs/bulk", answer=api.bulk.list_all),
    Endpoint(method="GET", path="/api/jobs/bulk/{id}", answer=api.bulk.show),
    Endpoint(method="GET", path="/api/jobs/{id}", answer=api.jobs.show),
    Endpoint(method="GET", path="/api/jobs/{id}/logs", answer=api.jobs.logs),
    Endpoint(method="GET", path="/api/jobs/{id}/explain", answer=api.jobs.explain),
    Endpoint(method="GET", path="/api/exceptions", answer=api.exceptions.list_all),
    Endpoint(method="GET", path="/api/suggestions", answer=api.search.suggest),
    Endpoint(method="GET", path="/api/tasks", answer=api.tasks.list_all),
    Endpoint(method="GET", path="/api/tasks/{path:path}", answer=api.tasks.show),
    Endpoint(method="GET", path="/api/schedules", answer=api.schedules.list_all),
    Endpoint(method="GET", path="/api/schedules/{name:path}", answer=api.schedules.show),
    Endpoint(method="GET", path="/api/workers", answer=api.workers.list_all),
    Endpoint(method="GET", path="/api/workers/{name:path}", answer=api.workers.show),
    Endpoint(method="GET", path="/api/worker/log", answer=api.workers.log),
    Endpoint(method="GET", path="/api/worker/stack", answer=api.workers.stack),
    Endpoint(method="GET", path="/api/worker/answer", answer=api.workers.answer),
    Endpoint(method="GET", path="/api/limits", answer=api.limits.list_all),
    Endpoint(method="GET", path="/api/limits/keys", answer=api.limits.keys),
)
"""All routes except those of files, probes and the stream of events."""


def create_dashboard(
    config: Config | None = None,
    *,
    authorize: Authorize | None = None,
    client: Client | None = None,
    hosts: Collection[str] | None = None,
    insecure: bool = False,
) -> Starlette:
    """Makes the application, for a server or for `Mount` in a Starlette or FastAPI application.

    `config`: the configuration that the command line finds, if None. `authorize` tells who a visitor is, for
    each request; without it, DASHBOARD_HTTPAUTH and DASHBOARD_TOKEN decide. Without these each visitor has
    all rights, and must come from this machine; `insecure` admits other machines, too. `client` is a client
    to use, which the application does not close. `hosts`: the names that the Host header may have, without
    ports; None: `localhost`, addresses, and DASHBOARD_HOSTS. With "*" among them, the host application must
    check the header itself: else a page of any site can act through the browser of a visitor.

    A server that stops waits for open streams, unless it calls `app.state.live.stop()`, as `mrq dashboard`
    does, or bounds its graceful stop. A host application that does not run the lifespan of this one may call
    `app.state.runner.wake()` at its start, so that bulk actions of dead processes go on.

    Raises ConfigError. Connects at the start of its lifespan, or when a page is first asked for.
    """
    config = load_config() if config is None else config
    backend = Backend(config, client)
    assets = Assets()
    access = Access(config, authorize)
    site = Site(backend, access, Renderer(config, assets))
    known = Hosts.of(config) if hosts is None else Hosts(hosts, with_addresses=False)

    live = Live(site)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, headers = error.status_code, dict(error.headers or {})
        if status == 404 and (url := _with_other_slash(request, routes)) is not None:
            return RedirectResponse(url, status_code=307)
        text = error.detail or f"status {status}"
        if status == 404:
            text = f"there is no page at {request.scope['path']}"
        elif status == 405:
            headers["Allow"] = allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))  # of a set
            text = f"there is no {request.method} at {request.scope['path']}: expected {allowed}"
        is_api = is_of_api(request.scope["path"].removeprefix(request.scope.get("root_path", "")))
        try:
            visitor = await site.access.visitor(request)
        except HTTPException:  # as a rule the error to answer: the host's function refuses so
            visitor = None
        except Exception as wrong:  # of the host's function
            return site.failure(request, wrong, is_api=is_api)
        if visitor is not None:
            request.state.visitor = visitor
        return site.problem(request, status, text, is_api=is_api, headers=headers)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        backend.begin()  # also where the application has ended before, as between two tests
        live.begin()
        yield
        live.stop()
        await to_thread.run_sync(backend.runner.stop)
        if client is None:
            backend.close()

    routes = [
        Route(PATH, assets.serve, methods=["GET"]),
        Route(EVENTS, live.serve, methods=["GET"]),
        Route(PROBE, _healthz, methods=["GET"]),
        Route("/api/openapi.json", _openapi, methods=["GET"]),
        *(Route(one.path, site.handler(one, _asking(one)), methods=[one.method]) for one in ENDPOINTS),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=known, is_local_only=access.is_open and not insecure)],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.site = site
    app.state.live = live
    app.state.runner = backend.runner
    return app


def _asking(endpoint: Endpoint) -> Endpoint | None:
    """The page with the form of an action: of the same path, for the same role."""
    if not endpoint.is_action or endpoint.is_api:
        return None
    return next((one for one in ENDPOINTS if _asks_for(one, endpoint)), None)


def _asks_for(page: Endpoint, action: Endpoint) -> bool:
    return not page.is_action and (page.path, page.role) == (action.path, action.role)


def _with_other_slash(request: Request, routes: Collection[Route]) -> str | None:
    """The address of the page whose path was sent with another number of slashes at its end. It names no
    host: behind a proxy, this process does not know its own. None: there is no such page, or the path as sent
    has a route, which has found nothing: to send the browser on could send it back and forth."""
    path: str = request.scope["path"]
    other = path.rstrip("/") if path.endswith("/") else f"{path}/"

    def has_route(path: str) -> bool:
        scope = {**request.scope, "path": path}
        return any(route.matches(scope)[0] is not Match.NONE for route in routes)

    if has_route(path) or not has_route(other):
        return None
    return quote(other) + (f"?{request.url.query}" if request.url.query else "")


async def _openapi(request: Request) -> Response:
    """The OpenAPI document, which holds nothing of the broker."""
    return json_response(openapi.document(ENDPOINTS, request.scope.get("root_path", "")))


async def _healthz(request: Request) -> Response:
    """Whether the process answers; does not ask the broker."""
    return PlainTextResponse("ok\n")
