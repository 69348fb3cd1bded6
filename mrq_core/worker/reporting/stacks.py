"""The stacks of running jobs and of other greenlets, read in any thread."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from types import FrameType
from typing import Any

import gevent
import greenlet

from mrq_core.contract.plain import printable
from mrq_core.debug.peers import peer_of
from mrq_core.errors import on_one_line
from mrq_core.frames import current_frames, reading_frames
from mrq_core.operations.running_jobs import io_call_text, io_left_out_text
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.native import get_ident

SHORT = 10
"""The innermost frames that a report has of a job."""
_FRAME = 120
"""Characters of a frame in a report."""
_FRAMES_MOST = 60
_TRACING_FOLDER = os.path.dirname(peer_of.__code__.co_filename)
"""The frames of I/O tracing, which stacks leave out."""
_STACK_MOST = 30_000


def frame_of(execution: Execution, hub_thread: int) -> FrameType | None:
    """The innermost frame of a job. None: it runs in a separate process, or has no frame at this moment."""
    greenlet = execution.greenlet
    frame: FrameType | None = getattr(greenlet, "gr_frame", None)
    if frame is None and greenlet is not None and not greenlet.dead and get_ident() != hub_thread:
        frame = current_frames().get(hub_thread)  # the job blocks the hub
    return frame


@reading_frames
def short_stack(frame: FrameType | None) -> tuple[str, ...]:
    """The innermost frames, innermost last, without reading source files."""
    lines: list[str] = []
    while frame is not None and len(lines) < SHORT:
        code = frame.f_code
        if os.path.dirname(code.co_filename) == _TRACING_FOLDER:
            frame = frame.f_back
            continue
        file = os.sep.join(code.co_filename.split(os.sep)[-2:])
        lines.append(printable(on_one_line(f"{file}:{frame.f_lineno} {code.co_name}"))[:_FRAME])
        frame = frame.f_back
    return tuple(reversed(lines))


def full_stack(frame: FrameType | None) -> str:
    """The innermost frames with their lines of source."""
    if frame is None:
        return "  has no frame at this moment\n"
    try:
        frames = [one for one in _extracted(frame) if os.path.dirname(one.filename) != _TRACING_FOLDER]
        lines = traceback.format_list(frames[-_FRAMES_MOST:])
    except UnicodeError:  # the name of a source file cannot be encoded, until Python 3.12
        return "".join(f"  {line}\n" for line in short_stack(frame))
    except Exception as error:  # the frame changes while it is read in another thread
        return f"  cannot be read: {type(error).__name__}\n"
    return printable("".join(lines)[-_STACK_MOST:])


def _extracted(frame: FrameType) -> traceback.StackSummary:
    with reading_frames:
        found = list(traceback.walk_stack(frame))
    found.reverse()
    return traceback.StackSummary.extract(iter(found))


def io_lines(execution: Execution, frame: FrameType | None) -> str:
    """What a job waits for, in lines: its calls, or without tracing the peer of its socket."""
    calls = ""
    if execution.io is not None:
        with suppress(RuntimeError):  # it changes while it is read in another thread
            io = execution.io.state()
            calls = "".join(f"  in {io_call_text(call)}\n" for call in io.calls)
            if io.left_out:
                calls += f"  {io_left_out_text(io)}\n"
    return calls or waiting_text(frame)


def waiting_text(frame: FrameType | None) -> str:
    """A line that tells for which server a greenlet waits; empty if it waits for none."""
    peer = peer_of(frame)
    return f"  waits: {peer}\n" if peer else ""


def other_greenlets(known: set[int], most: int) -> Iterator[tuple[str, FrameType | None]]:
    """The names and frames of up to `most` greenlets of this process that run no job and are not the worker's
    own, such as greenlets that jobs have started."""
    # By the real class: an object of a task may claim another `__class__`, or raise when it is asked.
    found: Iterator[Any] = (one for one in gc.get_objects() if issubclass(type(one), greenlet.greenlet))
    alive = (one for one in found if not one.dead and id(one) not in known)
    others = (one for one in alive if not _is_of_worker(one.gr_frame))
    for one in islice(others, most):
        name = one.name if issubclass(type(one), gevent.Greenlet) else type(one).__name__
        yield on_one_line(str(name)), one.gr_frame


@reading_frames
def _is_of_worker(frame: FrameType | None) -> bool:
    """Whether the outermost function of a greenlet is the worker's."""
    if frame is None:
        return False
    while frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).startswith("mrq_core.worker.")
