"""The driver is found, loads nothing before it is needed, and reads its URL."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.driver import Opening
from mrq_core.embedded.plugin import mrq_driver
from mrq_core.embedded.server.location import path_of
from mrq_core.errors import ConfigError
from tests.embedded.kit import job


def test_the_plugin_loads_no_database_before_a_broker_is_opened() -> None:
    code = "import sys, mrq_core.embedded.plugin as p; p.mrq_driver(); sys.exit('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_driver_opens_a_broker(tmp_path: Path) -> None:
    driver = mrq_driver()
    assert (driver.name, driver.url_schemes, driver.settings) == ("sqlite", ("sqlite",), ("SQLITE",))
    assert driver.open_broker is not None
    with closing(driver.open_broker(Opening(settings={"SQLITE": str(tmp_path / "x.sqlite3")}))) as broker:
        assert broker.name == "sqlite"
        assert broker.enqueue([job()])[0].created


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x/y.db", os.path.join(os.getcwd(), "x/y.db")),
        ("sqlite:////x/y.db", "/x/y.db"),
        ("sqlite:////x/a%20b.db", "/x/a b.db"),
    ],
)
def test_a_url_is_relative_with_three_slashes_and_absolute_with_four(url: str, path: str) -> None:
    assert path_of(Opening(settings={"SQLITE": "unused"}, url=url)) == path


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite://host/x", "sqlite:x", "sqlite:///x?mode=ro", "sqlite:///:memory:"],
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        path_of(Opening(settings={}, url=url))


def test_the_setting_names_the_file_where_there_is_no_url() -> None:
    assert path_of(Opening(settings={"SQLITE": "/a/b"})) == "/a/b"
    with pytest.raises(ConfigError, match="SQLITE is empty"):
        path_of(Opening(settings={"SQLITE": ""}))


@pytest.mark.parametrize("url", ["sqlite:///q.db", "sqlite:////a/q.db", "redis://user:geheim@host/0"])
def test_the_setting_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="a URL goes into BROKER") as raised:
        path_of(Opening(settings={"SQLITE": url}))
    assert "geheim" not in str(raised.value)
