"""The tasks that a worker publishes: once per load, and whatever they are."""

from __future__ import annotations

from mrq_core.clock import after
from mrq_core.contract.record import Status
from mrq_core.operations.task_descriptions import TASKS_NAMESPACE, TTL, published_task
from tests.support import Project, until

HOSTILE = '''
    import os
    from mrq_core import Task, task

    class Odd:
        def __repr__(self):
            os._exit(9)
        __str__ = __bool__ = __eq__ = __iter__ = __getattr__ = __repr__
        __hash__ = None

    class Meta(type):
        def __repr__(cls):
            os._exit(9)
        __str__ = __repr__

    class Type(metaclass=Meta):
        pass

    @task(searchable=("n",))
    def odd(n: int, one=Odd(), two: Type = 5, three="x" * 10_000_000):
        return n

    odd.__wrapped__.__doc__ = odd.task_class.__doc__ = "word " * 2_000_000

    class Plain(Task):
        """Does plain work."""
        isolate = True

        def run(self, params):
            return params
'''


def test_a_worker_publishes_the_tasks_that_it_loads(project: Project) -> None:
    project.write("hostile_tasks.py", HOSTILE)
    ids = [project.queue("hostile_tasks.odd", {"n": 1}), project.queue("hostile_tasks.Plain")]
    project.worker()
    assert {project.ended(job_id).status for job_id in ids} == {Status.SUCCESS}
    broker = project.client.broker
    odd = until(lambda: published_task(broker, "hostile_tasks.odd"))
    assert odd is not None
    assert odd.arguments is not None
    assert [argument.name for argument in odd.arguments] == ["n", "one", "two", "three"]
    assert odd.arguments[0].schema == {"type": "integer"}
    assert (odd.options["searchable"], odd.arguments[1].default_text) == (["n"], "<Odd>")
    assert odd.doc.startswith("word word")
    assert odd.version
    plain = until(lambda: published_task(broker, "hostile_tasks.Plain"))
    assert plain is not None
    assert (plain.doc, plain.options["isolate"], plain.arguments) == ("Does plain work.", True, None)
    item = broker.state.get(TASKS_NAMESPACE, "hostile_tasks.odd")
    assert item is not None
    assert item.expires_at is not None
    assert after(broker.now(), TTL - 600) < item.expires_at <= after(broker.now(), TTL)


def test_a_second_worker_writes_nothing_new(project: Project) -> None:
    versions = []
    for _ in range(2):
        job_id = project.queue("tasks.noted", {"word": "x"})
        project.work_off()
        assert project.ended(job_id).status is Status.SUCCESS
        item = project.client.broker.state.get(TASKS_NAMESPACE, "tasks.noted")
        assert item is not None, "a worker publishes its tasks before it stops"
        versions.append(item.version)
    assert versions[0] == versions[1]
