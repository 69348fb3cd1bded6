"""The stream of events that keeps open pages live: it names the topics that changed, and has no data of jobs.

One poller in each process reads small counters once a second while a stream is open. Events:

| event | data | meaning |
|---|---|---|
| `ready` | | later changes are reported; a page that was read before must be read again |
| `changed` | topics, such as `jobs queues` | these counters changed |
| `away`, `back` | | the broker does not answer; the broker answers again |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mrq_core.contract.values import check_job_id
from mrq_core.errors import InvalidValue
from mrq_core.operations.measures.watching import Counters, JobState, read_counters, read_job_states
from mrq_dashboard.auth import Role, comes_from_here
from mrq_dashboard.endpoint import Site

_log = logging.getLogger("mrq.dashboard")
PATH = "/events"
MOST_STREAMS = 200
"""Streams that are open at the same time; further ones are refused, and their pages ask by themselves."""
HEARTBEAT = 15.0
"""Seconds without an event after which a comment shows that the stream lives."""
_INTERVAL = 1.0
_SHORTEST = 0.2
"""Seconds between two readings, if a new stream asks for one."""
_SHARE = 5
"""The poller rests so that readings take about a fifth of its time at most, however slow the counters are."""
_LONGEST = 15.0
"""Seconds between two attempts to reach a broker that is away."""
_HEADERS = {"x-accel-buffering": "no"}  # nginx
_AWAY, _BACK, _READY = (b"event: %s\ndata:\n\n" % name for name in (b"away", b"back", b"ready"))


class _Reading(NamedTuple):
    counters: Counters
    jobs: dict[str, JobState]


class Stream:
    """One open page. Holds the topics that are not sent yet, each at most once, however slow the client."""

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self.is_ready = False
        self.topics: set[str] = set()
        self.wake = asyncio.Event()

    def add(self, topics: frozenset[str]) -> None:
        """Adds topics to those that the next event names."""
        if topics:
            self.topics |= topics
            self.wake.set()


class Live:
    """The open streams of a process and their poller."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._streams: set[Stream] = set()
        self._poller: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._before: _Reading | None = None
        self._stopped = False
        self.is_away = False
        self.readings = 0

    @property
    def number(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    async def serve(self, request: Request) -> Response:
        """Answers `GET /events?job=ID`; `job` is a job to watch, and may be left out."""
        try:
            refused = await self._site.refusal(request, role=Role.READ, is_api=True)
            refused = refused or self._refusal(request)
            if refused is not None:
                return refused
            job_id = request.query_params.get("job") or None
            stream = EventStream(self, None if job_id is None else check_job_id(job_id))
            is_asked = request.method == "HEAD"  # for the headers alone, which would else stay open for ever
            return Response(headers=dict(stream.headers)) if is_asked else stream
        except Exception as error:
            return self._site.failure(request, error, is_api=True)

    def _refusal(self, request: Request) -> Response | None:
        if set(request.query_params) - {"job"}:
            raise InvalidValue("the only input here is job: the id of a job to watch", path="inputs")
        sent = {"sec-fetch-site", "origin"} & set(request.headers)
        if sent and not comes_from_here(request):
            text = "the request does not come from a page of this dashboard"
            return self._site.problem(request, 403, text, is_api=True)
        if "wsgi_environ" in request.scope:  # each stream would keep a thread
            return Response(status_code=204)
        if self._stopped or self.number >= MOST_STREAMS:
            text = "the server stops" if self._stopped else f"{MOST_STREAMS} streams are open already"
            return self._site.problem(request, 503, text, is_api=True)
        return None

    def join(self, stream: Stream) -> None:
        """Adds a stream, and starts the poller for the first."""
        self._streams.add(stream)
        self._site.backend.shared.is_live = True
        self._asked.set()
        if self._poller is None or self._poller.done():
            self._asked = asyncio.Event()
            self._poller = asyncio.create_task(self._poll())

    def leave(self, stream: Stream) -> None:
        """Removes a stream, and ends the poller after the last."""
        self._streams.discard(stream)
        if not self._streams and self._poller is not None:
            self._poller.cancel()
            self._poller = self._before = None
            self.is_away = False
            self._site.backend.shared.is_live = False

    def begin(self) -> None:
        """Opens streams, also after a stop."""
        self._stopped = False

    def stop(self) -> None:
        """Ends all streams, and refuses others. Call it when the server stops, which else waits for them."""
        self._stopped = True
        for stream in self._streams:
            stream.wake.set()

    @property
    def is_stopped(self) -> bool:
        """Whether the server stops."""
        return self._stopped

    async def _poll(self) -> None:
        clock = asyncio.get_running_loop().time
        failures, usual = 0, 0.0
        while True:
            begin = clock()
            self._asked.clear()
            waiting = list(self._streams)
            jobs = sorted({one.job_id for one in waiting if one.job_id is not None})
            try:
                reading = await self._site.backend.ask(self._reader(jobs))
            except Exception as error:  # of a driver or a plugin: streams outlive it
                failures += 1
                if failures == 1:
                    _log.warning("live.away error=%s", error)
                    self._set_away(True)
                await asyncio.sleep(min(_LONGEST, 2.0**failures / 2))
                continue
            if failures:
                failures = 0
                self._set_away(False)
            self._report(reading, waiting)
            taken = clock() - begin
            rest = max(_INTERVAL, min(taken, usual) * _SHARE) - taken  # one slow reading counts for nothing
            usual = taken
            await asyncio.sleep(_SHORTEST)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), max(0.0, rest - _SHORTEST))

    def _reader(self, jobs: list[str]) -> Callable[[], _Reading]:
        before, client = self._before, self._site.backend.client

        def read() -> _Reading:
            known = before.jobs if before else {}
            counters = read_counters(client.broker, before.counters if before else None)
            return _Reading(counters, read_job_states(client.broker, jobs, known))

        return read

    def _report(self, reading: _Reading, waiting: list[Stream]) -> None:
        """Tells the streams what changed. A stream of before the reading is ready after its first one."""
        before, self._before = self._before, reading
        self.readings += 1
        changed = reading.counters.differences(before.counters) if before else frozenset()
        if changed or before is None:
            self._site.backend.shared.forget()
        for stream in self._streams:
            stream.add(changed)
            if before and stream.job_id in before.jobs and stream.job_id in reading.jobs:
                stream.add(reading.jobs[stream.job_id].differences(before.jobs[stream.job_id]))
        for stream in waiting:
            if not stream.is_ready:
                stream.is_ready = True
                stream.wake.set()

    def _set_away(self, is_away: bool) -> None:
        self.is_away = is_away
        for stream in self._streams:
            stream.wake.set()


