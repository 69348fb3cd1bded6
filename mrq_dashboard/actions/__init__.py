"""The actions: a module for each subject, for pages and programs alike. See `mrq_dashboard.acting`."""

from mrq_dashboard.actions import views

__all__ = ["views"]
