"""Notes the calls of libraries: Redis, MongoDB, HTTP, SQLite and child processes.

pymongo reports its commands to a listener, which is its public way. The other libraries have none: their
public functions are replaced, on the classes, so that subclasses that call them are noted too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from greenlet import getcurrent

from mrq_core.contract.driver import RunBlocking
from mrq_core.debug import io_texts
from mrq_core.debug.io_calls import Label, OpenCall, io_of_caller, noted
from mrq_core.debug.patching import ImportHook, replace

T = TypeVar("T")
_EMBEDDED = "the embedded broker"
_REQUEST = "_mrq_request"
"""The attribute of an HTTP connection with the method and the path of its request."""


def trace_libraries() -> None:
    """Notes the calls of these libraries in this process, whenever they are imported."""
    ImportHook(
        {
            "redis.client": _trace_redis,
            "redis.cluster": _trace_redis_cluster,
            "mrq_broker_redis.server.links": _trace_own_redis,
            "pymongo.monitoring": _trace_mongo,
            "http.client": _trace_http,
            "sqlite3.dbapi2": _trace_sqlite,
            "sqlite3": _trace_sqlite,
            "subprocess": _trace_processes,
        }
    ).install()


def traced_blocking(run_blocking: RunBlocking) -> RunBlocking:
    """`run_blocking` of the embedded broker: calls of the broker that a job makes are noted."""

    def run(function: Callable[[], T], /) -> T:
        io = io_of_caller()
        if io is None:
            return run_blocking(function)
        result: T = noted(io, OpenCall("sqlite", io_texts.plain, _EMBEDDED), run_blocking, function)
        return result

    return run


# --- Redis -----------------------------------------------------------------------------------------


def _trace_redis(module: Any) -> None:
    replace(module.Redis, "execute_command", _tracing_command)
    replace(module.Pipeline, "immediate_execute_command", _tracing_command)
    replace(module.Pipeline, "execute", _tracing_pipeline)
    replace(module.PubSub, "parse_response", _tracing_listen)


def _trace_redis_cluster(module: Any) -> None:
    replace(module.RedisCluster, "execute_command", _tracing_command)
    replace(module.ClusterPipeline, "execute", _tracing_pipeline)


def _trace_own_redis(module: Any) -> None:
    """The calls of mrq that pass by the client of redis-py."""
    replace(module.Link, "call", _tracing_command)


def _tracing_command(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute_command(self: Any, *args: Any, **options: Any) -> Any:
        io = io_of_caller()
        if io is None:
            return original(self, *args, **options)
        subject = (args, _server_of(self))
        return noted(io, OpenCall("redis", io_texts.redis_command, subject), original, self, *args, **options)

    return execute_command


def _tracing_pipeline(original: Callable[..., Any]) -> Callable[..., Any]:
    def execute(self: Any, *args: Any, **options: Any) -> Any:
        io = io_of_caller()
        if io is None:
            return original(self, *args, **options)
        subject = (_number_of(self), _server_of(self))
        return noted(
            io, OpenCall("redis", io_texts.redis_pipeline, subject), original, self, *args, **options
        )

    return execute


def _tracing_listen(original: Callable[..., Any]) -> Callable[..., Any]:
    def parse_response(self: Any, *args: Any, **options: Any) -> Any:
        io = io_of_caller()
        if io is None:
            return original(self, *args, **options)
        server = _server_of(self)
        return noted(io, OpenCall("redis", io_texts.redis_listen, server), original, self, *args, **options)

    return parse_response


def _server_of(client: Any) -> Mapping[str, Any] | None:
    """The arguments of the connections of a client; None for a cluster, which has several servers."""
    try:
        pool = getattr(client, "connection_pool", None)
        found: Mapping[str, Any] | None = getattr(pool, "connection_kwargs", None)
    except Exception:  # a class of the task
        return None
    return found


def _number_of(pipeline: Any) -> int:
    """The number of commands in a pipeline."""
    try:
        return len(pipeline)
    except Exception:  # a class of the task
        return 0


# --- MongoDB ---------------------------------------------------------------------------------------


def _trace_mongo(module: Any) -> None:
    class Listener(module.CommandListener):  # type: ignore[misc]
        """Labels the calls of the sockets of pymongo, in the greenlet that waits for the server."""

        def started(self, event: Any) -> None:
            io = io_of_caller()
            if io is None:
                return
            name = event.command_name
            collection = event.command.get("collection" if name == "getMore" else name)
            subject = (name, event.database_name, collection, event.connection_id)
            me = getcurrent()
            io.labels[id(me)] = Label(OpenCall("mongodb", io_texts.mongo_command, subject), me)

        def succeeded(self, event: Any) -> None:
            io = io_of_caller()
            if io is not None:
                io.labels.pop(id(getcurrent()), None)
                io.count("mongodb", 1, event.duration_micros / 1_000_000)

        failed = succeeded

    module.register(Listener())


# --- HTTP ------------------------------------------------------------------------------------------


def _trace_http(module: Any) -> None:
    """Also for urllib, requests and urllib3, whose connections call these methods of their base class."""
    connection = module.HTTPConnection
    replace(connection, "putrequest", _noting_request)
    replace(connection, "endheaders", _tracing_http(1))
    replace(connection, "getresponse", _tracing_http(0))


def _noting_request(original: Callable[..., Any]) -> Callable[..., Any]:
    def putrequest(self: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
        if io_of_caller() is not None:
            scheme = "https" if self.default_port == 443 else "http"
            host, port = getattr(self, "_tunnel_host", None), getattr(self, "_tunnel_port", None)
            if not host:
                host, port = self.host, self.port
            setattr(self, _REQUEST, (method, scheme, host, port, url))
        return original(self, method, url, *args, **kwargs)

    return putrequest


def _tracing_http(weight: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Both halves of a request take its time; one of them counts it."""

    def tracing(original: Callable[..., Any]) -> Callable[..., Any]:
        def half(self: Any, *args: Any, **kwargs: Any) -> Any:
            io = io_of_caller()
            request = getattr(self, _REQUEST, None)
            if io is None or request is None:
                return original(self, *args, **kwargs)
            call = OpenCall("http", io_texts.http_request, request, weight=weight)
            return noted(io, call, original, self, *args, **kwargs)

        return half

    return tracing


