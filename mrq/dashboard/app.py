"""The dashboard for WSGI servers: `app`. Configured as `mrq dashboard` is, when this module is imported."""

from __future__ import annotations

from a2wsgi import ASGIMiddleware
from a2wsgi.wsgi_typing import WSGIApp

from mrq_dashboard import create_dashboard

app: WSGIApp = ASGIMiddleware(create_dashboard())  # type: ignore[arg-type]
