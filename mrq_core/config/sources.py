"""Finds the values of the settings: command line over environment over config file over default."""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mrq_core.config.hidden import explained
from mrq_core.config.importing import forgetting_interrupted
from mrq_core.config.loading import Loading, loaded_now, loading, told_of
from mrq_core.config.secrets import hide_secrets
from mrq_core.config.settings import SETTINGS, Config, Setting, default_of, flag_of, shown_setting
from mrq_core.config.source_file import DEFAULT_FILE, ConfigFile, path_from, read_file
from mrq_core.contract.codec import refuse_repeated_keys
from mrq_core.contract.exception_fields import frames_of
from mrq_core.contract.naming import MAX_SECONDS, names_in
from mrq_core.contract.plain import has_type, is_mapping, printable, text_of
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.drivers import open_files
from mrq_core.errors import (
    BrokerUnavailable,
    ConfigError,
    InvalidValue,
    MrqError,
    on_one_line,
    shortened,
    shown,
    shown_error,
)

_NEEDED_MODULES = frozenset({"sys", "builtins", "importlib", "mrq_core"})
ENV_PREFIX = "MRQ_"
_ENV_OTHERS = frozenset({"MRQ_CONFIG"})
"""Variables of mrq that are not settings. MRQ_TEST_ and MRQ_BENCH_ belong to the tests."""


def load_config(
    overrides: Mapping[str, object] | None = None,
    *,
    file: str | os.PathLike[str] | ConfigFile | None = None,
    environ: Mapping[str, str] | None = None,
    source_of: Callable[[str], str] = flag_of,
) -> Config:
    """The configuration of this process.

    `overrides` are values by name, in upper or lower case, such as those of the command
    line; errors name their source with `source_of`. A `file` named here or in MRQ_CONFIG
    must exist; otherwise `mrq-config.py` in the working directory is read if it exists.
    A `ConfigFile`, which another process has read, is not read again.
    Raises ConfigError, also in a config file that is being loaded, and for an `mrq-config.py`
    that is a directory or a broken link: the defaults would send jobs to another broker.
    """
    if environ is None:  # the configuration of this process
        _refuse_in_config_file()
        environ = os.environ
    module = None
    read = file if has_type(file, ConfigFile) else _read(file, environ)
    if read is not None:
        path = read.path
        module = _run_file(read)
        read = read._replace(path=module.__file__ or path)
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    user: dict[str, object] = {}
    if module is not None:
        for name, value in vars(module).items():
            if not isinstance(name, str):
                continue  # type: ignore[unreachable]
            if name in SETTINGS:
                values[name], sources[name] = value, path
            elif name.isupper() and not name.startswith("_"):
                _refuse_near_miss(name, f"{path} sets {name}")
                user[name] = value
    for variable, text in environ.items():
        name = variable.removeprefix(ENV_PREFIX)
        if name == variable or not text:
            continue  # an empty variable counts as unset
        if name in SETTINGS and not SETTINGS[name].file_only:
            values[name], sources[name] = text, f"environment variable {variable}"
        elif name in SETTINGS:
            warnings.warn(f"{variable} is ignored: {name} can be set only in the config file", stacklevel=2)
        elif variable not in _ENV_OTHERS and not name.startswith(("TEST_", "BENCH_")):
            warnings.warn(
                f"the environment variable {printable(shortened(variable))} is not a setting of mrq"
                f"{_near(name)}",
                stacklevel=2,
            )
    if overrides is not None and not is_mapping(overrides):
        raise ConfigError(f"the settings are {shown(overrides)}: expected a dict of names and values")
    for given, value in (overrides or {}).items():
        spelled = text_of(given)
        name = "" if spelled is None else spelled.upper()
        if name not in SETTINGS:
            named = shown(given) if spelled is None else printable(shortened(spelled))
            raise ConfigError(f"{named} is not a setting of mrq{_near(name)}")
        if value is not None:
            values[name], sources[name] = value, source_of(name)
    checked = {name.lower(): _convert(name, value, sources[name]) for name, value in values.items()}
    return Config(**checked, user=user, module=module, file=read, sources=sources)  # type: ignore[arg-type]


