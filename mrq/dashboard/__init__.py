"""MRQ 0.9's dashboard, as a WSGI application: `mrq.dashboard.app:app`."""
