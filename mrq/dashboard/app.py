"""The dashboard for WSGI servers: `app`. Configured as `mrq dashboard` is, when this module is imported."""

from __future__ import annotations

from mrq_dashboard import create_dashboard
from mrq_dashboard.wsgi import wsgi_app

app = wsgi_app(create_dashboard)
