"""The logs of jobs: order, repetition, cap, cursor."""

from __future__ import annotations

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import LogLine
from mrq_core.errors import InvalidValue, JobNotFound
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import Contract, put

BIG = 1_000_000


def line(clock: ManualClock, job_id: str, seq: int, message: str = "", attempt: int = 1) -> LogLine:
    return LogLine(
        job_id=job_id,
        attempt=attempt,
        seq=seq,
        at=clock.now(),
        level="INFO",
        message=message or f"line {attempt}.{seq}",
    )


class LogContract(Contract):
    """What append_logs and read_logs promise."""

    def test_lines_come_back_as_they_were(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        lines = [line(clock, job_id, 0, "grün 🦊\n$x 'q' \\"), line(clock, job_id, 1, "x" * 10_000)]
        broker.append_logs(lines, BIG)
        assert list(broker.read_logs(job_id).lines) == lines

    def test_lines_are_in_order_of_attempt_and_seq(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        lines = [line(clock, job_id, seq, attempt=attempt) for attempt in (1, 2, 10) for seq in (0, 1, 2, 10)]
        for index in (5, 0, 11, 3, 7, 1, 9, 2, 4, 6, 10, 8):
            broker.append_logs([lines[index]], BIG)
        assert list(broker.read_logs(job_id).lines) == lines

    def test_appending_again_changes_nothing(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        lines = [line(clock, job_id, seq) for seq in range(3)]
        broker.append_logs(lines[:2], BIG)
        broker.append_logs([lines[1], line(clock, job_id, 0, "another text"), lines[2], lines[2]], BIG)
        assert list(broker.read_logs(job_id).lines) == lines

    def test_jobs_have_their_own_logs(self, broker: Broker, clock: ManualClock) -> None:
        one, other = put(broker, clock), put(broker, clock)
        broker.append_logs([line(clock, one, 0), line(clock, other, 0), line(clock, one, 1)], BIG)
        assert len(broker.read_logs(one).lines) == 2
        assert len(broker.read_logs(other).lines) == 1

    def test_a_job_without_lines_has_an_empty_log(self, broker: Broker, clock: ManualClock) -> None:
        assert broker.read_logs(put(broker, clock)).lines == ()

    def test_pages_go_on_behind_the_cursor(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        lines = [line(clock, job_id, seq % 4, attempt=1 + seq // 4) for seq in range(10)]
        broker.append_logs(lines, BIG)
        seen: list[LogLine] = []
        cursor: str | None = None
        for _ in range(4):
            page = broker.read_logs(job_id, cursor, limit=3)
            assert len(page.lines) <= 3
            seen += page.lines
            cursor = page.cursor
        assert seen == lines

    def test_the_cursor_of_a_log_without_lines_shows_those_to_come(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        cursor = broker.read_logs(job_id).cursor
        for seq in range(3):
            broker.append_logs([line(clock, job_id, seq)], BIG)
            page = broker.read_logs(job_id, cursor)
            assert [shown.seq for shown in page.lines] == [seq]
            cursor = page.cursor
        again = broker.read_logs(job_id, cursor)
        assert again.lines == ()
        assert again.cursor == cursor

    def test_a_wrong_cursor_is_refused_also_for_a_job_that_does_not_exist(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        for job_id in (put(broker, clock), "0" * 24):
            with pytest.raises(InvalidValue, match="cursor is 'abc'"):
                broker.read_logs(job_id, "abc")

    def test_a_log_keeps_about_its_first_bytes_and_says_where_it_ends(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        lines = [line(clock, job_id, seq, f"{seq:03}" * 100) for seq in range(20)]
        for seq in range(20):
            broker.append_logs([lines[seq]], 3000)
        kept = broker.read_logs(job_id).lines
        assert 5 <= len(kept) <= 12
        assert list(kept[:-1]) == lines[: len(kept) - 1]
        assert kept[-1].seq == len(kept) - 1
        assert kept[-1].message != lines[len(kept) - 1].message
        assert "3,000" in kept[-1].message or "3000" in kept[-1].message

    def test_the_cap_holds_within_one_call_too(self, broker: Broker, clock: ManualClock) -> None:
        one, other = put(broker, clock), put(broker, clock)
        broker.append_logs(
            [line(clock, job_id, seq, "x" * 1000) for job_id in (one, other) for seq in range(50)], 10_000
        )
        for job_id in (one, other):
            assert 2 <= len(broker.read_logs(job_id).lines) <= 12

    def test_a_repetition_does_not_use_up_the_cap(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        first = line(clock, job_id, 0, "x" * 1000)
        for _ in range(10):
            broker.append_logs([first], 5000)
        last = line(clock, job_id, 1, "the end")
        broker.append_logs([last], 5000)
        assert list(broker.read_logs(job_id).lines) == [first, last]

    def test_lines_of_an_unknown_job_are_dropped(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        broker.append_logs([line(clock, "0" * 24, 0), line(clock, job_id, 0)], BIG)
        assert len(broker.read_logs(job_id).lines) == 1

    def test_the_log_of_an_unknown_job_is_not_found(self, broker: Broker) -> None:
        with pytest.raises(JobNotFound):
            broker.read_logs("0" * 24)

    @pytest.mark.parametrize("cursor", ["no cursor", "1.x", ".", "🦊", "%", "' OR 1=1"])
    def test_a_cursor_that_no_page_of_a_log_gave_is_invalid(
        self, broker: Broker, clock: ManualClock, cursor: str
    ) -> None:
        job_id = put(broker, clock)
        with pytest.raises(InvalidValue):
            broker.read_logs(job_id, cursor)
