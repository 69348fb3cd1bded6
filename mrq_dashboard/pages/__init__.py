"""A module for each page: what it asks, and what it shows."""

from mrq_dashboard.pages import queues

__all__ = ["queues"]
