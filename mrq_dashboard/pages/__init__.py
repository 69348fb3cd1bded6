"""A module for each page: what it asks, and what it shows."""

from mrq_dashboard.pages import (
    bulk,
    exceptions,
    job,
    job_actions,
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
    "bulk",
    "exceptions",
    "job",
    "job_actions",
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
