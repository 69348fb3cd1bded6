"""A worker says once that the clock of its broker was set, and what that does to jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mrq_core.worker.clock_watch import ClockWatch
from tests.support import Project, until

START = datetime(2030, 1, 1, tzinfo=UTC)


class Clocks:
    """The clocks of a machine and of a broker, each at a number of seconds."""

    def __init__(self) -> None:
        self.wall = self.steady = self.broker = 1000.0
        self.asked = 0

    def now(self) -> datetime:
        self.asked += 1
        return START + timedelta(seconds=self.broker)

    def watch(self) -> ClockWatch:
        watch = ClockWatch(self.now, wall=lambda: self.wall, steady=lambda: self.steady)
        watch.start()
        return watch


@pytest.mark.parametrize(("step", "event"), [(-3600, "clock.set_back"), (3600, "clock.set_forward")])
def test_a_step_of_the_clock_is_logged_once(
    caplog: pytest.LogCaptureFixture, step: float, event: str
) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    for name in ("wall", "broker"):
        setattr(clocks, name, getattr(clocks, name) + step)
    for _ in range(5):
        watch.look()
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{event} seconds=3600: the broker's clock was set")
    assert "by 1 h; jobs that wait" in said


def test_a_clock_that_is_right_or_that_no_job_uses_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    for _ in range(100):  # slow corrections, and passing time
        clocks.wall += 61.0
        clocks.steady += 60.0
        clocks.broker += 60.0
        watch.look()
    assert clocks.asked == 1
    clocks.wall -= 3600  # the broker is a server, whose clock is right
    watch.look()
    assert clocks.asked == 2
    assert not caplog.records


def test_a_worker_watches_the_clock(project: Project) -> None:
    if not project.address.broker.startswith("sqlite"):
        pytest.skip("the clock of a server cannot be set")
    project.write(
        "stepping.py",
        """
        from mrq_core import task
        from mrq_core.worker.clock_watch import ClockWatch

        @task
        def step(look=ClockWatch.look):
            def after_a_step(self):
                ClockWatch.look = look
                self._offset += 3600  # as if both clocks had been set back
                self._broker_offset += 3600
                look(self)
            ClockWatch.look = after_a_step
        """,
    )
    worker = project.worker()
    project.ended(project.queue("stepping.step"))
    until(lambda: "clock.set_back seconds=3600" in worker.output, what="the warning")
