"""What changes something: a module for each subject, for pages and programs. See `mrq_dashboard.acting`."""

from mrq_dashboard.actions import bulk, jobs, limits, queues, schedules, tasks, views, workers

__all__ = ["bulk", "jobs", "limits", "queues", "schedules", "tasks", "views", "workers"]