def _read(file: object, environ: Mapping[str, str]) -> ConfigFile | None:
    """Reads the config file. None: there is none."""
    named = file if file is not None else environ.get("MRQ_CONFIG") or None
    if named is not None:
        return read_file(path_from(named))
    path = Path(DEFAULT_FILE)
    return read_file(path) if _is_there(path) else None


def _is_there(path: Path) -> bool:
    """Whether the file is in the working directory. Warns if this user may not know."""
    try:
        os.lstat(path)
    except PermissionError as error:
        warnings.warn(
            f"no config file is read: this user may not search the working directory ({error.strerror}); "
            "start mrq in another one, or name the file in MRQ_CONFIG",
            stacklevel=4,
        )
    except OSError:
        pass
    else:
        return True
    return False


def _refuse_in_config_file() -> None:
    outer = loaded_now()
    if outer is not None and outer.config is None:
        raise ConfigError(
            f"the configuration was asked for while {outer.what} is being loaded: set the settings in the "
            "config file itself, and call configure in the program"
        )


def _run_file(read: ConfigFile) -> ModuleType:
    _refuse_in_config_file()
    path = read.path
    module = ModuleType("mrq_config")
    try:
        file, here = str(Path(path).resolve()), os.getcwd()
    except OSError:  # the working directory was deleted
        file, here = path, ""
    module.__file__ = file
    if here and here not in sys.path:
        sys.path.insert(0, here)
    try:
        # Python itself decodes bytes: as UTF-8, with or without a byte order mark, or as a coding line says.
        code = compile(read.source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise ConfigError(f"the config file {path} is not valid Python{where}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the config file {path} is not valid Python: {shown_error(error)}") from error
    named = f"the config file {path}"
    with loading(Loading(named, None)):  # its own error is not one of the file
        imports = _Imports()
        try:
            try:
                with forgetting_interrupted():
                    exec(code, vars(module))
            finally:
                broken = imports.restore()
                module.__file__ = file
        except BaseException as error:  # SystemExit, GreenletExit and the like too
            refuse_to_wrap(error)
            lines = [f.lineno for f in traceback.extract_tb(frames_of(error)) if f.filename == path]
            where = f", line {lines[-1]}" if lines else ""
            text = f"{named} failed{where}: {told_of(named, error)}"
            if open_files.are_used_up(error):
                raise BrokerUnavailable(f"{text}; {open_files.advice()}") from error
            raise ConfigError(explained(text, error)) from error
    if broken is not None:
        raise ConfigError(f"the config file {path} {broken}, without which Python imports no module")
    annotated: Any = vars(module).get("__annotations__")
    for name in SETTINGS if isinstance(annotated, dict) else ():
        if name in annotated and name not in vars(module):
            raise ConfigError(
                f"the config file {path} annotates {name}, and gives it no value: expected {name} = ..."
            )
    return module


class _Imports:
    """What Python imports modules with. A config file may change it, but not break it."""

    def __init__(self) -> None:
        self._modules, self._path, self._finders = sys.modules, sys.path, sys.meta_path
        self._before = dict(sys.modules), list(sys.path), list(sys.meta_path)

    def restore(self) -> str | None:
        """Restores what is broken, and returns what the file did, as the end of a sentence. None: nothing."""
        modules, path, finders = self._before
        broken = None
        if sys.modules is not self._modules or not self._modules.keys() >= _NEEDED_MODULES:
            sys.modules = self._modules
            sys.modules.update({name: module for name, module in modules.items() if name not in sys.modules})
            broken = "replaces or empties sys.modules"
        if not isinstance(sys.path, list) or not all(
            isinstance(part, str | os.PathLike) for part in sys.path
        ):
            sys.path = self._path
            sys.path[:] = path
            broken = "sets sys.path to something other than a list of paths"
        elif not set(path[1:] or path).intersection(map(os.fspath, sys.path)):  # the first is the folder
            sys.path[:] = path
            broken = "removes all entries of sys.path"
        if not isinstance(sys.meta_path, list) or not sys.meta_path:
            sys.meta_path = self._finders
            sys.meta_path[:] = finders
            broken = "empties sys.meta_path"
        return broken


def _near(name: str) -> str:
    close = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _refuse_near_miss(name: str, what: str) -> None:
    close = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85)
    if close:
        raise ConfigError(f"{what}, which is not a setting of mrq; did you mean {close[0]}?")


