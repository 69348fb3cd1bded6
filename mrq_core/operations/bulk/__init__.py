"""Bulk actions: one change of all jobs that a query finds, in steps that outlive the process."""
