"""A module for each subject of the JSON API."""

from mrq_dashboard.api import (
    bulk,
    exceptions,
    exporting,
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
    "bulk",
    "exceptions",
    "exporting",
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
