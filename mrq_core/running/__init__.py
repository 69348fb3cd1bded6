"""What the code of a task reaches while it runs.

`context`: the current job, retry, abort, progress. `helpers`: other tasks in place, greenlets.
`logs`: per-job logs.
"""
