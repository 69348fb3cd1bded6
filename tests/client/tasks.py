"""Tasks with options, for the tests of the client."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.tasks.task import Task, task


@task(queue="mail", priority=2)
def mail(to: str, copies: int = 1) -> str:
    return to * copies


class Crawl(Task):
    queue = "crawl"

    def run(self, params: JsonObject) -> None:
        return None


@task(searchable=("user",))
def search(user: int, page: int = 0) -> int:
    return user
