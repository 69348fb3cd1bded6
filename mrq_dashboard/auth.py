"""Who a visitor is, and which role the visitor has.

Without a login in the configuration and without `authorize`, each visitor has all rights: `serving` then
binds only to addresses of this machine, and `guard` refuses requests of other machines. A login is compared
in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from mrq_core.config.settings import Config
from mrq_core.errors import ConfigError, MrqError, shown

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ANONYMOUS = "anonymous"


class Role(IntEnum):
    """The rights of a visitor. A role has the rights of the roles before it."""

    READ = 1
    """See everything that is not secret."""
    OPERATE = 2
    """Requeue, cancel and move jobs; pause and resume; stop, drain and profile workers; run schedules."""
    WRITE = 3
    """Change params and paths, queue new jobs, remove jobs, purge queues, backfill; change schedules and
    limits."""

    @classmethod
    def of(cls, name: str) -> Role:
        """The role with this name. Raises ConfigError."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise ConfigError(f"the role is {shown(name)}: expected read, operate or write") from None

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A person or a program that sent a request. The audit log shows the name."""

    name: str
    role: Role
    """The name of the role will do in an answer of `authorize`."""


Allowed = Visitor | Role | str | None
Authorize = Callable[[Request], Allowed | Awaitable[Allowed]]
"""The host application's answer for a request: a Visitor, a role (or its name), or None for a stranger."""


class AuthorizeFailed(MrqError):
    """The function `authorize` of the host application raised, or returned something else than a visitor: an
    error of the application, not of the request. The text is for people who are not logged in."""


def check_login(config: Config) -> None:
    """Raises ConfigError for a login or a token that no visitor can send."""
    login = config.dashboard_httpauth
    user, colon, password = login.partition(":")
    if login and not colon:
        raise ConfigError("DASHBOARD_HTTPAUTH has no colon: expected user:password")
    if login and not (user and password):  # as an unset variable of a shell leaves it
        lacking = "password" if user else "user"
        raise ConfigError(f"DASHBOARD_HTTPAUTH has an empty {lacking}: expected user:password")
    if not login.isprintable():  # as a file with a line feed at its end leaves it
        raise ConfigError("DASHBOARD_HTTPAUTH has a line feed or another control character: no login has it")
    if not all(33 <= letter < 127 for letter in config.dashboard_token.encode()):
        raise ConfigError("DASHBOARD_TOKEN has a space or a letter outside ASCII: expected one word")


class Access:
    """Finds the visitor of a request."""

    def __init__(self, config: Config, authorize: Authorize | None = None) -> None:
        self._login = config.dashboard_httpauth.encode()
        self._token = config.dashboard_token.encode()
        self._authorize = authorize
        check_login(config)

    @property
    def is_open(self) -> bool:
        """Whether each visitor has all rights."""
        return not (self._login or self._token or self._authorize)

    @property
    def challenge(self) -> str:
        """The value of WWW-Authenticate, which makes a browser ask for a login."""
        return 'Basic realm="mrq", charset="UTF-8"' if self._login else "Bearer"

    async def visitor(self, request: Request) -> Visitor | None:
        """The visitor, or None for a request without valid credentials."""
        if self.is_open:
            return Visitor(name=_ANONYMOUS, role=Role.WRITE)
        if self._authorize is not None:
            return _visitor(await self._answer_of(self._authorize, request))
        kind, _, credentials = request.headers.get("authorization", "").partition(" ")
        given = credentials.strip().encode("latin-1")
        if kind.lower() == "bearer" and self._token and hmac.compare_digest(given, self._token):
            return Visitor(name="token", role=Role.WRITE)
        if kind.lower() == "basic" and self._login:
            try:
                login = base64.b64decode(given, validate=True)
            except binascii.Error:
                return None
            if hmac.compare_digest(login, self._login):
                return Visitor(name=self._login.partition(b":")[0].decode(), role=Role.WRITE)
        return None

    @staticmethod
    async def _answer_of(authorize: Authorize, request: Request) -> Allowed:
        try:
            answer = authorize(request)
            return await answer if inspect.isawaitable(answer) else answer
        except HTTPException:  # an answer of the host application
            raise
        except Exception as error:  # its text may name hosts and users
            raise AuthorizeFailed(
                f"authorize raised {type(error).__name__}; the log has the traceback"
            ) from error


def _visitor(answer: Allowed) -> Visitor | None:
    """Raises AuthorizeFailed for an answer that is no role."""
    if answer is None:
        return None
    name, role = (answer.name, answer.role) if isinstance(answer, Visitor) else (_ANONYMOUS, answer)
    try:
        role = Role.of(role) if isinstance(role, str) else role
    except ConfigError as error:
        raise AuthorizeFailed(f"authorize: {error}") from error
    if not isinstance(role, Role) or not isinstance(name, str):
        raise AuthorizeFailed(
            f"authorize returned {shown(answer)}: expected a Visitor with a name and a role, a Role, its "
            "name, or None"
        )
    return Visitor(name=name, role=role)


def comes_from_here(request: Request) -> bool:
    """Whether a page of this dashboard, or a program, sent the request: browsers send Sec-Fetch-Site or
    Origin with each request that is not safe, and a page of another site cannot change them."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def has_token(request: Request) -> bool:
    """Whether the request has a bearer token, which no browser sends by itself."""
    return request.headers.get("authorization", "")[:7].lower() == "bearer "