def _convert(name: str, value: object, source: str) -> object:
    setting = SETTINGS[name]
    default = default_of(name)
    try:
        if setting.auto is not None:
            converted: object = _to_number_or_auto(value, setting.auto)
        elif setting.is_list:
            converted = _to_list(value)
        else:
            converted = _to_type(value, default)
        _check_bounds(setting, converted)
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(f"{name} is {shown(shown_setting(name, value))} ({source}): {error}") from error
    except Exception as error:  # code of a value that the config file has made
        if isinstance(error, MrqError):
            raise
        refuse_to_wrap(error)
        raise ConfigError(
            f"{name} ({source}) cannot be read: its code raised {shown_error(error)}; expected a plain value"
        ) from error
    return converted


def _to_type(value: object, default: object) -> object:
    if isinstance(default, bool):
        return _to_bool(value)
    if isinstance(default, int):
        return _to_number(value, int, "a whole number")
    if isinstance(default, float):
        return _to_number(value, float, "a number")
    if isinstance(default, tuple):
        return _to_names(value)
    if isinstance(default, dict):
        return _to_mapping(value)
    if not isinstance(value, str | os.PathLike):
        raise ValueError("expected text")
    return _checked_text(os.fspath(value))


def _checked_text(text: object) -> str:
    """Text that every broker and terminal takes. A variable of the environment that is not UTF-8 has lone
    surrogates."""
    plain = text_of(text)
    if plain is None:
        raise ValueError("expected text")
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ValueError("expected text in UTF-8") from None
    if "\0" in plain:
        raise ValueError("expected text without a NUL character")
    return plain


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    found = words.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if found is None:
        raise ValueError("expected yes or no (also true/false, on/off, 1/0)")
    return found


def _to_number(value: object, kind: type[int] | type[float], what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected {what}")
    try:
        number = kind(value)
        is_finite = math.isfinite(number)
    except (ValueError, OverflowError):
        raise ValueError(f"expected {what}") from None
    if not is_finite or (isinstance(value, float) and number != value):
        raise ValueError(f"expected {what}")
    return number


def _to_number_or_auto(value: object, auto: Callable[[], int]) -> float:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return auto()
    return _to_number(value, int, "a whole number, or auto")


def _to_names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return names_in(_checked_text(value), by_spaces=True)
    if isinstance(value, list | tuple):
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"expected a list of names, and found {shown(item)}")
        return tuple(map(_checked_text, value))
    raise ValueError("expected a list of names, or text with names between commas or spaces")


def _to_list(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list")
    return tuple(value)


def _to_mapping(value: object) -> object:
    if isinstance(value, str):
        try:
            refuse_repeated_keys(value, name="the JSON")
            value = json.loads(value)
        except InvalidValue:
            raise
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected a JSON object: {error}") from error
    if not isinstance(value, Mapping):
        raise ValueError("expected a dict")
    for key, options in value.items():
        if text_of(key) is None or not isinstance(options, Mapping):
            raise ValueError(
                f"expected a dict of options for each task, and found {shown(key)}: "
                f"{shown(hide_secrets(text_of(key) or '', options))}"
            )
    return {text_of(key): options for key, options in value.items()}


def _check_bounds(setting: Setting, value: object) -> None:
    if isinstance(value, float) and value > MAX_SECONDS:
        raise ValueError(f"expected at most {MAX_SECONDS:.0e}")
    if isinstance(value, int) and value > setting.maximum:
        raise ValueError(f"expected at most {setting.maximum:,}")
    if setting.minimum is not None and isinstance(value, int | float) and value < setting.minimum:
        raise ValueError(f"expected at least {setting.minimum:g}")
    if setting.is_line and isinstance(value, str) and value != on_one_line(value):
        raise ValueError("expected one line without control characters")
    if setting.choices and value not in setting.choices:
        raise ValueError(f"expected one of {', '.join(setting.choices)}")
