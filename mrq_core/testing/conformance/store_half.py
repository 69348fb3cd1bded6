"""The contract of a store half in executable form. A driver's tests are these lines:

    from mrq_core.testing.conformance import StoreContract, StoreFactory

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store_factory(self, tmp_path: Path) -> StoreFactory:
            return lambda clock: MyStore(tmp_path, clock=clock)

It says what the store alone promises. What it shares with a broker, such as filters, logs and shared state,
`BrokerContract` tells of a broker that is composed with this store.
"""

from __future__ import annotations

from mrq_core.testing.conformance.store_attempts import AnnotateContract, StartContract, SucceedContract
from mrq_core.testing.conformance.store_records import RecordContract
from mrq_core.testing.conformance.store_threads import StoreThreadContract
from mrq_core.testing.conformance.store_writes import FollowUpContract, WriteContract


class StoreContract(
    RecordContract,
    WriteContract,
    FollowUpContract,
    StartContract,
    SucceedContract,
    AnnotateContract,
    StoreThreadContract,
):
    """The whole contract of `JobStore` in one class."""