class EventStream(Response):
    """The answer that sends the events of one stream, until its client goes or the server stops."""

    def __init__(self, live: Live, job_id: str | None) -> None:
        super().__init__(media_type="text/event-stream", headers=_HEADERS)
        del self.headers["content-length"]
        self._live = live
        self._stream = Stream(job_id)
        self._told_away = self._told_ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._live.join(self._stream)
        gone = asyncio.create_task(_until_gone(receive))
        sending = asyncio.create_task(self._send_events(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            with contextlib.suppress(OSError):  # the client has gone
                await sending
        finally:
            self._live.leave(self._stream)
            gone.cancel()
            sending.cancel()

    async def _send_events(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(send, b": mrq\n\n")
        while not self._live.is_stopped:
            self._stream.wake.clear()
            for event in self._events():
                await _send(send, event)
            try:
                await asyncio.wait_for(self._stream.wake.wait(), HEARTBEAT)
            except TimeoutError:
                await _send(send, b":\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _events(self) -> list[bytes]:
        events = []
        if self._live.is_away is not self._told_away:
            self._told_away = self._live.is_away
            events.append(_AWAY if self._told_away else _BACK)
        if self._stream.is_ready and not self._told_ready:
            self._told_ready = True
            events.append(_READY)
        if self._stream.topics:
            events.append(f"event: changed\ndata: {' '.join(sorted(self._stream.topics))}\n\n".encode())
            self._stream.topics.clear()
        return events


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
