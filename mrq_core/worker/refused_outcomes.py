"""Outcomes that the broker does not accept: whether another try may help, and for how long they are kept."""

from __future__ import annotations

from mrq_core.clock import monotonic
from mrq_core.contract.messages import Outcome, Settlement
from mrq_core.contract.plain import printable
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue, NotSupported, RecordTooLarge
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.tracebacks import error_fields
from mrq_core.worker.worker_state import WorkerState

KEPT_FOR, _TRIES_LEAST = 20.0, 5
"""Seconds, and tries, of one outcome while the broker settles others, after which it is settled as failed.
After twice as many seconds the execution is given up."""
_TRIES_OF_VALUES = 2
"""The tries where the values are at fault: a server in trouble may give any reason once."""
_NO_CLAIM = Settlement(
    id="0" * 24, token="none", outcome=Outcome(status=Status.FAILED, traceback="no claim has this token")
)
"""What a broker refuses without an error."""


class RefusedOutcomes:
    """The executions that could not be settled alone, although the broker could settle."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self.errors: dict[Execution, tuple[float, int]] = {}
        """The monotonic time of the first error of each, and the number of errors."""

    def is_final(self, execution: Execution, error: Exception) -> bool:
        """Notes an error of its outcome, and tells whether to settle the execution as failed."""
        if may_pass(error):
            return self.has_lasted(execution, KEPT_FOR)
        return self.has_lasted(execution, 0.0, _TRIES_OF_VALUES)

    def has_lasted(self, execution: Execution, seconds: float, least: int = _TRIES_LEAST) -> bool:
        """Notes an error, and tells whether the execution has had errors for so long, and at least this
        number, while the broker could settle. Time in which it could not does not count."""
        if not self._can_settle():
            self.errors.pop(execution, None)
            return False
        first, tries = self.errors.get(execution, (monotonic(), 0))
        self.errors[execution] = first, tries + 1
        return tries + 1 >= least and monotonic() - first >= seconds

    def tries_of(self, execution: Execution) -> int:
        """The errors of the execution that count."""
        return self.errors.get(execution, (0.0, 0))[1]

    def _can_settle(self) -> bool:
        """Whether the broker answers a call of the same kind that concerns no job."""
        try:
            self._state.broker.settle([_NO_CLAIM])
        except Exception:
            return False
        return True


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later, as after each error but those of the values themselves.

    What a server says does not tell: an overloaded server, or a proxy before it, refuses single calls with
    codes of all kinds. What is no error of the broker lies in this process, which may lack a descriptor, or
    in which a task has changed what a library needs for a moment.
    """
    return not isinstance(error, RecordTooLarge | InvalidValue | NotSupported)


def unstorable(execution: Execution, error: Exception) -> Outcome:
    """The outcome of an execution whose own outcome cannot be stored because of this error."""
    fields = error_fields(execution.record.path, error)
    what = f"{fields['exception_type']}: {fields['exception_message']}"
    return Outcome(
        status=Status.FAILED,
        ttl=execution.outcome.ttl if execution.outcome else None,
        total_time=execution.outcome.total_time if execution.outcome else None,
        **fields,
        traceback=printable(f"the outcome of this execution could not be stored:\n{what}\n"),
    )
