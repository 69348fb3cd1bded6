"""Answers requests to this worker: stop, drain, stack, profile, log.

A request is in each answer of `poll` until it expires. The worker accepts it with a compare-and-set on the
answer in shared state, so that a request is carried out at most once, also where a later worker has the same
name. A native thread answers while a job blocks the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gevent

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.shared_state import Versions, WorkerRequest
from mrq_core.contract.values import is_path
from mrq_core.errors import BrokerError
from mrq_core.ids import new_nonce
from mrq_core.operations.requests import ANSWER_TTL, ANSWERS, answer_value, store_answer
from mrq_core.running.logs import recent_log
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.native import get_ident, sleep
from mrq_core.worker.interrupts import CancelRequests
from mrq_core.worker.reporting.profiling import Profiler
from mrq_core.worker.reporting.stacks import frame_of, full_stack, io_lines, other_greenlets, waiting_text
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

_LATE = 1.2
"""Seconds without a poll of the hub after which the native thread polls for requests and cancelled jobs."""
_STACK_MOST = 60_000
"""Characters of all stacks together."""
_LOG_MOST = 60_000
"""Characters of the log that an answer has."""
_GREENLETS_MOST = 200
_ANSWERED_WITHIN = 0.6
"""Seconds for solo processes to send their stacks."""
_SPARE = 1.0
"""Seconds before the end of a request at which the profile of a run that goes on is answered."""
_NOT_HERE = "the job does not run here any more\n"
_BEGUN_MOST = 1000


class Requests:
    """Carries out requests, once each. `answer` may be called by the hub and by the native thread."""

    def __init__(
        self, state: WorkerState, stopping: Stopping, profiler: Profiler, cancels: CancelRequests
    ) -> None:
        self._profiler = profiler
        self._cancels = cancels
        self._state = state
        self._stopping = stopping
        self._process = new_nonce()
        """Tells this process from an earlier or later one with the same name."""
        self._begun: dict[str, object] = {}
        self._hub_thread = get_ident()
        self._polled_at = self._tried_at = monotonic()
        self._versions = Versions()
        self._is_over = True

    @property
    def polled_at(self) -> float:
        """The monotonic time of the latest answer of the broker to a poll in the hub."""
        return self._polled_at

    def start(self) -> None:
        """From now on the native thread expects polls of the hub."""
        self._polled_at = monotonic()
        self._is_over = False

    def stop(self) -> None:
        """The native thread polls no more."""
        self._is_over = True

    def polled(self, versions: Versions, requests: Iterable[WorkerRequest]) -> None:
        """In the hub: answers the requests of a poll. Raises BrokerError; the next poll has them again."""
        self._polled_at, self._versions = monotonic(), versions
        self.answer(self._state.broker, requests)

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """In the native thread: polls if the hub is late, also for cancelled jobs. The hub logs the errors of
        the hub, which gets the same changes later."""
        if self._is_over or now < max(self._polled_at, self._tried_at) + _LATE:
            return
        self._tried_at = now
        try:
            opened = broker()
            changes = opened.poll(self._state.name, self._versions)
            self._cancels.interrupt(changes.interrupts)
            self.answer(opened, changes.requests)
        except BrokerError:
            pass

    def answer(self, broker: Broker, requests: Iterable[WorkerRequest]) -> None:
        """Answers the requests that were not answered yet."""
        for request in requests:
            if len(self._begun) > _BEGUN_MOST:  # the answers in shared state prevent a repetition, too
                self._begun.clear()
            mark = object()
            if self._begun.setdefault(request.id, mark) is mark:
                try:
                    self._answer(broker, request)
                except BaseException:
                    del self._begun[request.id]
                    raise

    def _answer(self, broker: Broker, request: WorkerRequest) -> None:
        accepted = answer_value("accepted", process=self._process)
        left = (request.expires_at - broker.now()).total_seconds()
        if left <= 0:  # the process was suspended since the poll
            return
        ttl = ANSWER_TTL + left
        if broker.state.compare_and_set(ANSWERS, request.id, accepted, version=0, ttl=ttl) is None:
            item = broker.state.get(ANSWERS, request.id)
            if item is None or item.value != accepted:  # of a worker that had this name before
                return
        if request.kind == "stack":
            store_answer(broker, request.id, "done", self._stacks(request.args.get("job")), ttl)
        elif request.kind in ("stop", "drain"):
            is_drain = request.kind == "drain"
            is_now = not is_drain and request.args.get("now") is True
            plan = self._stopping.plan(is_drain=is_drain, is_now=is_now)
            store_answer(broker, request.id, "done", plan, ttl)
            if is_now:
                self._stopping.interrupt("a request to stop now")
            else:
                self._stopping.ask(is_drain=is_drain)
        elif request.kind == "log":
            store_answer(broker, request.id, "done", recent_log(_LOG_MOST), ttl)
        elif request.kind == "profile":
            # The answer follows the run. It comes before the request expires: the command waits no longer.
            why_not = self._profile(request, left - min(_SPARE, left / 2))
            if why_not is not None:
                store_answer(broker, request.id, "refused", why_not, ttl)
        else:
            text = f"this worker does not know the request {request.kind!r}: its mrq is of another version"
            store_answer(broker, request.id, "refused", text, ttl)

    def finish(self, broker: Broker) -> None:
        """In the hub: answers the requests for profiles, because the worker ends. Raises BrokerError."""
        self._profiler.stop(broker)

    def _profile(self, request: WorkerRequest, seconds: float) -> str | None:
        """Has the next run of a task profiled. Returns why not, or None."""
        path = request.args.get("task")
        if not isinstance(path, str) or not is_path(path):
            return "the request names no task: expected the path of a task"
        return self._profiler.ask(request.id, path, seconds)

    def _stacks(self, job: object = None) -> str:
        """The stacks of the running jobs, the job that runs longest first, and of the other greenlets; or of
        one job."""
        running = sorted(self._state.executions.undecided(), key=lambda execution: execution.started)
        if job is not None:
            running = [execution for execution in running if execution.record.id == job]
        self._ask_processes(running)
        parts: list[str] = [] if running else ["no job is running\n" if job is None else _NOT_HERE]
        now = monotonic()
        size = 0
        for number, execution in enumerate(running):
            record = execution.record
            head = f"{record.id} {record.path}, for {now - execution.started:.1f} s"
            part = f"{head}\n{self._io_of(execution)}{self._stack_of(execution)}"
            if size + len(part) > _STACK_MOST:
                parts.append(f"{len(running) - number} more jobs are left out\n")
                return "\n".join(parts)
            parts.append(part)
            size += len(part)
        if job is not None:
            return "\n".join(parts)
        known = {id(execution.greenlet) for execution in running}
        for name, frame in other_greenlets(known, _GREENLETS_MOST):
            part = f"greenlet {name}\n{waiting_text(frame)}{full_stack(frame)}"
            if frame is None:
                continue
            size += len(part)
            if size > _STACK_MOST:
                parts.append("more greenlets are left out\n")
                break
            parts.append(part)
        return "\n".join(parts)

    def _ask_processes(self, running: Iterable[Execution]) -> None:
        """Asks solo processes for their stacks, and waits a moment for the answers. The watchdog's thread
        receives them, also while a job blocks the hub."""
        asked = [execution.process for execution in running if execution.process is not None]
        for process in asked:
            process.ask_stack()
        wait = gevent.sleep if get_ident() == self._hub_thread else sleep
        deadline = monotonic() + _ANSWERED_WITHIN
        while monotonic() < deadline and any(process.stack is None for process in asked):
            wait(0.05)

    def _io_of(self, execution: Execution) -> str:
        """The lines about what the job waits for; empty for a job in a separate process, which answers."""
        if execution.process is not None:
            return ""
        return io_lines(execution, frame_of(execution, self._hub_thread))

    def _stack_of(self, execution: Execution) -> str:
        if execution.process is not None:
            stack = execution.process.stack or "  does not answer: C code may hold the GIL\n"
            return f"  runs in process {execution.process.pid}\n{stack}"
        return full_stack(frame_of(execution, self._hub_thread))
