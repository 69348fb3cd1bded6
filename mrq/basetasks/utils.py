"""MRQ 0.9's path of the task that cancels or requeues jobs by filters."""

from mrq_core.basetasks.utils import JobAction

__all__ = ["JobAction"]
