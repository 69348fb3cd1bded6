"""A primary that sentinels watch: its connections, and why no sentinel has named it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import ConnectionError, InvalidResponse, RedisError, TimeoutError
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from mrq_broker_redis.server.links import failed_to_connect
from mrq_broker_redis.server.tls import SSLConnection, use_own_tls
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.errors import shown_error


class NoPrimary(MasterNotFoundError):
    """No sentinel has named a primary. `errors`: what kept sentinels from an answer; `has_answer`: whether
    one has answered."""

    def __init__(self, text: str, errors: Sequence[RedisError], *, has_answer: bool) -> None:
        super().__init__(text)
        self.errors = tuple(errors)
        self.has_answer = has_answer


class _Asked(redis.Redis):
    """The client of one sentinel. Keeps its latest error, whose text redis-py leaves out."""

    error: RedisError | None = None

    def sentinel_masters(self, *arguments: Any, **named: Any) -> Any:
        """Asks the sentinel for the primaries that it watches. Raises ConnectionError or TimeoutError, after
        which redis-py asks the next one, also where another program answers."""
        self.error = None
        try:
            return super().sentinel_masters(*arguments, **named)
        except (ConnectionError, TimeoutError) as error:
            self.error = error
            raise
        except RedisError as error:
            self.error = error
            raise ConnectionError(str(error)) from error
        except UNREADABLE as error:
            if raised_by_handler(error) is not None or failed_to_connect(error):
                raise
            self.error = InvalidResponse(shown_error(error))
            raise ConnectionError(str(self.error)) from error


class Sentinels(Sentinel):
    """The sentinels at these hosts and ports, with these options for their connections."""

    def __init__(self, hosts: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        self._asked = [_Asked(host, port, **options) for host, port in hosts]
        self.sentinels = list(self._asked)  # redis-py changes their order
        for one in self._asked:
            use_own_tls(one.connection_pool)

    def discover_master(self, service_name: str) -> Any:
        """The address of the primary. Raises NoPrimary."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            errors = [one.error for one in self._asked if one.error is not None]
            has_answer = len(errors) < len(self._asked)
            raise NoPrimary(f"No master found for {service_name!r}", errors, has_answer=has_answer) from error


class PrimaryConnection(SentinelManagedConnection):
    """A connection that closes when the wait for a reply is interrupted, unlike redis-py's (redis-py#1128).

    Otherwise the next call, which may be a claim, would take that reply for its own.
    """

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool | None = True, **more: Any
    ) -> Any:
        return super().read_response(disable_decoding, disconnect_on_error=disconnect_on_error, **more)


class PrimarySSLConnection(PrimaryConnection, SentinelManagedSSLConnection, SSLConnection):
    """The same with TLS."""
