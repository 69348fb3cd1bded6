"""The dashboard: pages and a JSON API about the jobs, queues and workers of a broker.

`create_dashboard` makes a Starlette application. `mrq dashboard` serves it.
"""

from __future__ import annotations

from mrq_dashboard.app import create_dashboard
from mrq_dashboard.auth import Role, Visitor

__all__ = ["Role", "Visitor", "create_dashboard"]
