"""The contract class that runs the state machine. Needs hypothesis: import it by its own name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mrq_core.testing.conformance.base import BrokerFactory, Contract
from mrq_core.testing.conformance.machine import JobMachine
from mrq_core.testing.conformance.machine_raw import RawMachine


class MachineContract(Contract):
    """Whatever is done, the driver answers as the model does.

    A driver's tests give the fixture `empty_broker_factory`: it opens a broker on separate data,
    which are empty, each time.
    """

    examples = 200
    steps = 40

    @property
    def machine(self) -> type[JobMachine]:
        """Which state machine is run: the one with raw queues, where the driver has them."""
        return RawMachine if self.supports_raw else JobMachine

    @pytest.fixture
    def empty_broker_factory(self) -> BrokerFactory:
        raise NotImplementedError("give your test class a fixture `empty_broker_factory`")

    def test_any_history_goes_as_it_goes_in_memory(self, empty_broker_factory: BrokerFactory) -> None:
        self.run(empty_broker_factory)

    def run(self, empty_broker_factory: BrokerFactory, phases: Sequence[Phase] = tuple(Phase)) -> None:
        """Runs the machine. Without the phase `shrink` the first failure is raised unshrunk."""
        run_state_machine_as_test(
            lambda: self.machine(empty_broker_factory, self),  # type: ignore[arg-type]
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=self.steps,
                deadline=None,
                derandomize=True,  # the same histories each time
                database=None,
                phases=[phase for phase in phases if phase is not Phase.reuse],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
