"""How an action is asked for, done once, audited and answered. Each unsafe endpoint goes through here.

To add an action:

1. Write what it does as a function of `mrq_core.operations`, which the command line could use too.
2. Write a function in `mrq_dashboard.actions` that takes the Visit and a Struct of inputs, calls the former,
   and returns a `Done`: verb, target, counts, and a sentence. Exceptions say why it did nothing: InvalidValue
   (400), Forbidden from `visit.need(Role.WRITE, ...)` (403), NotFound (404), ChangeRefused (409).
3. Add it to `ENDPOINTS` with `both("/queues/pause", actions.queues.pause, Role.OPERATE)`: a page posts a form
   to `/queues/pause` and is sent back with a notice; a program posts JSON to `/api/queues/pause` and gets
   ``{"message": ..., **value}``. Credentials, role and origin are checked before.
4. Write the page that asks for confirmation: a GET endpoint with the same role, which returns
   `ask(visit, Form(...))`. Templates lead there with `button` of `parts/actions.html`. `actions.js` shows the
   page as a dialog. What needs no confirmation is a form of the page itself: `post` of the same file.
5. Add an example of its inputs to `EXAMPLES` in tests/dashboard/test_acting.py, which fails until you do.

What makes one thing, such as a job, gives it the id `visit.made_id`: then a request that is repeated after a
lost answer makes it once.

An action is logged (`dashboard.did`) and audited after it was done, with what it did. A form has a key
(`_once`): a second press of its button, or a repetition after a lost answer, does nothing and gets the answer
of the first. Programs send a header `Idempotency-Key` for that. The answer is a receipt in shared state.
After the redirect the page reads its notice from there, by `_done`: an address cannot forge a notice, and
only the visitor who acted sees it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import starlette.requests
from starlette.responses import RedirectResponse, Response

from mrq_core.contract.codec import JsonObject
from mrq_core.errors import BrokerError, BrokerUnavailable, MrqError, on_one_line
from mrq_core.operations.auditing import audit
from mrq_core.operations.receipts import (
    Receipt,
    begin_receipt,
    complete_receipt,
    read_receipt,
    release_receipt,
)
from mrq_dashboard.visit import Answer, Done, Json, Page, Visit

_log = logging.getLogger("mrq.dashboard")
LONGER = 5.0
"""An action may take this many times DASHBOARD_TIMEOUT: it waits for an answer of a worker, or changes 1,000
jobs."""
_LONGEST_BACK = 8000


@dataclass(frozen=True, kw_only=True)
class Request:
    """An action that a visitor asks for: what acts, on which inputs, and the key against a repetition."""

    visit: Visit
    act: Callable[[Visit], Answer]
    inputs: msgspec.Struct
    key: str | None
    is_api: bool


def do(request: Request) -> Response | Json:
    """Does the action, unless a request with its key has done it, and answers it. Raises what it raises."""
    visit = request.visit
    key = request.key if request.is_api else visit.own.get("_once") or new_key()
    if key is None:
        done = _audited(visit, request.act(visit))
        return _answer_to_program(done.text, done.value, done.status)
    depends_on = f"{visit.path}\0".encode() + msgspec.json.encode(request.inputs)
    begun, is_first = begin_receipt(visit.broker, key, visit.visitor.name, depends_on)
    if not is_first:
        return _answer(request, begun, 200)
    try:
        done = _audited(visit, request.act(replace(visit, made_id=begun.made_id)))
    except BaseException as error:
        is_refusal = isinstance(error, MrqError) and not isinstance(error, BrokerError)
        release_receipt(visit.broker, begun, is_open=not is_refusal)
        raise
    url = done.url or _back(visit)
    try:
        receipt = complete_receipt(
            visit.broker, begun, text=done.text, tone=done.tone, value=done.value, url=url
        )
    except BrokerError:  # done, but the next page cannot tell
        _log.exception("dashboard.no_receipt action=%s", done.action)
        receipt = msgspec.structs.replace(begun, text=done.text, value=done.value, url=url)
    return _answer(request, msgspec.structs.replace(receipt, value=done.value), done.status)


def _audited(visit: Visit, answer: Answer) -> Done:
    """Logs and audits what was done. A broker that is away by now cannot undo it, so it is no error."""
    visit.shared.forget()  # the next page shows the change
    if not isinstance(answer, Done):
        raise MrqError(f"an action returned {type(answer).__name__}: expected Done")
    if not answer.is_audited:
        return answer
    who = visit.visitor.name
    counts = " ".join(f"{name}={number}" for name, number in answer.counts.items())
    _log.info(
        "dashboard.did who=%s action=%s target=%s %s",
        on_one_line(who), answer.action, on_one_line(answer.target)[:1000], on_one_line(counts),
    )  # fmt: skip
    try:
        audit(visit.broker, who, answer.action, answer.target, answer.counts)
    except BrokerError as error:
        name, action = on_one_line(who), answer.action
        if isinstance(error, BrokerUnavailable):  # it says why; a traceback would say no more
            _log.error("dashboard.not_audited who=%s action=%s error=%s", name, action, error)
        else:
            _log.exception("dashboard.not_audited who=%s action=%s", name, action)
    return answer


def _answer(request: Request, receipt: Receipt, status: int) -> Response | Json:
    if request.is_api:
        return _answer_to_program(receipt.text or "", receipt.value, status)
    url = with_query(receipt.url, _done=receipt.id)
    if request.visit.is_fragment:
        return Json(value={"url": url}, status=200)
    return RedirectResponse(url, status_code=303)


def _answer_to_program(text: str, value: JsonObject, status: int) -> Json:
    return Json(value={"message": text, **value}, status=status)


def notice_of(visit: Visit) -> Receipt | None:
    """The receipt that the page shows as a notice: of an action that this visitor has just done."""
    wanted = visit.own.get("_done")
    if not wanted:
        return None
    receipt = read_receipt(visit.broker, wanted)
    return receipt if receipt is not None and receipt.is_done and receipt.who == visit.visitor.name else None


def new_key() -> str:
    """A key for one form."""
    return secrets.token_urlsafe(16)


# --- where it came from -----------------------------------------------------------------------------


def referer_of(request: starlette.requests.Request) -> str:
    """The page of this dashboard that sent the request: path and query, without a notice. Else empty."""
    parts = urlsplit(request.headers.get("referer", ""))
    if parts.netloc != request.headers.get("host", ""):
        return ""
    found = parts.path + (f"?{parts.query}" if parts.query else "")
    return found if _is_here(found, request.scope.get("root_path", "").rstrip("/")) else ""


def _back(visit: Visit) -> str:
    given = visit.own.get("_back", "")
    if _is_here(given, visit.root):
        return given
    return visit.referer or f"{visit.root}/"


def _is_here(address: str, root: str) -> bool:
    """Whether an address is a path of this dashboard, and cannot lead a browser to another host."""
    return (
        address.startswith(f"{root}/")
        and not address.startswith("//")
        and "\\" not in address
        and address.isascii()
        and address.isprintable()
        and len(address) <= _LONGEST_BACK
    )


def with_query(address: str, **more: str) -> str:
    """The address with these inputs instead of its inputs of the same names."""
    parts = urlsplit(address)
    query = [item for item in parse_qsl(parts.query, keep_blank_values=True) if item[0] not in more]
    return parts._replace(query=urlencode([*query, *more.items()])).geturl()


# --- asking for confirmation ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a form.

    `kind`: ``text``, ``number``, ``area``, ``select`` (with `options`: values with their words), ``check``
    (whose value is ``true``), or ``datetime-local``. `hint` explains it below.
    """

    name: str
    label: str
    value: str = ""
    kind: str = "text"
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()
    required: bool = False
    most: int | None = None
    """The most characters."""
    low: int | None = None
    high: int | None = None
    is_checked: bool = False
    is_wide: bool = False
    """Whether the field has a row to itself, as areas and checks have."""
    problem: str = ""
    """What is wrong with the value."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A question with a button that acts. `path` is the page endpoint of the action, below the root."""

    title: str
    path: str
    button: str
    """The words of the button: a verb, and how many."""
    text: Sequence[str] = ()
    fields: Sequence[Field] = ()
    hidden: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """The numbers that would change, by status."""
    left: Mapping[str, int] = field(default_factory=dict)
    """The numbers that would stay as they are, by status."""
    notes: Sequence[str] = ()
    """What else is good to know, below the numbers."""
    is_minimum: bool = False
    """Whether the numbers are minimums."""
    is_dangerous: bool = False
    """Whether it cannot be undone."""
    is_possible: bool = True
    """Whether there is anything to do: else the page has no button."""
    problem: str = ""
    """Why the action was refused, where no field tells."""


def ask(visit: Visit, form: Form, *, back: str = "/") -> Page:
    """The page that asks for confirmation. It leads back to the page that the visitor came from, or else to
    `back`."""
    where = visit.referer if visit.referer.partition("?")[0] != visit.root + visit.path else ""
    context: dict[str, Any] = {
        "form": form,
        "once": new_key(),
        "back": where or visit.url(back),
        "hidden": [
            (name, one)
            for name, value in form.hidden.items()
            for one in ([value] if isinstance(value, str) else value)
        ],
    }
    return Page(template="confirm.html", title=form.title, context=context)
