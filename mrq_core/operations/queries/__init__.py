"""Queries: the text of a search box as a filter, the jobs that it finds, and what may be typed next."""
