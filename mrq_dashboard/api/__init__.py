"""A module for each subject of the JSON API."""

from mrq_dashboard.api import (
    exceptions,
    jobs,
    limits,
    queues,
    schedules,
    search,
    stats,
    system,
    tasks,
    workers,
)

__all__ = [
    "exceptions",
    "jobs",
    "limits",
    "queues",
    "schedules",
    "search",
    "stats",
    "system",
    "tasks",
    "workers",
]
