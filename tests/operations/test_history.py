"""The audit log, saved views and settings in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mrq_core.config.settings import SETTINGS
from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.errors import InvalidQuery, InvalidValue
from mrq_core.operations import auditing
from mrq_core.operations.auditing import AUDIT_NAMESPACE, audit, read_audit
from mrq_core.operations.queries import saved_views
from mrq_core.operations.queries.saved_views import delete_view, save_view
from mrq_core.operations.settings import SettingInForce, SourceKind, settings_in_force
from mrq_core.operations.views import struct_view
from mrq_core.testing import ManualClock, MemoryBroker


def test_entries_are_read_newest_first_in_pages(each_broker: Broker) -> None:
    made = [audit(each_broker, "anna", "requeue", f"job {number}", {"done": number}) for number in range(5)]
    made.sort(key=lambda entry: (entry.at, entry.id), reverse=True)
    page, cursor = read_audit(each_broker, limit=3)
    assert page == made[:3]
    assert read_audit(each_broker, limit=3, cursor=cursor) == (made[3:], None)
    audit(each_broker, "ben", "pause", "the queue mail")
    found, _ = read_audit(each_broker, wanted_text="BEN mail")
    assert [(entry.who, entry.action, dict(entry.counts)) for entry in found] == [("ben", "pause", {})]
    assert struct_view(made[0])["at"].endswith("Z")  # type: ignore[union-attr]


def test_long_and_odd_texts_are_cut_to_one_line(each_broker: Broker) -> None:
    audit(each_broker, "a\nb\x1b\ud800", "x" * 999, "y" * 9999, {str(number): 1 for number in range(99)})
    [entry], _ = read_audit(each_broker)
    assert entry.who == "a b\\x1b\\ud800"
    assert (len(entry.action), len(entry.target), len(entry.counts)) == (100, 1000, 20)


def test_old_entries_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "MOST", 20)
    monkeypatch.setattr(auditing, "_TRIM_EACH", 10)
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    for number in range(60):
        clock.advance(1)
        audit(broker, "anna", "requeue", str(number))
    entries = broker.state.list(AUDIT_NAMESPACE)
    assert len(entries) == 20
    assert read_audit(broker, limit=20)[0][-1].target == "40"
    clock.advance(31 * 86_400)
    assert read_audit(broker, limit=20) == ([], None)


@pytest.mark.parametrize("more", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}])
def test_a_limit_and_a_cursor_are_checked(each_broker: Broker, more: dict[str, Any]) -> None:
    each_broker.state.put(AUDIT_NAMESPACE, "odd", ["of", "a", "later", "version"])
    assert read_audit(each_broker) == ([], None)
    with pytest.raises(InvalidValue, match=next(iter(more))):
        read_audit(each_broker, **more)


def test_views_are_saved_replaced_and_deleted(each_broker: Broker) -> None:
    save_view(each_broker, "nightly failures", "status:failed   schedule:nightly")
    save_view(each_broker, "Broken", "is:still-failing")
    assert [(view.name, view.query) for view in saved_views.saved_views(each_broker)] == [
        ("Broken", "is:still-failing"),
        ("nightly failures", "status:failed schedule:nightly"),
    ]
    save_view(each_broker, " Broken ", "status:failed")
    assert saved_views.saved_views(each_broker)[0].query == "status:failed"
    assert [delete_view(each_broker, "Broken") for _ in range(2)] == [True, False]


def test_invalid_views_are_refused(each_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidQuery, match="did you mean status"):
        save_view(each_broker, "x", "statsu:failed")
    for name in ("", "  ", "x" * 101, "a\nb"):
        with pytest.raises(InvalidValue, match="printable characters"):
            save_view(each_broker, name, "")
    monkeypatch.setattr(saved_views, "MOST", 1)
    save_view(each_broker, "one", "a")
    save_view(each_broker, "one", "b")
    with pytest.raises(InvalidValue, match="1 views are saved"):
        save_view(each_broker, "two", "a")


def test_settings_have_their_sources_and_no_secrets(tmp_path: Path) -> None:
    file = tmp_path / "mrq-config.py"
    file.write_text(
        "GREENLETS = 7\nQUEUES = ('a', 'b')\nMY_PASSWORD = 'hush'\n"
        "MY_LIMITS = {1: object(), 'token': 'hush'}\n"
        "METRIC_HOOK = lambda name, incr=1, **more: None\n"
    )
    environ = {"MRQ_REDIS": "redis://me:hush@host/1", "MRQ_LOG_LEVEL": "DEBUG"}
    config = load_config({"max_jobs": 5}, file=file, environ=environ)
    found: dict[str, SettingInForce] = {one.name: one for one in settings_in_force(config)}
    assert set(SETTINGS) < set(found)
    kinds = {
        name: found[name].kind for name in ("GREENLETS", "LOG_LEVEL", "MAX_JOBS", "PROCESSES", "MY_LIMITS")
    }
    assert kinds == {
        "GREENLETS": SourceKind.FILE,
        "LOG_LEVEL": SourceKind.ENVIRONMENT,
        "MAX_JOBS": SourceKind.COMMAND_LINE,
        "PROCESSES": SourceKind.DEFAULT,
        "MY_LIMITS": SourceKind.FILE,
    }
    assert (found["MAX_JOBS"].source, found["GREENLETS"].source) == ("--max-jobs", str(file))
    assert (found["GREENLETS"].value, found["QUEUES"].value) == (7, ["a", "b"])
    assert (found["GREENLETS"].is_setting, found["MY_PASSWORD"].is_setting) == (True, False)
    text = msgspec.json.encode(list(found.values())).decode()
    assert "hush" not in text
    assert found["MY_PASSWORD"].value == "***"
    assert "redis://" in str(found["REDIS"].value)
