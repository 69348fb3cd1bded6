"""Profiles of single runs: a sampler in a native thread reads the stack of one job by the wall clock.

cProfile does not fit a worker of greenlets. It follows a thread, so it mixes all jobs that run meanwhile, and
it slows each call of a function. The sampler reads the frames of one greenlet, tells its running from its
waiting time, and costs the profiled job about as much as any other job.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from types import CodeType, FrameType

import gevent

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.plain import printable
from mrq_core.errors import BrokerError, on_one_line
from mrq_core.frames import reading_frames
from mrq_core.operations.requests import ANSWER_TTL, store_answer
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.native import get_ident, sleep, start_native_thread
from mrq_core.worker.reporting.stacks import frame_of

_INTERVAL, _INTERVAL_MOST = 0.005, 0.1
"""Seconds between two samples, and of a run of many samples."""
_SAMPLES = 12_000
"""After each such number of samples, the interval grows by its first length."""
_DEPTH = 100
_NODES_MOST = 5_000
"""Functions of a profile, each counted once for each way to it. Deeper calls count for their callers."""
_LINES, _SHARE = 200, 0.01
"""The most lines of a tree, and the least share of the time that a line has."""
_HOTTEST = 20
_NAME = 120
_WISHES_MOST = 20
_STOPPED_WITHIN = 0.3
"""Seconds for the samplers to end when the worker stops."""


class Node:
    """A function in the tree of calls. Seconds: in it and its callees, and of these while the job ran."""

    __slots__ = ("callees", "own", "running", "total")

    def __init__(self) -> None:
        self.callees: dict[CodeType, Node] = {}
        self.total = self.running = self.own = 0.0


class Profile:
    """The samples of one run."""

    def __init__(self, execution: Execution, hub_thread: int, outer: CodeType, ends_at: float) -> None:
        self._execution = execution
        self._hub_thread = hub_thread
        self._outer = outer
        """The code that calls the task; frames outside of its callees are left out."""
        self.ends_at = ends_at
        self.root = Node()
        self._nodes = 1
        self.samples = 0
        self._began = self._last = monotonic()

    @property
    def pause(self) -> float:
        """Seconds until the next sample."""
        return min(_INTERVAL * (1 + self.samples // _SAMPLES), _INTERVAL_MOST)

    @property
    def is_over(self) -> bool:
        """Whether the run, or the time for its profile, has ended."""
        execution = self._execution
        return execution.outcome is not None or execution.lost or monotonic() >= self.ends_at

    @property
    def is_elsewhere(self) -> bool:
        """Whether the job runs in a separate process."""
        return self._execution.process is not None

    def sample(self) -> None:
        """Adds the time since the last sample to the functions on the stack."""
        greenlet = self._execution.greenlet
        is_waiting = getattr(greenlet, "gr_frame", None) is not None
        frame = frame_of(self._execution, self._hub_thread)
        now = monotonic()
        seconds, self._last = now - self._last, now
        if frame is not None:
            self._add(_codes(frame, self._outer), seconds, 0.0 if is_waiting else seconds)
            self.samples += 1

    def _add(self, codes: list[CodeType], seconds: float, running: float) -> None:
        node = self.root
        node.total += seconds
        node.running += running
        for code in reversed(codes):
            callee = node.callees.get(code)
            if callee is None:
                if self._nodes >= _NODES_MOST:
                    break
                self._nodes += 1
                callee = node.callees[code] = Node()
            callee.total += seconds
            callee.running += running
            node = callee
        node.own += seconds

    def text(self) -> str:
        """The profile as lines of text: the tree of calls, and the functions with the most time."""
        record, root = self._execution.record, self.root
        seconds = monotonic() - self._began
        state = "has ended" if self._execution.outcome is not None else "still runs"
        head = (
            f"{record.id} {record.path} {state}: profile of {seconds:.2f} s in {self.samples} samples, "
            f"{root.running:.2f} s running and {root.total - root.running:.2f} s waiting\n"
        )
        if not self.samples:
            return f"{head}The run was shorter than the time between two samples.\n"
        lines = list(_tree(root, root.total * _SHARE, 0))
        left = f"{len(lines) - _LINES} more lines are left out\n" if len(lines) > _LINES else ""
        columns = "\n   total  running  function\n"
        own = _by_function(root)
        hottest = sorted(own.items(), key=lambda item: -item[1])[:_HOTTEST]
        hot = "".join(f"{spent:7.2f}s  {_name(code)}\n" for code, spent in hottest if spent)
        return f"{head}{columns}{''.join(lines[:_LINES])}{left}\n    self   function\n{hot}"


class Profiler:
    """Profiles the next run of tasks, one after the other. `outer`: the code that calls tasks.

    `wishes` has the requests by path of a task. Hub and native threads change it, each by one atomic step.
    """

    def __init__(self, outer: CodeType) -> None:
        self._outer = outer
        self._hub_thread = get_ident()
        self.wishes: dict[str, tuple[str, float]] = {}
        """For each task, the id of the request and the monotonic time at which it expires."""
        self._answers: deque[tuple[str, str, str]] = deque()
        self._following: set[str] = set()
        """The requests whose runs are profiled now."""
        self._is_over = False

    def ask(self, request_id: str, path: str, seconds: float) -> str | None:
        """Profiles the next run of the task that begins within these seconds. Returns why not, or None."""
        now = monotonic()
        for known, (_, expires) in list(self.wishes.items()):
            if expires <= now:
                self.wishes.pop(known, None)
        if path in self.wishes:
            return f"another request waits for the next run of {path}"
        if len(self.wishes) >= _WISHES_MOST:
            return f"{_WISHES_MOST} requests for profiles wait"
        self.wishes[path] = (request_id, now + seconds)
        return None

    def begin(self, execution: Execution) -> None:
        """In the hub: a run begins. Call this only if there are wishes."""
        wish = self.wishes.pop(execution.record.path, None)
        if wish is None or wish[1] <= monotonic() or self._is_over:
            return
        request_id, ends_at = wish
        profile = Profile(execution, self._hub_thread, self._outer, ends_at)
        self._following.add(request_id)
        try:
            start_native_thread(self._follow, request_id, profile)
        except RuntimeError as error:
            self._following.discard(request_id)
            self._answers.append((request_id, "refused", f"the system starts no thread: {error}"))

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """In the native thread: stores the answers."""
        if self._answers:
            try:
                self._store(broker())
            except BrokerError:
                pass

    def stop(self, broker: Broker) -> None:
        """In the hub: answers what waits, because the worker ends. Raises BrokerError."""
        self._is_over = True
        latest = monotonic() + _STOPPED_WITHIN
        while self._following and monotonic() < latest:
            gevent.sleep(_INTERVAL)
        for path in list(self.wishes):
            wish = self.wishes.pop(path, None)
            if wish is not None:
                self._answers.append((wish[0], "refused", f"the worker stops, and {path} has not run"))
        self._store(broker)

    def _store(self, broker: Broker) -> None:
        while True:
            try:
                answer = self._answers.popleft()
            except IndexError:
                return
            try:
                store_answer(broker, *answer, ANSWER_TTL)
            except BrokerError:
                self._answers.appendleft(answer)
                raise

    def _follow(self, request_id: str, profile: Profile) -> None:
        """In a separate native thread: samples until the run ends."""
        answer = None
        while not (profile.is_over or self._is_over):
            if profile.is_elsewhere:
                answer = ("refused", "the task runs in a separate process, which this sampler cannot see")
                break
            profile.sample()
            sleep(profile.pause)
        self._answers.append((request_id, *(answer or ("done", profile.text()))))
        self._following.discard(request_id)


@reading_frames
def _codes(frame: FrameType | None, outer: CodeType) -> list[CodeType]:
    """The code of the frames inside of `outer`, or of all frames where it is not among them; the innermost
    first."""
    codes: list[CodeType] = []
    while frame is not None and frame.f_code is not outer and len(codes) < _DEPTH:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes


def _tree(node: Node, least: float, depth: int) -> Iterator[str]:
    for code, callee in sorted(node.callees.items(), key=lambda item: -item[1].total):
        if callee.total >= least:
            yield f"{callee.total:7.2f}s {callee.running:7.2f}s  {'  ' * min(depth, 40)}{_name(code)}\n"
            yield from _tree(callee, least, depth + 1)


def _by_function(root: Node) -> dict[CodeType, float]:
    """The seconds in each function itself."""
    own: dict[CodeType, float] = {}
    waiting = [root]
    while waiting:
        for code, callee in waiting.pop().callees.items():
            own[code] = own.get(code, 0.0) + callee.own
            waiting.append(callee)
    return own


def _name(code: CodeType) -> str:
    file = os.sep.join(code.co_filename.split(os.sep)[-2:])
    return printable(on_one_line(f"{file}:{code.co_firstlineno} {code.co_qualname}"))[:_NAME]
