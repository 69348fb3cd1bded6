"""A module for each subject of the JSON API."""

from mrq_dashboard.api import queues

__all__ = ["queues"]
