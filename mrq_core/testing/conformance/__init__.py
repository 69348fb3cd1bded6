"""The contract of a broker in executable form. A driver's tests are these lines:

    from mrq_core.testing.conformance import BrokerContract, BrokerFactory

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        def broker_factory(self, tmp_path: Path) -> BrokerFactory:
            return lambda clock: MyBroker(tmp_path, clock=clock)

The factory opens another broker on the same, initially empty, data. It is given the clock that the
broker has to tell the time by, so that the tests need not wait. Each contract can be taken alone.
Every test is named after the promise that it checks.

A queue that is one half of a composed broker has `QueueContract`, with the fixture `queue_factory`; a store
has `StoreContract`, with `store_factory`.
"""

from __future__ import annotations

import pytest

_PARTS = (
    *("against_model", "base", "bulk", "changes", "claim", "counting", "denied_tasks", "edits", "enqueue"),
    *("horizon", "leases", "limits", "logs", "machine", "machine_kit", "machine_raw", "metrics", "model"),
    *("paused_tasks", "poll", "positions", "processes", "prune", "queue_claims", "queue_entries"),
    *("queue_half", "queue_keys", "queue_kit", "queue_looking", "queue_names", "queue_parking"),
    *("queue_raw", "rates", "raw", "raw_arguments", "raw_kinds", "record_keys", "rules", "search", "settle"),
    *("state", "store_attempts", "store_half", "store_kit", "store_records", "store_threads", "store_writes"),
    *("terms", "threads", "totals", "unique"),
)
# The asserts of a module that pytest does not collect itself say nothing unless they are rewritten.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from mrq_core.testing.conformance.base import BrokerFactory, Contract  # noqa: E402
from mrq_core.testing.conformance.bulk import BulkContract  # noqa: E402
from mrq_core.testing.conformance.changes import ChangeContract  # noqa: E402
from mrq_core.testing.conformance.claim import ClaimContract  # noqa: E402
from mrq_core.testing.conformance.counting import CountContract  # noqa: E402
from mrq_core.testing.conformance.denied_tasks import DeniedTaskContract  # noqa: E402
from mrq_core.testing.conformance.edits import EditContract  # noqa: E402
from mrq_core.testing.conformance.enqueue import EnqueueContract  # noqa: E402
from mrq_core.testing.conformance.horizon import RateHorizonContract  # noqa: E402
from mrq_core.testing.conformance.leases import LeaseContract  # noqa: E402
from mrq_core.testing.conformance.limits import LimitContract  # noqa: E402
from mrq_core.testing.conformance.logs import LogContract  # noqa: E402
from mrq_core.testing.conformance.metrics import MetricContract  # noqa: E402
from mrq_core.testing.conformance.model import ModelContract  # noqa: E402
from mrq_core.testing.conformance.paused_tasks import PausedTaskContract  # noqa: E402
from mrq_core.testing.conformance.poll import PollContract, WaitContract  # noqa: E402
from mrq_core.testing.conformance.positions import PositionContract  # noqa: E402
from mrq_core.testing.conformance.processes import GreenletContract, ProcessContract  # noqa: E402
from mrq_core.testing.conformance.prune import PruneContract  # noqa: E402
from mrq_core.testing.conformance.queue_half import QueueContract  # noqa: E402
from mrq_core.testing.conformance.queue_kit import QueueFactory  # noqa: E402
from mrq_core.testing.conformance.queue_names import QueueNameContract  # noqa: E402
from mrq_core.testing.conformance.rates import RateContract  # noqa: E402
from mrq_core.testing.conformance.raw import RawContract  # noqa: E402
from mrq_core.testing.conformance.raw_arguments import RawArgumentContract  # noqa: E402
from mrq_core.testing.conformance.raw_kinds import RawKindContract  # noqa: E402
from mrq_core.testing.conformance.record_keys import RecordKeyContract  # noqa: E402
from mrq_core.testing.conformance.rules import RulesContract  # noqa: E402
from mrq_core.testing.conformance.search import ApplyContract, SearchContract  # noqa: E402
from mrq_core.testing.conformance.settle import SettleContract  # noqa: E402
from mrq_core.testing.conformance.state import StateContract  # noqa: E402
from mrq_core.testing.conformance.store_half import StoreContract  # noqa: E402
from mrq_core.testing.conformance.store_kit import StoreFactory  # noqa: E402
from mrq_core.testing.conformance.terms import TermContract  # noqa: E402
from mrq_core.testing.conformance.threads import ThreadContract  # noqa: E402
from mrq_core.testing.conformance.totals import TotalsContract  # noqa: E402
from mrq_core.testing.conformance.unique import UniqueContract  # noqa: E402

__all__ = [
    "ApplyContract",
    "BrokerContract",
    "BrokerFactory",
    "BulkContract",
    "ChangeContract",
    "ClaimContract",
    "Contract",
    "CountContract",
    "DeniedTaskContract",
    "EditContract",
    "EnqueueContract",
    "GreenletContract",
    "LeaseContract",
    "LimitContract",
    "LogContract",
    "MetricContract",
    "ModelContract",
    "PausedTaskContract",
    "PollContract",
    "PositionContract",
    "ProcessContract",
    "PruneContract",
    "QueueContract",
    "QueueFactory",
    "QueueNameContract",
    "RateContract",
    "RateHorizonContract",
    "RawArgumentContract",
    "RawContract",
    "RawKindContract",
    "RecordKeyContract",
    "RulesContract",
    "SearchContract",
    "SettleContract",
    "StateContract",
    "StoreContract",
    "StoreFactory",
    "TermContract",
    "ThreadContract",
    "TotalsContract",
    "UniqueContract",
    "WaitContract",
]


class BrokerContract(
    EnqueueContract,
    UniqueContract,
    RecordKeyContract,
    ClaimContract,
    LeaseContract,
    SettleContract,
    LimitContract,
    RateContract,
    RateHorizonContract,
    ChangeContract,
    QueueNameContract,
    EditContract,
    SearchContract,
    TermContract,
    ApplyContract,
    TotalsContract,
    CountContract,
    PositionContract,
    LogContract,
    MetricContract,
    RawArgumentContract,
    RawContract,
    RawKindContract,
    StateContract,
    PollContract,
    RulesContract,
    PausedTaskContract,
    DeniedTaskContract,
    WaitContract,
    PruneContract,
    BulkContract,
    ThreadContract,
    ProcessContract,
    GreenletContract,
    ModelContract,
):
    """The whole contract in one class."""
