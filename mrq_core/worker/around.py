"""Runs the plugins around an attempt: the wrappers of the hook `mrq_around_job`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pluggy
from msgspec.structs import replace

from mrq_core.contract import codec
from mrq_core.contract.exception_fields import frames_of
from mrq_core.contract.messages import Outcome
from mrq_core.contract.plain_tracebacks import exception_before
from mrq_core.errors import MrqError
from mrq_core.plugins.hookspecs import AttemptContext
from mrq_core.running.context import JobContext
from mrq_core.worker.guards import forking
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.tracebacks import format_traceback

_log = GuardedLog("mrq.plugins")


class Around:
    """The wrappers of one attempt. `enter` runs each up to its yield, and `leave` runs the rest.

    pluggy would do this too, but its frames between the wrappers are no place for an interrupt, and it lets
    one wrapper change what the next sees.
    """

    def __init__(self, wrappers: Sequence[pluggy.HookImpl], context: JobContext) -> None:
        self._wrappers = wrappers
        self._context = context
        self._entered: list[tuple[str, AttemptContext, Generator[None, Outcome, object]]] = []

    def enter(self) -> None:
        """Starts the wrappers, the outermost first. Raises what a wrapper raises, and MrqError for a wrapper
        that ends without a yield; the wrappers inside it are not started."""
        for wrapper in self._wrappers:
            view = AttemptContext(self._context.record)
            generator: Any = wrapper.function(*[view] * len(wrapper.argnames))
            # Entered before it starts: an interrupt just after its yield must not leave it open.
            self._entered.append((wrapper.plugin_name, view, generator))
            try:
                self._resume(next, generator)
            except StopIteration:
                raise MrqError(
                    f"mrq_around_job of the plugin {wrapper.plugin_name} ended without a yield: the code of "
                    "the job did not run"
                ) from None

    def leave(self, outcome: Outcome, error: BaseException | None) -> None:
        """Ends the wrappers, the innermost first. Never raises. `error` ended the attempt, if it raised.

        From here on the outcome stands, also if the worker is given up for a wrapper that does not end.
        """
        self._context.outcome = outcome
        frames = frames_of(error) if error is not None else None
        while self._entered:
            plugin, view, generator = self._entered.pop()
            view._outcome = seen = _copy_of(outcome)
            try:
                if error is None:
                    self._resume(generator.send, seen)
                else:  # a generator that has ended raises it back
                    self._resume(generator.throw, error)
                self._resume(generator.close)
                self._report(plugin, RuntimeError("mrq_around_job yielded a second time"))
            except StopIteration:
                pass
            except BaseException as raised:
                if not _is_passed_on(raised, error):
                    self._report(plugin, raised)
            if error is not None:
                # Without the frames of this wrapper. A class of the task may have another `with_traceback`.
                BaseException.with_traceback(error, frames)

    def _resume(self, step: Callable[..., object], *arguments: object) -> None:
        """Runs code of a plugin until it yields or ends. Interrupts are raised in here only."""
        self._context.in_code = True
        try:
            step(*arguments)
        except BaseException as error:
            forking.end_if_child(None if issubclass(type(error), StopIteration) else error)
            raise
        finally:
            self._context.in_code = False
        forking.end_if_child()

    def _report(self, plugin: str, error: BaseException) -> None:
        _log.error(
            "plugin.failed hook=mrq_around_job plugin=%s id=%s: the outcome of the code is stored\n%s",
            plugin,
            self._context.record.id,
            format_traceback(error).rstrip(),
        )


def _is_passed_on(raised: BaseException, error: BaseException | None) -> bool:
    """Whether a wrapper lets the exception of the code pass. A generator turns StopIteration into
    RuntimeError."""
    if raised is error:
        return True
    is_stop = error is not None and issubclass(type(error), StopIteration)
    return is_stop and exception_before(raised) is error


def _copy_of(outcome: Outcome) -> Outcome:
    """The outcome for plugins, whose result they can change without changing the result that is stored."""
    if not isinstance(outcome.result, dict | list):
        return outcome
    try:
        return replace(outcome, result=codec.decode(codec.encode(outcome.result)))
    except Exception:  # a plugin's mrq_encode made it; the settler reports the error
        return replace(outcome, result=None)
