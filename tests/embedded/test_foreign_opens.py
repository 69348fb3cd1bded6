"""The files of a database are not opened beside SQLite: closing them would drop its locks."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.embedded.kit import claim, job, open_broker

OPENS: dict[str, Callable[[Path], object]] = {
    "open": lambda path: path.open("rb"),
    "to append": lambda path: path.open("ab"),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "bytes": lambda path: os.open(os.fsencode(path), os.O_RDONLY),
    "FileIO": lambda path: io.FileIO(str(path)),
    "copy": lambda path: shutil.copy(path, path.with_name("copy")),
    "dir_fd": lambda path: os.open(path.name, os.O_RDONLY, dir_fd=os.open(path.parent, os.O_RDONLY)),
    "archive": lambda path: shutil.make_archive(str(path.parent.parent / "archive"), "tar", path.parent),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "database"
    folder.mkdir()
    return folder / "mrq.sqlite3"


@pytest.mark.parametrize("name", OPENS)
@pytest.mark.parametrize("suffix", ["", "-shm"])
def test_an_open_in_a_process_that_uses_the_database_is_refused(path: Path, name: str, suffix: str) -> None:
    with closing(open_broker(path)) as broker:
        broker.enqueue([job()])
        with pytest.raises(PermissionError, match="this process uses the SQLite database of jobs"):
            OPENS[name](path.with_name(path.name + suffix))
        assert len(claim(broker).records) == 1


def test_other_names_of_the_file_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with closing(open_broker(path)) as broker:
        broker.enqueue([job()])
        os.link(path, "hard")
        os.symlink(path, "soft")
        for name in ("hard", "soft", path.name):
            with pytest.raises(PermissionError):
                Path(name).read_bytes()


def test_the_log_other_files_and_descriptors_without_locks_are_opened(path: Path) -> None:
    with closing(open_broker(path)) as broker:
        broker.enqueue([job()])
        path.with_name(f"{path.name}-wal").read_bytes()
        os.close(os.open(path, os.O_PATH))
        path.with_name("other").write_text("a")
        os.close(os.open(path.parent, os.O_RDONLY))
        for wrong in ("", "\0", b"\xff", object(), 10**9):
            with pytest.raises((OSError, ValueError, TypeError)):
                io.FileIO(wrong)  # type: ignore[arg-type]


def test_a_backup_through_sqlite_is_made(path: Path) -> None:
    copy = path.with_name("copy")
    with closing(open_broker(path)) as broker:
        broker.enqueue([job("q"), job("q")])
        with closing(sqlite3.connect(path)) as database, closing(sqlite3.connect(copy)) as target:
            database.backup(target)
    with closing(open_broker(copy)) as broker:
        assert len(claim(broker, limit=5).records) == 2


def test_a_closed_database_and_that_of_a_parent_are_opened(path: Path) -> None:
    with closing(open_broker(path)) as broker:
        broker.enqueue([job()])
        child = os.fork()
        if child == 0:
            try:
                path.read_bytes()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes()


def test_a_new_file_of_the_same_name_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent.parent)
    Path("copies").mkdir()
    with closing(open_broker(path)) as broker:
        broker.enqueue([job()])
        for copy in (Path("copies", path.name), Path(path.name)):
            copy.write_bytes(b"a copy")
            assert copy.read_bytes() == b"a copy"
        with pytest.raises(FileNotFoundError):
            Path("nowhere", path.name).read_bytes()
