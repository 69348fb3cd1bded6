"""Why a job, a queue or a task does not run."""
