"""MRQ 0.9's path of the task that creates indexes."""

from mrq_core.basetasks.indexes import EnsureIndexes

__all__ = ["EnsureIndexes"]
