"""What all jobs of a process share, and what a worker restores after a job that has changed it.

A task that configures logging, replaces a signal handler or leaves in another folder changes these for the
worker and for all later jobs. The worker examines them after each job of over a millisecond, after each job
that has called what changes them, and twice a second. After each job it examines what would harm the next job
at once: `is_intact`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

from mrq_core.errors import ConfigError
from mrq_core.running import logs
from mrq_core.running.context import JobContext
from mrq_core.running.streams import StandardStream
from mrq_core.worker.guards.descriptors import StandardDescriptors
from mrq_core.worker.guards.greenlet_traces import guard_traces
from mrq_core.worker.guards.guarded_log import GuardedLog, guard_loggers
from mrq_core.worker.guards.left_timers import end_left_timers, note_timers
from mrq_core.worker.guards.noted_calls import noted
from mrq_core.worker.guards.owners import owners
from mrq_core.worker.guards.shared_signals import SharedHandler, share_signals
from mrq_core.worker.guards.signals import restore_pipe

LONG = 0.001
"""Seconds. After a job that took longer, all is examined."""
_SWITCHED_WITHIN = 0.1
"""Seconds. With a longer switch interval, no native thread would interrupt a job that computes."""
_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM),
    *(signal.SIGPIPE, signal.SIGXFSZ),  # ignored by Python; their default kills
)
_LIMITS = (
    *(resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE),
    *(resource.RLIMIT_CPU, resource.RLIMIT_STACK, resource.RLIMIT_NPROC),
)
_raw: Any = import_module("_signal")
"""Without enums, which would take most of the time of an examination."""

_log = GuardedLog("mrq.worker")
_set_switch_interval = sys.setswitchinterval
_set_recursion_limit = sys.setrecursionlimit


def _set_short_switch_interval(interval: float, /) -> None:
    """Replaces sys.setswitchinterval in a worker."""
    _set_switch_interval(min(interval, _SWITCHED_WITHIN))


def _set_high_recursion_limit(lowest: int, limit: int, /) -> None:
    """Replaces sys.setrecursionlimit in a worker. With a low limit, the worker and the threads of a client
    library would break off in the middle of their work."""
    _set_recursion_limit(lowest if type(limit) is int and 0 < limit < lowest else limit)


class Surroundings:
    """The state of the process when the worker started, which `restore` brings back."""

    def __init__(self) -> None:
        self._folder = folder_now()
        self._descriptors = StandardDescriptors()
        self._next_descriptors = 0.0
        self._streams = (StandardStream("stdout"), StandardStream("stderr"))
        self._recursion_limit = sys.getrecursionlimit()
        self._switch_interval = sys.getswitchinterval()
        self._path_list, self._path = sys.path, list(sys.path)
        self.lasting_change = ""
        """What a task has changed for good. The worker cannot go on, for instance without memory, or for lack
        of the right to write a file."""
        self._limits = _limits_now()
        self._user = _user_now()
        self._process = os.getpid()
        self._handlers: dict[int, Any] = {}
        self._mask: set[int] = set()
        self._warned: str | None = None

    def keep_signals(
        self, others: Iterable[int], running: Callable[[], Iterable[tuple[object, JobContext]]]
    ) -> None:
        """Notes the signal handlers of the worker, in its main thread, and keeps threads able to run.
        `others`: signals that the worker has taken over. `running`: the greenlets of jobs that run."""
        handlers = {number: _raw.getsignal(number) for number in {*_SIGNALS, *others}}
        self._handlers = {number: handler for number, handler in handlers.items() if handler is not None}
        self._mask = _raw.pthread_sigmask(signal.SIG_BLOCK, ())
        _heed_children()  # the program that has started the worker may ignore them
        if _raw.getsignal(signal.SIGXCPU) == _raw.SIG_DFL:
            on_limit = self._on_processor_limit  # one object, by which it is known again
            _raw.signal(signal.SIGXCPU, on_limit)
            self._handlers[signal.SIGXCPU] = on_limit
        setattr(sys, "setswitchinterval", _set_short_switch_interval)  # noqa: B010
        high = partial(_set_high_recursion_limit, self._recursion_limit)
        setattr(sys, "setrecursionlimit", high)  # noqa: B010
        guard_traces()
        noted.note()
        owners.know(running)
        note_timers()
        share_signals()

    @contextmanager
    def settings_kept(self) -> Iterator[None]:
        """Notes the resource limits, and the levels and filters of mrq's loggers, that a module sets while it
        is imported. A limit that another running job has lowered before is not kept."""
        before = _limits_now()
        with logs.logging_kept():
            yield
        now = _limits_now()
        self._limits.update({number: now[number] for number in _LIMITS if now[number] != before[number]})

    def guard_streams(self) -> None:
        """Keeps a job that starts from closing a standard descriptor with a stream that it replaces, which
        another job or a module may have opened. Costs little."""
        for stream in self._streams:
            if not stream.is_in_place():
                stream.separate()

    def is_intact(self, now: float) -> bool:
        """Whether a job has left what the next job needs at once. Costs little: called after each job, with
        the monotonic time. The descriptors, which cost system calls, are examined once in `LONG` seconds."""
        if now >= self._next_descriptors:
            self._next_descriptors = now + LONG
            if not self._descriptors.is_intact():
                return False
        return (
            not noted.were_made
            and sys.getswitchinterval() == self._switch_interval
            and sys.getrecursionlimit() >= self._recursion_limit
            and type(sys.path) is list
            and len(sys.path) >= len(self._path)
            and self._streams[0].is_intact()
            and self._streams[1].is_intact()
            and logs.is_logging_intact()
        )

    def restore(self, *, is_alone: bool) -> None:
        """Restores what a job has changed. In the main thread. `is_alone`: no other job runs, which may need
        the working directory, the standard streams or an alarm. Never raises."""
        noted.were_made = False
        steps: list[Callable[[], None]] = [
            partial(self._descriptors.restore, is_alone=is_alone),
            self._restore_interpreter, logs.restore_logging, partial(self._restore_signals, is_alone),
            partial(self._restore_user, is_alone), self._restore_limits,
            *(partial(stream.restore, is_alone=is_alone) for stream in self._streams),
            partial(end_left_timers, is_alone=is_alone),
        ]  # fmt: skip
        for step in steps:
            with suppress(BaseException):
                step()
        with suppress(BaseException):
            self._restore_folder(is_alone)

    def _restore_interpreter(self) -> None:
        if sys.getswitchinterval() != self._switch_interval:
            _set_switch_interval(self._switch_interval)
        if sys.getrecursionlimit() < self._recursion_limit:
            _set_recursion_limit(self._recursion_limit)
        if not self._has_path():
            if type(sys.path) is not list:
                sys.path = self._path_list
            sys.path[:0] = [folder for folder in self._path if folder not in sys.path]
        if not all(map(_is_path, sys.path)):  # the import system ignores them, and libraries fail
            sys.path[:] = [folder for folder in sys.path if _is_path(folder)]
        guard_loggers()

    def _has_path(self) -> bool:
        """Whether `sys.path` has the folders of the start. Tasks may add others."""
        path: object = sys.path
        return type(path) is list and len(path) >= len(self._path) and path[: len(self._path)] == self._path

    def _restore_signals(self, is_alone: bool) -> None:
        if self._handlers and _heed_children():
            _warn_of_handler(signal.SIGCHLD)
        if self._handlers and restore_pipe(is_alone=is_alone):
            _log.warn_of_change("signal.restored: a task had replaced the descriptor that signals write to")
        for number, handler in self._handlers.items():
            found = _raw.getsignal(number)
            wanted = found if type(found) is SharedHandler and found.is_in_use() else handler
            # Also where Python's handler is unchanged: a watcher of gevent, or C code, replaces it in the
            # system, which Python does not see.
            if _raw.signal(number, wanted) is not wanted:
                _warn_of_handler(number)
        if self._handlers:
            self._restore_mask(is_alone)

    def _restore_mask(self, is_alone: bool) -> None:
        """Unblocks the signals of the worker, and those that a job has blocked to wait for them when no job
        runs any more. One of these that it has not waited for is dropped: its default may end the process."""
        blocked = _raw.pthread_sigmask(signal.SIG_BLOCK, ())
        kept = () if is_alone else blocked.difference(self._handlers)
        wanted = self._mask.union(kept)
        if blocked == wanted:
            return
        for number in _raw.sigpending() & (blocked - wanted):
            if _raw.getsignal(number) == _raw.SIG_DFL:
                _raw.sigtimedwait((number,), 0)
        _raw.pthread_sigmask(signal.SIG_SETMASK, wanted)

    def _restore_limits(self) -> None:
        """Raises lowered limits again, as far as a task has left that possible."""
        for number, limits in self._limits.items():
            soft, hard = resource.getrlimit(number)
            if (soft, hard) == limits or not _is_lower(soft, limits[0]):
                continue
            try:
                resource.setrlimit(number, limits)
            except (ValueError, OSError):  # only root raises the hard limit
                self.lasting_change = "lowered a resource limit of the process"

    def _on_processor_limit(self, signum: int, frame: object) -> None:
        """Keeps the worker alive above a limit that a task has lowered, until it is restored."""
        limit = resource.getrlimit(resource.RLIMIT_CPU)[0]
        if os.getpid() != self._process or not _is_lower(limit, self._limits[resource.RLIMIT_CPU][0]):
            _raw.signal(signum, _raw.SIG_DFL)
            signal.raise_signal(signum)

    def _restore_user(self, is_alone: bool) -> None:
        """Gives the process its users and groups again, if the system allows it. A job that runs may have
        changed them for a moment."""
        if _user_now() == self._user:
            return
        users, groups, others = self._user
        try:
            if users[1] not in (os.getuid(), os.geteuid()):
                raise PermissionError
            if is_alone:
                os.seteuid(users[1])
                if os.getgroups() != others:
                    os.setgroups(others)
                os.setregid(*groups)
                os.setreuid(*users)
                _log.warn_of_change("user.restored: a task had changed the user or the groups of the process")
        except OSError:
            self.lasting_change = "changed the user or the groups of the process"

    def _restore_folder(self, is_alone: bool) -> None:
        try:
            folder = os.getcwd()
        except OSError:  # it was deleted: no job can use it
            folder, is_alone = "a folder that was deleted", True
        if folder == self._folder:
            self._warned = None
        elif is_alone:
            with suppress(OSError):
                os.chdir(self._folder)
                _log.warn_of_change("folder.restored: a task had left the worker in %s", folder)
        elif self._warned != folder:
            self._warned = folder
            _log.warn_of_change(
                "folder.changed: a task has changed the working directory of all jobs to %s", folder
            )


def _is_path(folder: object) -> bool:
    return issubclass(type(folder), (str, bytes, os.PathLike))


def _heed_children() -> bool:
    """Whether children were ignored: while they are, the system keeps no exit codes, and each program that a
    job starts seems to have succeeded."""
    is_ignored = bool(_raw.getsignal(signal.SIGCHLD) == _raw.SIG_IGN)
    if is_ignored:
        _raw.signal(signal.SIGCHLD, _raw.SIG_DFL)
    return is_ignored


def _warn_of_handler(number: int) -> None:
    _log.warn_of_change("signal.restored %s: a task had replaced its handler", signal.Signals(number).name)


def folder_now() -> str:
    """The working directory. Raises ConfigError."""
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory is gone, or cannot be read ({error.strerror}): start the command in a "
            "folder that exists, because tasks are searched there"
        ) from error


def _limits_now() -> dict[int, tuple[int, int]]:
    return {number: resource.getrlimit(number) for number in _LIMITS}


def _user_now() -> tuple[tuple[int, int], tuple[int, int], list[int]]:
    """The users and the groups, each the real and the effective one, and the other groups."""
    return (os.getuid(), os.geteuid()), (os.getgid(), os.getegid()), os.getgroups()


def _is_lower(limit: int, other: int) -> bool:
    return limit != resource.RLIM_INFINITY and (other == resource.RLIM_INFINITY or limit < other)
