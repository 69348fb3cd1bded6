"""Maintenance as ordinary tasks, to be run by hand or by a schedule."""
