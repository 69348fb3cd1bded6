"""What changes something: a module for each subject, for pages and programs. See `mrq_dashboard.acting`."""

from mrq_dashboard.actions import limits, queues, schedules, tasks, views, workers

__all__ = ["limits", "queues", "schedules", "tasks", "views", "workers"]
