"""What `mrq check` says of a deployment, and what `mrq check --fix` mends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_broker_mongo.server import checks, layout
from mrq_broker_mongo.server.layout import INDEXES
from mrq_core.contract.messages import ChangeResult, RawItem, Wanted
from mrq_core.contract.queries import Finding
from mrq_core.testing.conformance.base import run_in_threads
from tests.mongo.kit import Place, claim, new_job, open_broker
from tests.mongo.servers import Server
from tests.mongo.services import Replicas, replica_set
from tests.servers import free_port
from tests.support import open_project, until


@pytest.fixture(scope="module")
def single() -> Iterator[Replicas]:
    with replica_set(1) as replicas:
        yield replicas


def findings(place: Place) -> dict[str, Finding]:
    broker = open_broker(place, timeout=2.0)
    found = {finding.subject: finding for finding in broker.check()}
    broker.close()
    return found


def levels(found: dict[str, Finding]) -> dict[str, str]:
    return {subject: finding.level for subject, finding in found.items() if finding.level != "ok"}


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


def test_a_server_that_is_set_up_well_has_no_findings(place: Place, server_url: str) -> None:
    broker = place.open()
    broker.prepare()
    found = findings(place)
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found.keys() >= {"version", "deployment", "durability", "layout", "indexes"}
    assert "version 2" in found["layout"].message
    assert place.prefix in found["layout"].message
    assert server_url.partition("//")[2].partition("/")[0] in found["version"].message
    assert "w=majority, journal=true" in found["durability"].message
    broker.close()


def test_an_empty_database_is_no_error_and_stays_empty(server: Server) -> None:
    found = findings(Place(server.url.replace("/mrq", "/untouched"), "mrq"))
    assert levels(found) == {}
    assert "nothing is stored" in found["layout"].message
    with server.client() as client:
        assert "untouched" not in client.list_database_names()


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: f"{index.collection}.{index.name}")
def test_an_index_that_is_missing_is_named_and_made(place: Place, server: Server, index: object) -> None:
    broker = place.open()
    broker.prepare()
    collection, name = getattr(index, "collection", ""), getattr(index, "name", "")
    with server.client() as client:
        client["mrq"][f"{place.prefix}_{collection}"].drop_index(name)
    finding = findings(place)["indexes"]
    assert finding.level == "error"
    assert finding.message == f"missing: {place.prefix}_{collection}.{name}"
    assert "mrq check --fix" in finding.advice
    broker.prepare()
    assert levels(findings(place)) == {}
    broker.close()


def test_hints_that_are_not_kept_in_a_ring_are_named_and_made_anew(place: Place, server: Server) -> None:
    broker = place.open()
    broker.prepare()
    with server.client() as client:
        hints = client["mrq"][f"{place.prefix}_wake"]
        hints.drop()
        hints.insert_one({"root": "q"})
    assert findings(place)["indexes"].message == f"missing: {place.prefix}_wake"
    broker.prepare()
    assert levels(findings(place)) == {}
    broker.enqueue([new_job()])
    assert broker.wait([Wanted(name="q")], 5.0)
    broker.close()


def test_the_command_mends_what_is_missing_and_says_so(place: Place, server: Server, tmp_path: Path) -> None:
    broker = place.open()
    broker.enqueue([new_job()])
    with server.client() as client:
        client["mrq"][f"{place.prefix}_jobs"].drop_index("due")
    with open_project(tmp_path, with_option(place.url, f"prefix={place.prefix}")) as project:
        process = project.start("check")
        assert process.wait() == 1
        assert f"{place.prefix}_jobs.due" in process.output
        assert "mrq check --fix" in process.output
        project.mrq("check", "--fix")
        assert f"all {len(INDEXES)} are there" in project.mrq("check")
    broker.close()


@pytest.mark.parametrize("is_leased", [False, True])
def test_a_parameter_that_was_changed_by_hand_is_named_and_stops_no_claim(
    place: Place, server: Server, is_leased: bool
) -> None:
    broker = place.open()
    raw = broker.raw("urls_set")
    raw.push([RawItem(param=param) for param in "ab"])
    if is_leased:
        assert len(raw.claim(2, 0.01, "w")) == 2
    with server.client() as client:
        documents = client["mrq"][f"{place.prefix}_raw"]
        documents.update_one({"param": "a"}, {"$set": {"param": 5}})
    until(lambda: [one.param for one in raw.claim(2, 60.0, "w")] == ["b"], what="the other parameter")
    finding = findings(place)["damaged parameters"]
    assert finding.level == "warning"
    assert "urls_set" in finding.message
    with server.client() as client:
        assert client["mrq"][f"{place.prefix}_raw"].find_one({"damaged_queue": "urls_set"}) is not None
    broker.close()


def test_a_server_that_is_too_old_is_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OLDEST", (99, 0))
    finding = findings(place)["version"]
    assert finding.level == "error"
    assert "upgrade" in finding.advice


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("w=1", "ok"),
        ("journal=false", "warning"),
        ("w=1&journal=false", "warning"),
    ],
)
def test_one_server_that_is_not_waited_for_is_found(place: Place, options: str, level: str) -> None:
    finding = findings(Place(with_option(place.url, options), place.prefix))["durability"]
    assert finding.level == level
    assert ("leave the options w and journal out" in finding.advice) == (level != "ok")


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("w=majority", "ok"),
        ("w=1", "warning"),
        ("w=majority&journal=false", "warning"),
    ],
)
def test_a_replica_set_whose_majority_is_not_waited_for_is_found(
    single: Replicas, options: str, level: str
) -> None:
    found = findings(Place(with_option(single.url, options), "mrq"))
    assert found["deployment"].message.startswith("replica set jobs")
    assert found["durability"].level == level


@pytest.mark.parametrize(
    "options", ["readPreference=secondary", "readPreference=secondaryPreferred&maxStalenessSeconds=90"]
)
def test_reads_go_to_the_primary_whatever_the_url_says(single: Replicas, options: str) -> None:
    place = Place(with_option(single.url, f"{options}&readConcernLevel=majority"), "mrq")
    broker = place.open()
    broker.prepare()
    job = new_job()
    broker.enqueue([job])
    [record] = broker.get([job.record.id])
    assert record is not None
    assert [record.id for record in claim(broker).records] == [job.record.id]
    assert broker.remove([job.record.id]) == [ChangeResult.REFUSED]
    broker.close()
    finding = findings(place)["options"]
    assert finding.level == "warning"
    for name in ("readPreference", "readConcernLevel"):
        assert name in finding.message


def test_one_server_is_said_to_have_no_replacement(place: Place) -> None:
    finding = findings(place)["deployment"]
    assert finding.level == "ok"
    assert "no other server takes its place" in finding.message


def test_a_newer_layout_is_found(place: Place, server: Server) -> None:
    with server.client() as client:
        client["mrq"][f"{place.prefix}_meta"].insert_one({"_id": "layout", "version": 99})
    finding = findings(place)["layout"]
    assert finding.level == "error"
    assert "upgrade" in finding.advice


def test_a_server_that_is_away_is_a_finding_and_the_command_exits_with_1(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with open_project(tmp_path, f"mongodb://user:geheim@{address}/mrq") as project:
        process = project.start("check", "--broker-timeout", "0.5")
        assert process.wait() == 1
        assert f"{address}/mrq cannot be reached" in " ".join(process.output.split())
        assert "Traceback" not in process.output
        assert "geheim" not in process.output


def test_the_command_exits_with_0_where_there_are_only_warnings_and_says_what_to_do(
    place: Place, tmp_path: Path
) -> None:
    url = with_option(place.url, f"journal=false&prefix={place.prefix}")
    with open_project(tmp_path, url) as project:
        assert "leave the options w and journal out" in " ".join(project.mrq("check").split())


def test_many_processes_prepare_an_empty_prefix_at_once(place: Place) -> None:
    brokers = [place.open() for _ in range(8)]
    for _ in range(10):
        place.clear()
        run_in_threads(lambda broker: broker.prepare(), [(broker,) for broker in brokers])
    assert layout.missing_indexes(brokers[0]._connection) == []
    for broker in brokers:
        broker.close()
