"""Runs the plugins around an attempt: the wrappers of the hook `mrq_around_job`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pluggy
from msgspec.structs import replace

from mrq_core.contract import codec
from mrq_core.contract.messages import Outcome
from mrq_core.errors import MrqError
from mrq_core.plugins.hookspecs import AttemptContext
from mrq_core.running.context import JobContext

_log = logging.getLogger("mrq.plugins")


class Around:
    """The wrappers of one attempt. `enter` runs each up to its yield, and `leave` runs the rest.

    pluggy would do this too, but its frames between the wrappers are no place for an interrupt, and it lets
    one wrapper change what the next sees.
    """

    def __init__(self, wrappers: Sequence[pluggy.HookImpl], context: JobContext) -> None:
        self._wrappers = wrappers
        self._context = context
        self._view = AttemptContext(context.record)
        self._entered: list[tuple[str, Generator[None, Outcome, object]]] = []

    def enter(self) -> None:
        """Starts the wrappers, the outermost first. Raises what a wrapper raises, and MrqError for a wrapper
        that ends without a yield; the wrappers inside it are not started."""
        for wrapper in self._wrappers:
            generator: Any = wrapper.function(*[self._view] * len(wrapper.argnames))
            # Entered before it starts: an interrupt just after its yield must not leave it open.
            self._entered.append((wrapper.plugin_name, generator))
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
        self._view._outcome = seen = _copy_of(outcome)
        frames = error.__traceback__ if error is not None else None
        while self._entered:
            plugin, generator = self._entered.pop()
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
                error.with_traceback(frames)  # without the frames of this wrapper

    def _resume(self, step: Callable[..., object], *arguments: object) -> None:
        """Runs code of a plugin until it yields or ends. Interrupts are raised in here only."""
        self._context.in_code = True
        try:
            step(*arguments)
        finally:
            self._context.in_code = False

    def _report(self, plugin: str, error: BaseException) -> None:
        try:
            _log.error(
                "plugin.failed hook=mrq_around_job plugin=%s id=%s: the outcome of the code is stored",
                plugin,
                self._context.record.id,
                exc_info=error,
            )
        except Exception:
            pass  # a broken log handler


def _is_passed_on(raised: BaseException, error: BaseException | None) -> bool:
    """Whether a wrapper lets the exception of the code pass. A generator turns StopIteration into
    RuntimeError."""
    return raised is error or (isinstance(error, StopIteration) and raised.__cause__ is error)


def _copy_of(outcome: Outcome) -> Outcome:
    """The outcome for plugins, whose result they can change without changing the result that is stored."""
    if not isinstance(outcome.result, dict | list):
        return outcome
    try:
        return replace(outcome, result=codec.decode(codec.encode(outcome.result)))
    except Exception:  # a plugin's mrq_encode made it; the settler reports the error
        return replace(outcome, result=None)
