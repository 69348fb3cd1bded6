"""Files of a project that hide modules which mrq imports, such as a `secrets.py` in the working directory.

The command line imports what such a file would hide before the folder comes first on `sys.path`. Elsewhere,
as in a program that uses the client, `hiding` explains the error. Imports little: it explains failed imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import PathFinder

from mrq_core.contract.exception_fields import cause_of, context_of, frames_of, module_of
from mrq_core.contract.module_fields import fields_of_module

LIBRARIES = frozenset(
    {
        *("_cffi_backend", "_yaml", "a2wsgi", "annotated_doc", "annotated_types", "anyio", "async_timeout"),
        *("bson", "cffi", "pydantic", "pydantic_core", "typing_inspection"),
        *("click", "colorama", "cronsim", "dns", "gevent", "greenlet", "gridfs", "h11", "hiredis", "idna"),
        *("jinja2", "jwt", "markdown_it", "markupsafe", "mdurl", "msgspec", "multipart", "pluggy", "psutil"),
        *("pygments", "pymongo", "python_multipart", "redis", "rich", "shellingham", "starlette", "typer"),
        *("typing_extensions", "tzdata", "uvicorn", "zope"),
    }
)
"""The top-level modules of what mrq, its drivers and its dashboard depend on."""
_OWN = frozenset({"mrq", "mrq_broker_mongo", "mrq_broker_redis", "mrq_core", "mrq_dashboard"})
_LATER = frozenset(
    {
        *("_strptime", "asyncio", "calendar", "colorsys", "concurrent", "ctypes", "email", "faulthandler"),
        *("fractions", "getpass", "glob", "hmac", "http", "ipaddress", "json", "locale", "mimetypes"),
        *("multiprocessing", "numbers", "pickle", "pprint", "queue", "quopri", "resource", "secrets"),
        *("selectors", "sqlite3", "ssl", "statistics", "stringprep", "sysconfig", "urllib", "uuid"),
        *("zoneinfo",),
    }
)
"""Modules of the standard library that mrq and its libraries import after the start of a command."""
_MOST_CAUSES = 20
"""Causes of an error that are read."""
_object_of: Callable[[BaseException], object] = vars(AttributeError)["obj"].__get__
_STANDARD = os.path.dirname(os.path.realpath(os.__file__))
"""The folder of the standard library."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""The names of the folders into which libraries are installed."""


def import_hidden_by(folder: str) -> None:
    """Imports the modules that mrq imports later and that files of the folder will hide. The folder must not
    be on `sys.path`."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for name in {entry.partition(".")[0] for entry in entries}:
        if name in LIBRARIES or name in _LATER:
            try:
                import_module(name)
            except Exception:  # it is not installed
                pass


def hiding(error: BaseException, *, anywhere: bool = False) -> str | None:
    """A sentence that explains an error of an import, or of a module that lacks a name: a file of the project
    has the name of that module, or code has replaced the module. None: the error has another reason.

    `anywhere`: also where the error does not name the module.
    """
    found = (_hides(name, file) or _is_hidden(name) for name, file in _modules_in(error).items())
    sentence = next((each for each in found if each is not None), None)
    if sentence is None and anywhere:
        needed = [name for name in sys.modules.copy() if _owner_of(name) is not None]
        found = (_hides(name, None) for name in needed)
        sentence = next((each for each in found if each is not None), None)
    return sentence


def explained(text: str, error: BaseException, *, anywhere: bool = False) -> str:
    """The message of an error with this cause: the text, and what `hiding` says."""
    sentence = hiding(error, anywhere=anywhere)
    return text if sentence is None else f"{text}; {sentence}"


def _modules_in(error: BaseException | None) -> dict[str, str | None]:
    """The top-level modules that the error and its causes name, and those whose code raised them, with the
    file of that code."""
    found: dict[str, str | None] = {}
    for _ in range(_MOST_CAUSES):
        if error is None:
            break
        names = []
        if issubclass(type(error), ImportError):
            names = [str(name)] if (name := module_of(error)) else []
        elif issubclass(type(error), AttributeError):
            missing = _object_of(error)
            names = [name for name, module in sys.modules.copy().items() if module is missing]
        found = dict.fromkeys(name.partition(".")[0] for name in names) | found
        step = frames_of(error)
        while step is not None:
            name = str(step.tb_frame.f_globals.get("__name__"))
            if "." not in name and found.get(name) is None:
                found[name] = step.tb_frame.f_code.co_filename
            step = step.tb_next
        error = cause_of(error) or context_of(error)
    return found


def is_needed(name: str) -> bool:
    """Whether the module is one of mrq or of its libraries, or of Python's standard library."""
    return _owner_of(name.partition(".")[0]) is not None


