"""Requests to one worker: stop, drain, stack, profile, log.

A request is a value of shared state that `poll` brings to the worker. The worker answers under the id of the
request: first that it has accepted the request, then with the result. Its text is stored in chunks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from mrq_core.clock import after, monotonic, to_ms
from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.plain import printable
from mrq_core.contract.shared_state import WorkerRequest
from mrq_core.errors import BrokerUnavailable, InvalidValue, RequestFailed, shown
from mrq_core.ids import new_id
from mrq_core.operations.workers import STOPPED, find_worker

KINDS = ("stop", "drain", "stack", "profile", "log")
ANSWERS = "answers"
"""The namespace of the answers, by the id of the request, and of their chunks, ``<id>.<number>``."""
ANSWER_TTL = 60.0
"""Seconds for which an answer is kept."""
CHUNK_SIZE = 8_000
"""Characters of one chunk."""
_PENDING_MOST = 20
_TTL_MOST = 3600.0
_ATTEMPTS = 20
_PAUSE = 0.1
_EXAMINE = 2.0
"""Seconds between two looks at the report of the worker."""


def request_worker(
    broker: Broker, name: str, kind: str, args: Mapping[str, JsonValue] | None = None, ttl: float = 10.0
) -> str:
    """Sends a request to the worker with this name, and returns the text of its answer. A worker that runs
    answers within two seconds, even while a job blocks it.

    `stop` interrupts running jobs after STOP_GRACE, or at once with ``args["now"]``. `profile` profiles the
    next run of the task ``args["task"]``, and is answered when that run has ended, or shortly before the
    request expires.

    The request expires after `ttl` seconds. Raises RequestFailed if the worker refuses, ends, or does not
    answer until then, and InvalidValue.
    """
    answer = ask_worker(broker, name, kind, args, ttl=ttl, patience=2 * _TTL_MOST)
    assert answer is not None, "a request expires before this patience is over"
    return answer


def ask_worker(
    broker: Broker,
    name: str,
    kind: str,
    args: Mapping[str, JsonValue] | None = None,
    *,
    ttl: float,
    patience: float,
) -> str | None:
    """Sends a request as `request_worker` does, and waits for the answer for `patience` seconds at most.
    None: the worker has not answered so far, and may carry out the request until it expires."""
    report = find_worker(broker, name)
    if report is None:
        raise RequestFailed(f"no worker named {name!r} has reported lately; `mrq workers` lists the workers")
    if report.status == STOPPED:
        raise RequestFailed(f"the worker {name} has stopped; `mrq workers` lists the workers")
    request = send_request(broker, name, kind, args, ttl)
    begin = examined = monotonic()
    deadline = begin + ttl + _PAUSE
    while True:
        state, text = _answer(broker, request.id, is_last=monotonic() > deadline)
        if state == "done":
            return text
        if state == "refused":
            raise RequestFailed(f"worker {name} refuses the request {kind}: {text}")
        if monotonic() > deadline:
            raise RequestFailed(_unanswered(broker, name, kind, state, ttl))
        if monotonic() > begin + patience:
            return None
        if monotonic() > examined + _EXAMINE:
            examined = monotonic()
            if _is_gone(broker, name) and _answer(broker, request.id, is_last=False)[0] in ("", "accepted"):
                raise RequestFailed(_unanswered(broker, name, kind, state, ttl))
        time.sleep(_PAUSE)


def send_request(
    broker: Broker, name: str, kind: str, args: Mapping[str, JsonValue] | None = None, ttl: float = 10.0
) -> WorkerRequest:
    """Adds a request to those of the worker. Raises InvalidValue, and RequestFailed if 20 of them wait."""
    if kind not in KINDS:
        raise InvalidValue(f"kind is {shown(kind)}: expected one of {', '.join(KINDS)}", path="kind")
    if not 0 < ttl <= _TTL_MOST:
        raise InvalidValue(f"ttl is {shown(ttl)}: expected seconds above 0, up to {_TTL_MOST:g}", path="ttl")
    now = broker.now()
    request = WorkerRequest(id=new_id(), kind=kind, args=dict(args or {}), expires_at=after(now, ttl))
    for _ in range(_ATTEMPTS):
        item = broker.state.get(rules.REQUESTS, name)
        waiting = () if item is None else rules.requests_in(item.value, to_ms(now))
        if len(waiting) >= _PENDING_MOST:
            raise RequestFailed(
                f"{len(waiting)} requests to worker {name} wait: send the request again later"
            )
        both = (*waiting, request)
        kept = max((one.expires_at - now).total_seconds() for one in both)
        value = rules.requests_value(both)
        version = 0 if item is None else item.version
        if broker.state.compare_and_set(rules.REQUESTS, name, value, version=version, ttl=kept) is not None:
            return request
    raise BrokerUnavailable(f"the requests to worker {name} were changed by others each time: try again")


def answer_value(state: str, **parts: JsonValue) -> JsonObject:
    """The value of an answer."""
    return {"state": state, **parts}


def store_answer(broker: Broker, request_id: str, state: str, text: str, ttl: float = ANSWER_TTL) -> None:
    """Stores the last answer to a request: the chunks first, then their number. `ttl`: seconds to keep them,
    longer than the request is delivered, because a later worker with the same name must not repeat it."""
    text = printable(text)  # a name of a file or function may be no UTF-8
    chunks = [text[start : start + CHUNK_SIZE] for start in range(0, len(text), CHUNK_SIZE)]
    for number, chunk in enumerate(chunks):
        broker.state.put(ANSWERS, f"{request_id}.{number}", chunk, ttl=ttl)
    value = answer_value(state, chunks=len(chunks))
    broker.state.put(ANSWERS, request_id, value, ttl=ttl)


def read_answer(broker: Broker, request_id: str) -> tuple[str, str]:
    """The state of the answer to a request, and its text. The state is empty before the worker has accepted
    the request, and a minute after its end; then ``accepted``, and ``done`` or ``refused``."""
    return _answer(broker, request_id, is_last=True)


def _answer(broker: Broker, request_id: str, *, is_last: bool) -> tuple[str, str]:
    """The state of the answer, or an empty text, and the text of the answer. A broker that is away says
    nothing until the last call."""
    try:
        item = broker.state.get(ANSWERS, request_id)
        value = {} if item is None or not isinstance(item.value, dict) else item.value
        number = value.get("chunks", 0)
        chunks = [
            broker.state.get(ANSWERS, f"{request_id}.{index}")
            for index in range(number if isinstance(number, int) else 0)
        ]
        return str(value.get("state", "")), "".join(str(chunk.value) for chunk in chunks if chunk is not None)
    except BrokerUnavailable:
        if is_last:
            raise
        return "", ""


def _is_gone(broker: Broker, name: str) -> bool:
    """Whether the worker has stopped or died, as far as a broker that answers knows."""
    try:
        report = find_worker(broker, name)
    except BrokerUnavailable:
        return False
    return report is None or not report.is_at_work


def _unanswered(broker: Broker, name: str, kind: str, state: str, ttl: float) -> str:
    report = find_worker(broker, name)
    if state == "accepted" and kind == "profile" and report is not None and report.is_at_work:
        return f"the task has not run in the worker {name} within {ttl:g} s"
    if state == "accepted":
        return f"worker {name} has accepted the request {kind}, and ended before it answered"
    known = "it has ended meanwhile"
    if report is not None and report.status != STOPPED:
        age = max(0.0, (broker.now() - report.reported_at).total_seconds())
        known = f"its last report is {age:.0f} s old: it was killed or suspended, or cannot reach the broker"
    return f"worker {name} did not answer the request {kind} within {ttl:g} s: {known}"
