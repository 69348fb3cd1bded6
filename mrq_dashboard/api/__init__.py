"""A module for each subject of the JSON API."""

from mrq_dashboard.api import jobs, limits, queues, schedules, workers

__all__ = ["jobs", "limits", "queues", "schedules", "workers"]
