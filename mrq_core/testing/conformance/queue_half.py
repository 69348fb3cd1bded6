"""The contract of a queue half in executable form. A driver's tests are these lines:

    from mrq_core.testing.conformance import QueueContract, QueueFactory

    class TestMyQueue(QueueContract):
        @pytest.fixture
        def queue_factory(self, tmp_path: Path) -> QueueFactory:
            return lambda clock: MyQueue(tmp_path, clock=clock)

What follows from it for whole jobs, `BrokerContract` tells of a broker that is composed with this queue.
"""

from __future__ import annotations

from mrq_core.testing.conformance.queue_claims import (
    QueueClaimContract,
    QueueLimitContract,
    SuspectContract,
)
from mrq_core.testing.conformance.queue_entries import EntryClaimContract, EntryContract
from mrq_core.testing.conformance.queue_keys import KeyContract
from mrq_core.testing.conformance.queue_looking import QueueCareContract, QueueLookContract
from mrq_core.testing.conformance.queue_parking import ParkingContract
from mrq_core.testing.conformance.queue_raw import AdmitContract


class QueueContract(
    KeyContract,
    EntryContract,
    EntryClaimContract,
    QueueClaimContract,
    SuspectContract,
    QueueLimitContract,
    ParkingContract,
    AdmitContract,
    QueueLookContract,
    QueueCareContract,
):
    """The whole contract of `JobQueue` in one class."""
