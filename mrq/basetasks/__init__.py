"""MRQ 0.9's paths of the maintenance tasks."""
