"""What the jobs of `mrq demo` do: reading Python's own source files, and the ways in which jobs can end."""

from __future__ import annotations

import ast
import hashlib
import time
from pathlib import Path

from mrq_core.running.context import get_current_job, log, retry_current_job, set_current_job_progress
from mrq_core.tasks.task import task

QUEUE = "demo"
RETRIES = 2


@task(queue=QUEUE)
def read_module(path: str) -> dict[str, object]:
    """Parses a source file, and tells what is in it."""
    source = Path(path).read_bytes()
    return {"path": path, **_facts(source, path)}


@task(queue=QUEUE)
def read_text(text: str, name: str) -> dict[str, object]:
    """The same for source that stands in the params; fails where that is not Python."""
    log.info("parsing %s, %d characters", name, len(text))
    return _facts(text.encode(), name)


@task(queue=QUEUE)
def slow_report(pages: int, seconds_per_page: float) -> dict[str, object]:
    """Waits, as on a slow server, and tells how far it is."""
    for page in range(1, pages + 1):
        time.sleep(seconds_per_page)
        log.info("page %d of %d is written", page, pages)
        set_current_job_progress(page / pages)
    return {"pages": pages}


@task(queue=QUEUE)
def flaky(server: str) -> dict[str, object]:
    """Asks to be retried twice, and succeeds the third time."""
    job = get_current_job()
    retries = job.record.retry_count if job is not None else RETRIES
    if retries < RETRIES:
        log.info("%s is busy: this was attempt %d", server, retries + 1)
        retry_current_job(delay=0.5, max_retries=RETRIES)
    log.info("%s answered", server)
    return {"server": server, "attempts": retries + 1}


@task(queue=QUEUE, timeout=1.0)
def too_slow(seconds: float) -> None:
    """Takes longer than its timeout, one second, and is interrupted."""
    log.info("waiting for an answer, for up to %g seconds", seconds)
    time.sleep(seconds)


def _facts(source: bytes, name: str) -> dict[str, object]:
    tree = ast.parse(source, filename=name)
    nodes = list(ast.walk(tree))
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
    documented = [n for n in (tree, *functions, *classes) if ast.get_docstring(n, clean=False)]
    return {
        "lines": source.count(b"\n"),
        "functions": len(functions),
        "classes": len(classes),
        "docstrings": len(documented),
        "sha256": hashlib.sha256(source).hexdigest(),
    }
