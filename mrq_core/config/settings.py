"""The settings: the name, type, default and meaning of each, in one table, the class `Config`.

The flags of the command line and the reference in docs/ are made from this table. `sources` finds the values.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any

from mrq_core.config.cores import available_cores
from mrq_core.config.secrets import HIDDEN, hide_login, hide_secrets
from mrq_core.config.source_file import ConfigFile
from mrq_core.contract.folders import Folders
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.errors import shown, type_name

TaskOptions = Mapping[str, Mapping[str, object]]
"""The value of TASKS: options of tasks by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `minimum`, `maximum` (of whole numbers) and `choices` restrict its values; `flags` are
    shorter names of its flag. The value `auto` means the number that `auto` returns."""

    help: str
    group: str
    flags: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: int = 1_000_000_000
    choices: tuple[str, ...] = ()
    auto: Callable[[], int] | None = None
    secret: bool = False
    file_only: bool = False
    is_list: bool = False
    """Whether the value is a list of values that the part of mrq that uses them checks."""
    is_line: bool = False
    """Whether the value is one line without control characters."""


def _setting(default: object, help: str, group: str, **more: Any) -> Any:
    metadata = {"setting": Setting(help=help, group=group, **more)}
    if default is None:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """The validated values of all settings. Callers pass it down; no module reads it from a global."""

    broker: str = _setting("sqlite", "Name of a driver, or a URL that one of them opens.", "broker")
    store: str = _setting(
        "", "Name or URL of the driver that stores the records, if it differs from the broker.", "broker"
    )
    sqlite: str = _setting(".mrq/mrq.sqlite3", "Path of the embedded broker's file.", "broker")
    redis: str = _setting(
        "redis://127.0.0.1:6379",
        "URL of the Redis server: redis://, unix://, redis+sentinel:// or redis+cluster://; rediss for TLS.",
        "broker",
    )
    redis_prefix: str = _setting("mrq", "Prefix of all keys in Redis.", "broker")
    mongodb: str = _setting(
        "mongodb://127.0.0.1:27017/mrq",
        "URL of the MongoDB deployment with the database: mongodb:// or mongodb+srv://.",
        "broker",
    )
    mongodb_prefix: str = _setting("mrq", "Prefix of all collections in MongoDB.", "broker")
    broker_timeout: float = _setting(
        10.0, "Seconds after which a call to the broker fails.", "broker", minimum=0.01
    )

    queues: tuple[str, ...] = _setting(
        ("default",), "Queues to work on, in order. A name that ends with / means its subqueues.", "worker"
    )
    greenlets: int = _setting(
        1,
        "Number of jobs that run at the same time in one process.",
        "worker",
        flags=("--gevent", "-g"),
        minimum=1,
    )
    processes: int = _setting(
        0,
        "Number of workers that one parent process runs. auto: one for each core. 0: one worker, no parent.",
        "worker",
        flags=("-p",),
        minimum=0,
        auto=available_cores,
    )
    name: str = _setting("", "First part of this worker's name, before host.pid.", "worker", is_line=True)
    lease: float = _setting(
        60.0, "Seconds for which a claim is valid; renewed while the job runs.", "worker", minimum=0.1
    )
    dequeue_strategy: str = _setting(
        "sequential",
        "How to choose queues: sequential (in order), parallel (shared), burst (stop if no job is due), "
        "or burst with sequential or parallel, joined by a comma.",
        "worker",
    )
    max_latency: float = _setting(
        1.0, "Seconds after which an idle worker asks for jobs again, at the latest.", "worker", minimum=0.001
    )
    max_jobs: int = _setting(0, "Stop after this number of jobs. 0: never.", "worker", minimum=0)
    max_time: float = _setting(0.0, "Stop after this many seconds. 0: never.", "worker", minimum=0)
    max_memory: float = _setting(
        0.0, "Stop when the process uses more than this many MB. 0: never.", "worker", minimum=0
    )
    stop_grace: float = _setting(
        5.0,
        "Seconds after SIGTERM for running jobs to end by themselves before they are interrupted.",
        "worker",
        minimum=0,
    )
    paused_queues_refresh_interval: float = _setting(
        1.0,
        "Seconds between two polls for pauses, limit rules and cancel requests. 0: ignore pauses.",
        "worker",
        minimum=0,
    )
    report_interval: float = _setting(
        10.0, "Seconds between two reports of a worker about itself.", "worker", minimum=0.1
    )
    admin_port: int = _setting(
        0,
        "Port at which a worker answers probes and monitors over HTTP. 0: none.",
        "worker",
        minimum=0,
        maximum=65_535,
    )
    admin_ip: str = _setting("127.0.0.1", "Address of the admin port.", "worker")
    local_ip: str = _setting(
        "",
        "IP address of this machine in reports of workers. Empty: that of its network.",
        "worker",
        is_line=True,
    )
    report_file: str = _setting(
        "", "File to which a worker also writes its report, for probes on its machine.", "worker"
    )
    max_lost_claims: int = _setting(
        2,
        "Number of deaths in a row of a job's own process after which the job fails.",
        "worker",
        minimum=1,
    )

    allow_tasks: tuple[str, ...] = _setting(
        (), "The only tasks that this worker runs: paths, or modules such as shop.*. Empty: all.", "worker"
    )
    deny_tasks: tuple[str, ...] = _setting(
        (), "Tasks that this worker leaves to other workers: paths, or modules such as shop.*.", "worker"
    )

    solo_processes: int = _setting(
        0,
        "Number of jobs that run in separate processes at the same time. 0: as many as cores.",
        "worker",
        minimum=0,
    )

    scheduler: bool = _setting(False, "Run the scheduler in this worker, too.", "worker")
    scheduler_tasks: Sequence[object] = field(
        default=(),
        metadata={
            "setting": Setting(
                help="The schedules: a list of definitions.", group="scheduler", file_only=True, is_list=True
            )
        },
    )
    scheduler_modules: tuple[str, ...] = _setting(
        ("tasks",), "Modules whose tasks with every or cron the scheduler queues.", "scheduler"
    )

    tasks: TaskOptions = _setting(None, "Options of tasks by path.", "tasks", file_only=True)
    default_job_timeout: float = _setting(
        3600.0, "Timeout of a job in seconds. 0: no timeout.", "tasks", minimum=0
    )
    default_job_max_retries: int = _setting(3, "Number of retries of a job.", "tasks", minimum=0)
    default_job_retry_delay: float = _setting(3.0, "Seconds before a retry.", "tasks", minimum=0)
    default_job_result_ttl: float = _setting(
        604_800.0, "Seconds to keep a successful job.", "tasks", minimum=0
    )
    default_job_abort_ttl: float = _setting(86_400.0, "Seconds to keep an aborted job.", "tasks", minimum=0)
    default_job_cancel_ttl: float = _setting(86_400.0, "Seconds to keep a cancelled job.", "tasks", minimum=0)
    default_job_ttl: float = _setting(
        15_552_000.0,
        "Seconds to keep jobs that ended in another way, such as failed jobs.",
        "tasks",
        minimum=0,
    )
    max_params_size: int = _setting(
        1_048_576, "Largest size of params, in bytes of JSON.", "tasks", minimum=2
    )
    max_result_size: int = _setting(
        4_194_304, "Largest size of a result, in bytes of JSON.", "tasks", minimum=2
    )
    max_log_size: int = _setting(
        1_048_576, "Largest size of the stored log of a job, in bytes.", "tasks", minimum=0
    )

    log_level: str = _setting(
        "INFO", "Lowest level of log lines to show.", "logs",
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    )  # fmt: skip
    log_format: str = _setting(
        "%(asctime)s %(levelname)-7s %(job)s %(message)s",
        "Format of log lines: json, or a format of the logging module.",
        "logs",
    )
    log_file: str = _setting(
        "", "File that log lines are appended to, instead of standard error. SIGUSR1 opens it again.", "logs"
    )
    quiet: bool = _setting(False, "Log only warnings and errors.", "logs")

    plugins: tuple[str, ...] = _setting((), "Modules to load as plugins.", "plugins")

    dashboard_ip: str = _setting(
        "127.0.0.1",
        "Address of the dashboard. Another one than this machine's own needs a login.",
        "dashboard",
    )
    dashboard_port: int = _setting(
        5555,
        "Port of the dashboard. 0: a free port.",
        "dashboard",
        minimum=0,
        maximum=65_535,
        flags=("--port",),
    )
    dashboard_httpauth: str = _setting(
        "", "Login of the dashboard as user:password, for all rights.", "dashboard", secret=True
    )
    dashboard_token: str = _setting(
        "",
        "Bearer token for programs that use the JSON API, for all rights.",
        "dashboard",
        secret=True,
    )
    dashboard_hosts: tuple[str, ...] = _setting(
        (),
        "Names by which browsers reach the dashboard, beside localhost and IP addresses.",
        "dashboard",
    )
    dashboard_timeout: float = _setting(
        2.0, "Seconds after which a page says that the broker does not answer.", "dashboard", minimum=0.1
    )
    dashboard_name: str = _setting(
        "", "Name of this environment on each page, such as production.", "dashboard"
    )
    dashboard_color: str = _setting("", "Color of the environment's name: a name or #rrggbb.", "dashboard")

    trace_io: bool = _setting(False, "Trace what the I/O of running jobs waits for.", "debugging")

    user: Mapping[str, object] = field(default_factory=dict)
    """Upper-case names of the config file that are not settings."""
    module: ModuleType | None = None
    """The config file as a module, which may define hook implementations."""
    file: ConfigFile | None = None
    """The config file as it was read, with its absolute path."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The source of each value by its upper-case name. Defaults are left out."""
    folders: Folders = field(default_factory=Folders.now, compare=False, repr=False)
    """What relative paths start from."""

    def as_dict(self) -> dict[str, object]:
        """All values by upper-case name: settings, and other names of the config file."""
        return {**self.user, **{name: getattr(self, name.lower()) for name in SETTINGS}}

    def redacted(self) -> dict[str, object]:
        """All values by upper-case name, with secrets and passwords in URLs as ``***``."""
        return {name: shown_setting(name, value) for name, value in self.as_dict().items()}

    def __repr__(self) -> str:
        """Names the values that are not the default, with secrets as ``***``: logs and debuggers print it."""
        own = [
            f"{name}={shown(value)}"
            for name, value in self.redacted().items()
            if name not in SETTINGS or getattr(self, name.lower()) != default_of(name)
        ]
        return f"Config({', '.join(own)})"

    def worker_name(self, pid: int) -> str:
        """The name of a worker in this process. Workers with one NAME have different names."""
        host = socket.gethostname()
        return f"{host}.{pid}" if self.name in ("", host) else f"{self.name}.{host}.{pid}"


SETTINGS: Mapping[str, Setting] = {
    f.name.upper(): f.metadata["setting"] for f in fields(Config) if "setting" in f.metadata
}
_DEFAULTS = Config()


_ADDRESSES = frozenset({"BROKER", "STORE", "REDIS", "MONGODB"})


def shown_setting(name: str, value: object) -> object:
    """The value of a setting, or of another name of the config file, with secrets as ``***``. Of a value that
    cannot be read, its type."""
    setting = SETTINGS.get(name)
    try:
        if setting is not None and setting.secret and value:
            return HIDDEN
        if name in _ADDRESSES and isinstance(value, str):
            return hide_login(value)
        return hide_secrets(name, value)
    except Exception as error:  # code of a value that the config file has made
        refuse_to_wrap(error)
        return f"<a {type_name(type(value))} that cannot be read>"


def default_of(name: str) -> object:
    """The default value of a setting."""
    return getattr(_DEFAULTS, name.lower())


def flag_of(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.lower().replace("_", "-")
