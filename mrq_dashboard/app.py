"""The application: all routes in one table, and `create_dashboard`, which makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_dashboard import actions, api, openapi, pages
from mrq_dashboard.assets import PATH, Assets
from mrq_dashboard.auth import Access, Authorize, Role
from mrq_dashboard.backend import Backend
from mrq_dashboard.endpoint import Endpoint, Site, json_response
from mrq_dashboard.guard import API, Guard
from mrq_dashboard.live import PATH as EVENTS
from mrq_dashboard.live import Live
from mrq_dashboard.rendering import Renderer
from mrq_dashboard.visit import Done


def both(path: str, answer: Callable[..., Done], role: Role) -> tuple[Endpoint, Endpoint]:
    """The endpoints of an action: for forms of pages, and for programs below `API`."""
    return (
        Endpoint(method="POST", path=path, answer=answer, role=role),
        Endpoint(method="POST", path=f"{API.rstrip('/')}{path}", answer=answer, role=role),
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(method="GET", path="/", answer=pages.overview.show),
    Endpoint(method="GET", path="/queues", answer=pages.queues.queues),
    Endpoint(method="GET", path="/queues/{name:path}", answer=pages.queues.by_path),
    Endpoint(method="GET", path="/jobs", answer=pages.jobs.jobs),
    Endpoint(method="GET", path="/jobs/{id}", answer=pages.job.job),
    Endpoint(method="GET", path="/exceptions", answer=pages.exceptions.exceptions),
    Endpoint(method="GET", path="/tasks", answer=pages.tasks.tasks),
    Endpoint(method="GET", path="/tasks/{path:path}", answer=pages.tasks.task),
    Endpoint(method="GET", path="/schedules", answer=pages.schedules.schedules),
    Endpoint(method="GET", path="/workers", answer=pages.workers.workers),
    Endpoint(method="GET", path="/workers/{id:path}", answer=pages.workers.worker),
    Endpoint(method="GET", path="/limits", answer=pages.limits.limits),
    Endpoint(method="GET", path="/system", answer=pages.system.system),
    Endpoint(method="GET", path="/metrics", answer=api.stats.prometheus),
    *both("/views", actions.views.save, Role.OPERATE),
    *both("/views/delete", actions.views.delete, Role.OPERATE),
    Endpoint(method="GET", path="/api/stats", answer=api.stats.show),
    Endpoint(method="GET", path="/api/metrics", answer=api.stats.metrics),
    Endpoint(method="GET", path="/api/system", answer=api.system.show),
    Endpoint(method="GET", path="/api/audit", answer=api.system.audit),
    Endpoint(method="GET", path="/api/views", answer=api.system.views),
    Endpoint(method="GET", path="/api/queues", answer=api.queues.list_all),
    Endpoint(method="GET", path="/api/queue", answer=api.queues.show),
    Endpoint(method="GET", path="/api/jobs", answer=api.jobs.list_all),
    Endpoint(method="GET", path="/api/jobs/counts", answer=api.jobs.counts),
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
    Endpoint(method="GET", path="/api/limits", answer=api.limits.list_all),
)
"""All routes except those of files, probes and the stream of events."""


def create_dashboard(
    config: Config | None = None,
    *,
    authorize: Authorize | None = None,
    client: Client | None = None,
    hosts: Collection[str] | None = None,
) -> Starlette:
    """Makes the application, for a server or for `Mount` in a Starlette or FastAPI application.

    `config`: the configuration that the command line finds, if None. `authorize` tells who a visitor is, for
    each request; without it, DASHBOARD_HTTPAUTH and DASHBOARD_TOKEN decide, and without these each visitor
    has all rights. `client` is a client to use, which the application does not close. `hosts`: the names that
    the Host header may have; None: any, because the host application or its proxy checks them.

    A server that stops waits for open streams, unless it calls `app.state.live.stop()`, as `mrq dashboard`
    does, or bounds its graceful stop.

    Raises ConfigError. Connects when a page is first asked for.
    """
    config = load_config() if config is None else config
    backend = Backend(config, client)
    assets = Assets()
    site = Site(backend, Access(config, authorize), Renderer(config, assets))

    live = Live(site)

    async def http_error(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = f"there is no page at {request.scope['path']}" if status == 404 else f"status {status}"
        is_api = request.scope["path"].removeprefix(request.scope.get("root_path", "")).startswith(API)
        visitor = await site.access.visitor(request)
        if visitor is not None:
            request.state.visitor = visitor
        return site.problem(request, status, text, is_api=is_api)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        live.stop()
        if client is None:
            backend.close()

    routes = [
        Route(PATH, assets.serve, methods=["GET"]),
        Route(EVENTS, live.serve, methods=["GET"]),
        Route("/healthz", _healthz, methods=["GET"]),
        Route("/api/openapi.json", _openapi, methods=["GET"]),
        *(Route(one.path, site.handler(one), methods=[one.method]) for one in ENDPOINTS),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={HTTPException: http_error},
        lifespan=lifespan,
    )
    app.state.site = site
    app.state.live = live
    return app


async def _openapi(request: Request) -> Response:
    """The OpenAPI document, which holds nothing of the broker."""
    return json_response(openapi.document(ENDPOINTS, request.scope.get("root_path", "")))


async def _healthz(request: Request) -> Response:
    """Whether the process answers; does not ask the broker."""
    return PlainTextResponse("ok\n")
