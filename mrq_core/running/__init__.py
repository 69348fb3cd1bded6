"""What the code of a task reaches while it runs. The code that runs a job is `mrq_core/worker/executing.py`.

`context`: the current job, retry, abort, progress. `helpers`: other tasks in place, greenlets. `logs`:
per-job logs. `pyproject.toml` (`[tool.importlinter]`) says which layers this package may import.
"""
