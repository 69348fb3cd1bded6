"""MRQ 0.9's paths of the tasks that requeue jobs."""

from mrq_core.basetasks.cleaning import (
    RequeueInterruptedJobs,
    RequeueLostJobs,
    RequeueRetryJobs,
    RequeueStartedJobs,
)

__all__ = ["RequeueInterruptedJobs", "RequeueLostJobs", "RequeueRetryJobs", "RequeueStartedJobs"]