def _owner_of(name: str) -> str | None:
    """To what the module belongs, as a part of a sentence. None: mrq does not need the module."""
    if name in sys.stdlib_module_names:
        return "of Python's standard library"
    if name in _OWN:
        return "of mrq"
    return "of a library of mrq" if name in LIBRARIES else None


def _hides(name: str, ran: str | None) -> str | None:
    """A sentence for a module that is not the one that mrq needs. `ran`: the file of its code."""
    owner = _owner_of(name)
    module: object = sys.modules.get(name)
    file = _file_of(module) or ran
    if owner is None or (name not in sys.modules and file is None):
        return None
    if file is not None:
        if _is_genuine(name, file):
            return None
        kind = "folder" if _is_package(file) else "file"
        shown = os.path.dirname(file) if kind == "folder" else file
        return f"the {kind} {shown} hides the module {name} {owner}: rename the {kind}"
    if module is None:
        return f"the module {name} {owner} is blocked: other code has set sys.modules[{name!r}] to None"
    if fields_of_module(module).get("__spec__") is not None:
        folders = list(fields_of_module(module).get("__path__") or ())
        # A library may have no `__init__` at its top, as zope.
        if not folders or any(os.path.basename(os.path.dirname(path)) in _INSTALLED for path in folders):
            return None
        return (
            f"the folder {folders[0]} was imported as the module {name} {owner}, which is not installed: "
            "install it"
        )
    return (
        f"the module {name} {owner} is replaced: other code has set sys.modules[{name!r}] to an object of "
        f"type {type(module).__name__}"
    )


def _is_genuine(name: str, file: str) -> bool:
    """Whether the module comes from a folder of Python, or from one into which libraries are installed."""
    folder = os.path.realpath(os.path.dirname(os.path.dirname(file) if _is_package(file) else file))
    is_installed = os.path.basename(folder) in _INSTALLED
    if name in sys.stdlib_module_names:
        return not is_installed and (folder == _STANDARD or folder.startswith(_STANDARD + os.sep))
    others = [other for other in sys.path if isinstance(other, str) and os.path.realpath(other) != folder]
    try:
        return is_installed or (_is_package(file) and PathFinder.find_spec(name, others) is None)
    except Exception:  # code of a finder
        return True


def _is_hidden(name: str) -> str | None:
    """A sentence for a file of the project whose name is that of a module that was imported instead."""
    owner = _owner_of(name)
    if owner is None or name not in sys.modules:
        return None
    loaded = _file_of(sys.modules[name])
    for folder in [folder for folder in sys.path[:1] if isinstance(folder, str)]:
        file = os.path.join(os.path.abspath(folder), f"{name}.py")
        if file != loaded and os.path.isfile(file):
            return (
                f"the file {file} is not imported, because it has the name of the module {name} {owner}: "
                "rename the file"
            )
    return None


def _file_of(module: object) -> str | None:
    file = fields_of_module(module).get("__file__")
    return os.path.abspath(file) if isinstance(file, str) else None


def _is_package(file: str) -> bool:
    return os.path.basename(file).startswith("__init__.")
