"""A module for each page: what it asks, and what it shows."""

from mrq_dashboard.pages import (
    exceptions,
    job,
    jobs,
    limits,
    overview,
    queues,
    schedules,
    system,
    tasks,
    worker_answers,
    workers,
)

__all__ = [
    "exceptions",
    "job",
    "jobs",
    "limits",
    "overview",
    "queues",
    "schedules",
    "system",
    "tasks",
    "worker_answers",
    "workers",
]
