"""MRQ 0.9's import names, re-exported."""
