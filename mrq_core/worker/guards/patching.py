"""Patches the standard library for gevent, quickly."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import metadata
from typing import Any

from mrq_core.contract.signal_errors import is_ctrl_c
from mrq_core.errors import ConfigError, shown, shown_error
from mrq_core.plugins.installed import entry_points

_METHODS = {
    "GEVENT_LOOP": "run",
    "GEVENT_RESOLVER": "getaddrinfo",
    "GEVENT_THREADPOOL": "apply",
    "GEVENT_FILE": "close",
}
"""A method of the class that each of these variables names."""
_PATCHED = frozenset({"GEVENT_RESOLVER", "GEVENT_THREADPOOL", "GEVENT_FILE"})

_SIGNALS_SEEN_EVERY = 0.1
"""Seconds after which the loop wakes for a signal that came just before its wait, or to another thread."""


def patch_all() -> None:
    """`gevent.monkey.patch_all`, with one search for entry points. Raises ConfigError for a variable of
    gevent's that it cannot use, and for a distribution whose entry points cannot be read.

    gevent looks for plugins before and after each module that it patches, and each search reads the metadata
    of all installed packages: 25 searches are a third of the time that a worker needs to start.
    """
    search: Any = metadata.entry_points
    installed = entry_points()
    patched: Any = metadata
    patched.entry_points = lambda **wanted: installed.select(**wanted)
    try:
        from gevent import monkey

        # A hub cannot be made with a wrong value of these, and the patched library needs a hub to exit.
        check_variables(are_patched=False)
        from mrq_core.worker.guards.fork_locks import free_locks_after_fork, import_executors
        from mrq_core.worker.guards.guarded_loop import guard_loops

        import_executors()
        guard_loops()
        monkey.patch_all()
    finally:
        patched.entry_points = search
    from mrq_core.worker.guards.closing import close_at_once
    from mrq_core.worker.guards.multiprocessing_waits import let_multiprocessing_wait

    close_at_once()
    free_locks_after_fork()
    let_multiprocessing_wait()
    check_variables(are_patched=True)


def check_variables(*, are_patched: bool) -> None:
    """Raises ConfigError for the first variable with a value that gevent cannot use. gevent itself reads most
    of them late, when a job first needs a file or the address of a host. `are_patched`: checks those whose
    code has to be imported after the library is patched, else the others."""
    from gevent._config import config

    for setting in config.settings.values():
        name = setting.environment_key
        if name not in os.environ or (name in _PATCHED) != are_patched:
            continue
        try:
            value = setting.get()
            if name == "GEVENT_BACKEND":
                make_loop: Any = config.loop
                make_loop(value, default=False).destroy()
        except Exception as error:  # also of a module that it names
            raise _refusal(name, shown_error(error)) from error
        method = _METHODS.get(name)
        if method is not None and not _makes(value, method):
            raise _refusal(name, f"{shown(value)} makes no object with the method {method}")


def check_all_variables() -> None:
    """Raises ConfigError for a variable of gevent's with which no worker would start. For a process that is
    not patched."""
    check_variables(are_patched=False)
    check_variables(are_patched=True)


def _makes(value: object, method: str) -> bool:
    """Whether this is a class with such a method, or another callable."""
    return hasattr(value, method) if isinstance(value, type) else callable(value)


def _refusal(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"the environment variable {name} is {shown(os.environ[name])}, which gevent cannot use ({reason}): "
        "correct it, or unset it"
    )


def lead_interrupts(is_over: Callable[[], bool]) -> None:
    """Leads the KeyboardInterrupt of a Ctrl-C to the main greenlet, which handles it, without a traceback.

    With gevent, a signal handler runs in the thread or greenlet that runs at the moment. gevent passes the
    exception on, but prints the traceback; the library prints the traceback of a thread, and drops the
    exception. Call it in the main greenlet. `is_over`: whether the main greenlet has ended its work.

    Python calls handlers between two instructions of its main thread. A signal interrupts the wait of the
    loop, but not one that begins only afterwards: a timer of the loop ends that.
    """
    import threading

    from gevent import get_hub, getcurrent

    hub: Any = get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
    main: Any = getcurrent()
    print_traceback = threading.excepthook

    def throw() -> None:
        if not is_over():
            main.throw(KeyboardInterrupt)

    def pass_on(failed: threading.ExceptHookArgs) -> None:
        error = failed.exc_value
        if error is not None and is_ctrl_c(error) and get_hub() is hub:
            hub.loop.run_callback(throw)
        else:
            print_traceback(failed)

    threading.excepthook = pass_on
    hub.loop.timer(_SIGNALS_SEEN_EVERY, _SIGNALS_SEEN_EVERY, ref=False).start(_see_signals)


def _see_signals() -> None:
    """Python sees them before its first instruction."""
