"""Commands that this version does not contain yet, so that they say so."""

from __future__ import annotations

from mrq_core.cli.errors import UsageError
from mrq_core.cli.options import command


@command()
def dashboard() -> None:
    """Not part of this version."""
    raise UsageError("the dashboard is not part of this version of mrq; `mrq jobs`, `mrq queues` and "
                     "`mrq workers` show the same things here")  # fmt: skip
