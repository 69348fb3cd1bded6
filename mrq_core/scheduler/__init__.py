"""Schedules: their definitions, the times at which they fire, and the scheduler that makes their jobs."""