# --- SQLite ----------------------------------------------------------------------------------------


def _trace_sqlite(module: Any) -> None:
    """Connections that a job opens get a class that notes the statements, unless the job has its own."""
    traced = _traced_connection(module)

    def tracing(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
            if "factory" not in kwargs and len(args) < 5 and io_of_caller() is not None:
                kwargs["factory"] = traced
            return original(database, *args, **kwargs)

        return connect

    replace(module, "connect", tracing)


def _traced_connection(module: Any) -> Any:
    class Cursor(module.Cursor):  # type: ignore[misc]
        """A cursor whose statements are noted."""

        def execute(self, sql: str, /, *args: Any) -> Any:
            return _statement(sql, super().execute, sql, *args)

        def executemany(self, sql: str, /, *args: Any) -> Any:
            return _statement(sql, super().executemany, sql, *args)

        def executescript(self, sql: str, /) -> Any:
            return _statement(sql, super().executescript, sql)

    class Connection(module.Connection):  # type: ignore[misc]
        """A connection whose statements are noted."""

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, /, *args: Any) -> Any:
            return self.cursor().execute(sql, *args)

        def executemany(self, sql: str, /, *args: Any) -> Any:
            return self.cursor().executemany(sql, *args)

        def executescript(self, sql: str, /) -> Any:
            return self.cursor().executescript(sql)

        def commit(self) -> None:
            _statement("COMMIT", super().commit)

    return Connection


def _statement(sql: object, function: Callable[..., Any], /, *args: Any) -> Any:
    io = io_of_caller()
    if io is None:
        return function(*args)
    return noted(io, OpenCall("sqlite", io_texts.sql_statement, sql), function, *args)


# --- child processes -------------------------------------------------------------------------------


def _trace_processes(module: Any) -> None:
    replace(module.Popen, "wait", _tracing_process)
    replace(module.Popen, "communicate", _tracing_process)


def _tracing_process(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        io = io_of_caller()
        if io is None:
            return original(self, *args, **kwargs)
        subject = (getattr(self, "pid", None), getattr(self, "args", None))
        return noted(
            io, OpenCall("process", io_texts.child_process, subject), original, self, *args, **kwargs
        )

    return wait
