"""The dashboard: pages and a JSON API about the jobs, queues and workers of a broker.

`create_dashboard` makes a Starlette application. `mrq dashboard` serves it.
"""

from __future__ import annotations

try:
    from mrq_dashboard.app import create_dashboard
    from mrq_dashboard.auth import Role, Visitor
except Exception as error:
    from mrq_core.config.hidden import hiding
    from mrq_core.errors import ImportFailed, shown_error

    if (sentence := hiding(error, anywhere=True)) is None:
        raise
    raise ImportFailed(f"the dashboard cannot be imported: {shown_error(error)}; {sentence}") from error

__all__ = ["Role", "Visitor", "create_dashboard"]
