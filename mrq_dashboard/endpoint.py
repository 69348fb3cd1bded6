"""One row of the table of routes, and the way of a request through it: who, what, where from, the answer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from mrq_core.errors import (
    BrokerCorrupt,
    BrokerUnavailable,
    CallRefused,
    ChangedMeanwhile,
    ChangeRefused,
    ConfigError,
    InvalidParams,
    InvalidValue,
    JobNotFound,
    MrqError,
    RepeatRefused,
    RequestFailed,
    SchemaTooNew,
    shown_error,
)
from mrq_dashboard import acting
from mrq_dashboard.auth import SAFE_METHODS, Access, AuthorizeFailed, Role, comes_from_here, has_token
from mrq_dashboard.backend import Backend
from mrq_dashboard.guard import API, BodyRefused
from mrq_dashboard.inputs import inputs_among, items_of, read_inputs
from mrq_dashboard.refused_forms import with_problem
from mrq_dashboard.rendering import Renderer
from mrq_dashboard.visit import Answer, Forbidden, Json, NoInputs, NotFound, Page, Redirect, Visit

_log = logging.getLogger("mrq.dashboard")
_RETRY = 3
"""Seconds after which a page about a broker that is away is loaded again."""
_REASONS: dict[int, str] = {
    400: "This address or form has a wrong value",
    401: "Log in",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    408: "Too slow",
    409: "Not done",
    413: "Too large",
    503: "The broker does not answer",
    500: "An error in mrq",
}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A method and a path, the function that answers, and the role that a visitor needs.

    The function runs in a thread. Its second parameter, if it has one, is a Struct: the inputs that it takes;
    its docstring describes the endpoint in the OpenAPI document.
    """

    method: str
    path: str
    answer: Callable[..., Answer]
    role: Role = Role.READ
    away: Callable[[Visit, str], Answer] | None = None
    """Answers instead while the broker is away, for the text of the error. Asks no broker."""
    media_types: tuple[str, ...] = ("application/json",)
    """Those of the answers, for programs."""

    @property
    def inputs(self) -> type[msgspec.Struct]:
        """The inputs of the function."""
        parameters = list(inspect.signature(self.answer, eval_str=True).parameters.values())
        return parameters[1].annotation if len(parameters) > 1 else NoInputs

    @property
    def is_api(self) -> bool:
        """Whether programs use it: errors are JSON."""
        return self.path.startswith(API)

    @property
    def is_action(self) -> bool:
        """Whether it changes something: see `mrq_dashboard.acting`."""
        return self.method not in SAFE_METHODS


