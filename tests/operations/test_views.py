"""Views: plain data with ISO times, and without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from mrq_core.contract.lifecycle import claimed, requeued, settled
from mrq_core.contract.messages import Outcome
from mrq_core.contract.queries import QueueCounts
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.views import (
    attempt_view,
    duration_of,
    iso,
    job_details,
    job_row,
    queue_view,
    redacted,
    seconds,
    timeline,
)

NOW = datetime(2025, 6, 1, 12, 0, 0, 123_000, tzinfo=UTC)
QUEUED = JobRecord(
    id=f"{int(NOW.timestamp()):08x}{'0' * 16}",
    path="tasks.Add",
    params={"a": 1, "token": "t", "deep": [{"password": "p", "user": "anna"}], "secret": None},
    queue="default",
    queued_at=NOW,
    updated_at=NOW,
    due_at=NOW,
)
STARTED = claimed(QUEUED, now=NOW + timedelta(seconds=1), worker="w", nonce="n", lease=60)
FAILED = settled(
    STARTED,
    Outcome(
        status=Status.FAILED, ttl=60, exception_type="ValueError", traceback="ValueError: x", total_time=2.0
    ),
    NOW + timedelta(seconds=3),
)


def test_times_are_iso_with_milliseconds_and_z() -> None:
    assert iso(NOW) == "2025-06-01T12:00:00.123Z"
    assert iso(None) is None


def test_no_duration_is_negative() -> None:
    assert [seconds(value) for value in (-7200.0, -0.001, 0.0, 0.5)] == ["0 ms", "0 ms", "0 ms", "500 ms"]


def test_values_of_keys_that_look_secret_are_hidden_however_deep() -> None:
    assert redacted(QUEUED.params) == {
        "a": 1,
        "token": "***",
        "deep": [{"password": "***", "user": "anna"}],
        "secret": None,
    }


def test_rows_and_details_are_json() -> None:
    for record in (QUEUED, STARTED, FAILED):
        details = job_details(record, now=NOW + timedelta(seconds=5))
        assert json.loads(json.dumps(details)) == details
        assert details["id"] == record.id
        assert job_row(record, now=NOW).items() <= {**details, "age": 0.0, **_duration(record)}.items()


def _duration(record: JobRecord) -> dict[str, float | None]:
    return {"duration": duration_of(record, NOW)}


def test_the_duration_of_a_running_job_is_how_long_it_has_run() -> None:
    assert duration_of(QUEUED, NOW) is None
    assert duration_of(STARTED, NOW + timedelta(seconds=5)) == 4.0
    assert duration_of(FAILED, NOW + timedelta(seconds=50)) == 2.0


def test_the_timeline_tells_what_happened_in_order() -> None:
    again = requeued(FAILED, now=NOW + timedelta(seconds=10), queue="high", reset_retries=True)
    lost = claimed(again, now=NOW + timedelta(seconds=11), worker="v", nonce="m", lease=1)
    running = claimed(lost, now=NOW + timedelta(seconds=20), worker="u", nonce="o", lease=60)
    assert [event for _, event in timeline(running)] == [
        "created",
        "attempt 1 started by w",
        "attempt 1 ended: failed",
        "queued on high",
        "attempt 2 started by v",
        "attempt 2 lost: its lease expired",
        "attempt 3 started by u",
        "its lease ends, unless it is renewed",
    ]
    assert [event for _, event in timeline(replace(FAILED, queued_at=NOW))] == [
        "queued on default",
        "attempt 1 started by w",
        "attempt 1 ended: failed",
        "expires",
    ]


def test_a_queue_is_paused_by_its_name_or_by_a_tree_that_it_is_in() -> None:
    counts = QueueCounts(queue="mail/a/b")
    for paused, expected in (
        ({"mail/a/b"}, True),
        ({"mail/"}, True),
        ({"mail/a/"}, True),
        ({"mail"}, False),
        ({"mail/a"}, False),
        (set(), False),
    ):
        assert queue_view(counts, paused=paused)["paused"] is expected


def test_secrets_in_results_are_hidden_like_those_in_params() -> None:
    record = replace(FAILED, result={"user": "anna", "sessionToken": "hush", "max_tokens": 3})
    shown = job_details(record, now=NOW)
    assert shown["result"] == {"user": "anna", "sessionToken": "***", "max_tokens": 3}


def test_the_death_of_a_process_is_shown_with_its_signal_and_memory() -> None:
    died = "mrq_core.errors.ProcessDied"
    text = (
        f"{died}: the own process 7 of this job was killed by SIGKILL (signal 9) after 0.3 s, before its "
        "code had ended; its peak memory was 29 MB"
    )
    outcome = Outcome(
        status=Status.QUEUED,
        delay=0.0,
        lost=True,
        exception_type=died,
        traceback=f"{text}; the job runs again",
    )
    again = settled(STARTED, outcome, NOW + timedelta(seconds=3))
    death = "its process was killed by SIGKILL (signal 9), with a peak memory of 29 MB"
    [attempt] = again.attempts
    assert attempt_view(attempt)["status"] == "died"
    assert attempt_view(attempt)["death"] == death
    assert f"attempt 1 died: {death}" in [event for _, event in timeline(again)]
    ended = replace(
        FAILED,
        exception_type=died,
        traceback=text.replace("was killed by SIGKILL (signal 9)", "exited with code 3"),
    )
    death = "its process exited with code 3, with a peak memory of 29 MB"
    assert f"attempt 1 ended: failed: {death}" in [event for _, event in timeline(ended)]
    assert attempt_view(ended.attempts[-1])["death"] == death
    assert attempt_view(FAILED.attempts[-1])["death"] is None
