"""Answers of a server in a form that the driver cannot read.

They come from another program on the port, from a proxy, or from data that were changed by hand. Reading such
an answer fails somewhere in the driver or in its client library, with an error that names no server.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Collection
from functools import wraps
from types import FunctionType
from typing import Any, Protocol, TypeVar

import msgspec

from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.errors import BrokerCorrupt, shown_error

Kind = TypeVar("Kind", bound=type)

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
)
"""Errors of code that reads an answer of a form which it does not expect."""
_RAISE = dis.opmap["RAISE_VARARGS"]


def names_unreadable_answers(
    *, but_in: Collection[str] = (), connection: str = "_connection"
) -> Callable[[Kind], Kind]:
    """Decorates a class with a connection in the attribute of this name: its public methods call
    `raise_if_unreadable`.

    Frequent methods save the time of the decorator: `but_in` names them, and they make that call themselves.
    """

    def decorate(kind: Kind) -> Kind:
        for name, method in list(vars(kind).items()):
            if isinstance(method, FunctionType) and not name.startswith("_") and name not in but_in:
                setattr(kind, name, _naming(method, connection))
        return kind

    return decorate


def _naming(method: Callable[..., Any], connection: str) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **more: Any) -> Any:
        try:
            return method(self, *args, **more)
        except UNREADABLE as error:
            raise_if_unreadable(error, getattr(self, connection))
            raise

    return call


class _Connection(Protocol):
    """A connection to a server."""

    def unreadable(self, error: Exception) -> BrokerCorrupt:
        """The error for an answer in a form that the driver does not expect."""


def raise_if_unreadable(error: Exception, connection: _Connection) -> None:
    """Raises BrokerCorrupt if the error comes from reading an answer."""
    if not _is_intended(error):
        raise connection.unreadable(error) from error


def _is_intended(error: Exception) -> bool:
    """Whether a `raise` statement raised the error, which is about the arguments of the call, or a signal
    handler did. Other errors come from an operation on a value of another type or length."""
    if isinstance(error, AssertionError):  # about an answer, and raised by a statement of the same kind
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_globals.get("__name__") == "enum":  # no member has the value
        return raised_by_handler(error) is not None
    if trace is None or trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE:
        return True
    return raised_by_handler(error) is not None


def unreadable(error: Exception, where: str, advice: str) -> BrokerCorrupt:
    """The error for an answer of the server `where`, such as ``Redis at redis://127.0.0.1:6379/0``."""
    return BrokerCorrupt(
        f"{where} sent an answer that mrq cannot read ({shown_error(error)}): another program or a proxy "
        f"answers there, or the data were changed by hand; {advice}"
    )