class Site:
    """What all endpoints of an application use."""

    def __init__(self, backend: Backend, access: Access, renderer: Renderer) -> None:
        self.backend = backend
        self.access = access
        self.renderer = renderer

    def handler(self, endpoint: Endpoint, asking: Endpoint | None = None) -> Callable[[Request], Any]:
        """The function that Starlette calls. `asking`: the page whose form the action answers."""
        inputs_kind = endpoint.inputs

        async def handle(request: Request) -> Response:
            # A script of the page sends a form, and shows the text of an error in its dialog.
            is_api = endpoint.is_api or (endpoint.is_action and "x-fragment" in request.headers)
            try:
                refused = await self.refusal(request, role=endpoint.role, is_api=is_api)
                if refused is not None:
                    return refused
                sent = await read_inputs(request, inputs_kind, is_page=not endpoint.is_api)
                visit = self._visit(request, sent.own)
                given = () if inputs_kind is NoInputs else (sent.inputs,)

                def answer() -> Response:
                    if not endpoint.is_action:
                        return self._response(visit, endpoint.answer(visit, *given))
                    key = request.headers.get("idempotency-key") if endpoint.is_api else None
                    asked = acting.Request(
                        visit=visit, act=lambda one: endpoint.answer(one, *given), inputs=sent.inputs,
                        key=key, is_api=endpoint.is_api,
                    )  # fmt: skip
                    return self._response(visit, acting.do(asked))

                longer = acting.LONGER if endpoint.is_action else 1.0
                return await self.backend.ask(answer, longer=longer)
            except (HTTPException, BodyRefused):
                raise
            except ClientDisconnect:  # the answer reaches no client, and nothing was done
                return Response(status_code=400)
            except BrokerUnavailable as error:
                if endpoint.away is None:
                    return self.failure(request, error, is_api=is_api)
                return self._response(visit := self._visit(request), endpoint.away(visit, str(error)))
            except Exception as error:
                if asking is None or is_api or status_of(error) not in (400, 409):
                    return self.failure(request, error, is_api=is_api)
                return await self._form_again(request, asking, error)

        return handle

    async def _form_again(self, request: Request, asking: Endpoint, error: Exception) -> Response:
        """The form with what was typed and the error, or the error alone."""
        try:
            items = await items_of(request) or []
            inputs, visit = inputs_among(items, asking.inputs), self._visit(request)
            given = () if asking.inputs is NoInputs else (inputs,)
            path = error.path if isinstance(error, InvalidValue) else None

            def answer() -> Response:
                page = asking.answer(visit, *given)
                assert isinstance(page, Page)
                return self._response(visit, with_problem(page, items, str(error), path, status_of(error)))

            return await self.backend.ask(answer)
        except MrqError:  # the thing of the form is gone, or the broker is away
            return self.failure(request, error, is_api=False)

    async def refusal(self, request: Request, *, role: Role, is_api: bool) -> Response | None:
        """The answer for a visitor who may not send this request, or None. Notes the visitor."""
        visitor = await self.access.visitor(request)
        if visitor is None:
            headers = {"www-authenticate": self.access.challenge}
            text = "valid credentials are needed: a login or a bearer token"
            return self.problem(request, 401, text, is_api=is_api, headers=headers)
        request.state.visitor = visitor
        if visitor.role < role:
            text = f"this needs the role {role}, and {visitor.name} has {visitor.role}"
            return self.problem(request, 403, text, is_api=is_api)
        if request.method not in SAFE_METHODS and not has_token(request) and not comes_from_here(request):
            text = "the request does not come from a page of this dashboard; programs use a bearer token"
            return self.problem(request, 403, text, is_api=is_api)
        return None

    def _visit(self, request: Request, own: Mapping[str, str] = MappingProxyType({})) -> Visit:
        root = request.scope.get("root_path", "").rstrip("/")
        path = request.scope["path"]
        return Visit(
            client=self.backend.client,
            task_history=self.backend.task_history,
            slot_history=self.backend.slot_history,
            reached=self.backend.reached,
            day=self.backend.day,
            known_successes=self.backend.known_successes,
            health=self.backend.health,
            shared=self.backend.shared,
            runner=self.backend.runner,
            visitor=request.state.visitor,
            root=root,
            path=path.removeprefix(root) or "/",
            query=request.scope.get("query_string", b"").decode("latin-1"),
            nonce=request.state.nonce,
            is_fragment="x-fragment" in request.headers,
            names=request.path_params,
            own=own,
            referer=acting.referer_of(request),
        )

    def _response(self, visit: Visit, answer: Answer) -> Response:
        response = self._made(visit, answer)
        if response.status_code == 503:
            response.headers["retry-after"] = str(_RETRY)
        return response

    def _made(self, visit: Visit, answer: Answer) -> Response:
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, Page):
            return self.renderer.page(visit, answer)
        if isinstance(answer, Redirect):
            return RedirectResponse(answer.url, status_code=303)
        if isinstance(answer, Json):
            return json_response(answer.value, answer.status)
        return json_response(answer)

    def failure(self, request: Request, error: Exception, *, is_api: bool) -> Response:
        """The answer for an error."""
        status = status_of(error)
        if status == 500:
            if isinstance(error, BrokerCorrupt | SchemaTooNew):  # it says what an operator has to do
                _log.error("dashboard.broke path=%s error=%s", request.scope["path"], error)
            else:
                _log.error("dashboard.broke path=%s", request.scope["path"], exc_info=error)
        text = (
            str(error) if isinstance(error, MrqError) else f"{shown_error(error)}; the log has the traceback"
        )
        # `authorize` is asked before anything is done.
        if status >= 500 and request.method not in SAFE_METHODS and not isinstance(error, AuthorizeFailed):
            part = " in part" if isinstance(error, CallRefused) else ""
            text += f". The action may have been done{part}: look before you repeat it"
        path = error.path if isinstance(error, InvalidValue) else None
        return self.problem(request, status, text, is_api=is_api, path=path)

    def problem(
        self,
        request: Request,
        status: int,
        text: str,
        *,
        is_api: bool,
        headers: dict[str, str] | None = None,
        path: str | None = None,
    ) -> Response:
        """The answer of a request that failed, as a page or as JSON. Does not ask the broker."""
        if is_api:
            value = {"error": {"status": status, "message": text, **({"path": path} if path else {})}}
            response = json_response(value, status)
        elif status == 401 or not hasattr(request.state, "visitor"):
            response = self.renderer.bare(request, status, _REASONS.get(status, "Error"), text)
        else:
            page = Page(
                template="error.html",
                title=_REASONS.get(status, "Error"),
                context={"text": text, "status": status},
                status=status,
                refresh=_RETRY if status == 503 and request.method in SAFE_METHODS else 0,
            )
            response = self.renderer.page(self._visit(request), page)
        response.headers.update(headers or {})
        if status == 503:
            response.headers["retry-after"] = str(_RETRY)
        return response


def status_of(error: Exception) -> int:
    """The status of HTTP for an error."""
    if isinstance(error, InvalidValue | InvalidParams):
        return 400
    if isinstance(error, JobNotFound | NotFound):
        return 404
    if isinstance(error, Forbidden):
        return 403
    if isinstance(error, ChangeRefused | ChangedMeanwhile | RequestFailed | RepeatRefused | ConfigError):
        return 409
    return 503 if isinstance(error, BrokerUnavailable) else 500


def json_response(value: object, status: int = 200) -> Response:
    """The value as JSON. Integers keep their 64 bits."""
    content = msgspec.json.encode(value)
    return Response(content, status_code=status, media_type="application/json")
