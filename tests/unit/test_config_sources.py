"""Where the values of the settings come from, and what is refused."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mrq_core.config import source_file
from mrq_core.config.cores import available_cores
from mrq_core.config.settings import SETTINGS, Config
from mrq_core.config.sources import load_config
from mrq_core.errors import ConfigError, on_one_line

WriteConfig = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    def write(text: str) -> Path:
        path = tmp_path / "mrq-config.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def load(environ: dict[str, str] | None = None, **overrides: object) -> Config:
    return load_config(overrides, environ=environ or {})


# --- precedence -----------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Config()


def test_the_file_wins_over_the_default(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2")
    config = load()
    assert config.greenlets == 2
    assert config.sources == {"GREENLETS": "mrq-config.py"}


def test_the_environment_wins_over_the_file(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2")
    config = load({"MRQ_GREENLETS": "3"})
    assert config.greenlets == 3
    assert config.sources == {"GREENLETS": "environment variable MRQ_GREENLETS"}


def test_the_command_line_wins_over_the_environment(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2")
    config = load({"MRQ_GREENLETS": "3"}, greenlets=4)
    assert config.greenlets == 4
    assert config.sources == {"GREENLETS": "--greenlets"}


def test_a_flag_that_was_not_given_overrides_nothing(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2")
    assert load(greenlets=None).greenlets == 2


def test_a_bad_value_that_is_overridden_does_no_harm(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 'many'")
    assert load(GREENLETS=4).greenlets == 4


# --- the file --------------------------------------------------------------------------------------


def test_the_file_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text("LEASE = 5")
    assert load_config(file=path, environ={}).lease == 5.0
    assert load({"MRQ_CONFIG": str(path)}).lease == 5.0


def test_the_named_file_wins_over_the_variable(tmp_path: Path) -> None:
    for name, lease in (("a.py", 5), ("b.py", 6)):
        (tmp_path / name).write_text(f"LEASE = {lease}")
    assert load_config(file="a.py", environ={"MRQ_CONFIG": "b.py"}).lease == 5.0


def test_a_named_file_has_to_exist() -> None:
    with pytest.raises(ConfigError, match=r"missing\.py cannot be read"):
        load_config(file="missing.py", environ={})
    with pytest.raises(ConfigError, match=r"missing\.py cannot be read"):
        load({"MRQ_CONFIG": "missing.py"})


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"/dev/zero is larger than 1,000,000 bytes: expected a Python file"
    ):
        load_config(file="/dev/zero", environ={})


def test_a_pipe_is_read_to_its_end_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("GREENLETS = 7\n"))
    writer.start()
    assert load_config(file=str(pipe), environ={}).greenlets == 7
    writer.join()
    monkeypatch.setattr(source_file, "_PIPE_PATIENCE", 0.05)
    with pytest.raises(ConfigError, match=r"pipe cannot be read \(nothing .* for 0\.05 s\): write"):
        load_config(file=str(pipe), environ={})


def test_a_pipe_that_another_program_has_read_is_refused() -> None:
    fed, feed = os.pipe()
    os.write(feed, b"GREENLETS = 7\n")
    os.close(feed)
    config = load_config(file=f"/dev/fd/{fed}", environ={})
    assert config.file is not None
    assert (config.greenlets, config.file.is_read_once) == (7, True)
    with pytest.raises(ConfigError, match=f"the config file /dev/fd/{fed} is an empty pipe: write the file"):
        load_config(file=f"/dev/fd/{fed}", environ={})
    os.close(fed)


def test_a_file_that_was_read_elsewhere_is_not_read_again(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 7\n")
    config = load_config(environ={})
    assert config.file is not None
    assert not config.file.is_read_once
    write_config("GREENLETS = 8\n")
    assert load_config(file=config.file, environ={}).greenlets == 7


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.py cannot be read"):
        load_config(file="folder.py", environ={})


BREAKS = [
    ("sys.path.clear()", "removes all entries of sys.path"),
    ("sys.path = ['/nowhere']", "removes all entries of sys.path"),
    ("sys.path = None", "sets sys.path to something other than a list"),
    ("sys.path.append(3)", "sets sys.path to something other than a list"),
    ("sys.modules.clear()", "replaces or empties sys.modules"),
    ("sys.modules = {}", "replaces or empties sys.modules"),
    ("sys.meta_path.clear()", "empties sys.meta_path"),
    ("sys.path.clear(); import rich_that_is_missing", "failed, line 2: ModuleNotFoundError"),
    ("os.environ.clear(); sys.stdout.close(); sys.path.append('/more')", ""),
]
"""Lines of a config file that break imports, and what is said of it."""


@pytest.mark.parametrize(
    ("line", "says", "command"),
    [
        # Both commands load the file in one place: the usual run calls the second one for every fourth line.
        pytest.param(*case, command, marks=pytest.mark.campaign if command != "check" and number % 4 else ())
        for number, case in enumerate(BREAKS)
        for command in ("check", "run os.nothing")
    ],
)
def test_a_config_file_that_breaks_imports_is_named(
    tmp_path: Path, line: str, says: str, command: str
) -> None:
    file = tmp_path / "file.py"
    file.write_text(f"import os, sys\n{line}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *command.split(), "--config", str(file)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MRQ_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    if says:
        assert done.returncode == 2
        assert re.fullmatch(rf"mrq: the config file {file} {says}.*\n", done.stderr)
    elif command == "check":
        assert "0 errors" in done.stdout
    else:
        assert "has no 'nothing'" in done.stderr


@pytest.mark.parametrize("kind", ["directory", "broken link"])
def test_a_default_config_file_that_cannot_be_read_is_not_ignored(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    default = tmp_path / "mrq-config.py"
    if kind == "directory":
        default.mkdir()
    else:
        default.symlink_to("missing.py")
    with pytest.raises(ConfigError, match=r"mrq-config\.py cannot be read"):
        load_config(environ={})


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_bytes(b"NAME = '\xff'")
    with pytest.raises(ConfigError, match=r"mrq-config\.py is not valid Python.*'utf-8' codec can't decode"):
        load()


def test_a_syntax_error_is_named_with_its_line(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2\nQUEUES = [\n")
    with pytest.raises(ConfigError, match="is not valid Python, line 2"):
        load()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("exit(3)", ""),
    ],
)
def test_a_file_that_raises_is_named_with_its_line(write_config: WriteConfig, code: str, says: str) -> None:
    write_config(f"\n\n{code}\n")
    with pytest.raises(ConfigError, match="failed, line 3") as caught:
        load()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "code", ["raise GeneratorExit('x')", "from gevent import GreenletExit\nraise GreenletExit('x')",
             "raise KeyboardInterrupt('x')",
             "class Odd(BaseException):\n    pass\n\nraise Odd('x')", "raise SystemExit('x')"]
)  # fmt: skip
def test_a_file_that_raises_no_exception_is_named_with_its_line(write_config: WriteConfig, code: str) -> None:
    write_config(code)
    with pytest.raises(ConfigError, match=rf"failed, line {len(code.splitlines())}: \w+: x$"):
        load()


def test_an_interrupt_passes_through_a_file(write_config: WriteConfig) -> None:
    write_config("import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        load()


def test_a_file_may_import_modules_beside_it(write_config: WriteConfig, tmp_path: Path) -> None:
    (tmp_path / "beside_the_config.py").write_text("VALUE = 7")
    write_config("from beside_the_config import VALUE as GREENLETS")
    assert load().greenlets == 7
    sys.modules.pop("beside_the_config")


def test_upper_case_names_are_the_users_own(write_config: WriteConfig) -> None:
    write_config("MY_LIST = [1]\n_HIDDEN = 1\nlower = 2\nMixed = 3\nimport os")
    config = load()
    assert config.user == {"MY_LIST": [1]}
    assert config.as_dict()["MY_LIST"] == [1]


def test_the_file_is_kept_as_a_module(write_config: WriteConfig) -> None:
    path = write_config("def anything(): return 5")
    module = load().module
    assert module is not None
    assert module.__file__ == str(path)
    assert module.anything() == 5


@pytest.mark.parametrize(
    ("name", "meant"),
    [("GREENLET", "GREENLETS"), ("QUEUE", "QUEUES"), ("MAX_JOB", "MAX_JOBS"), ("LOGLEVEL", "LOG_LEVEL")],
)
def test_a_name_close_to_a_setting_is_refused(write_config: WriteConfig, name: str, meant: str) -> None:
    write_config(f"{name} = 1")
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        load()


# --- the environment -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "hint"), [("MRQ_GREENLET", "did you mean GREENLETS"), ("MRQ_XYZ", "")])
def test_an_unknown_variable_warns(variable: str, hint: str) -> None:
    with pytest.warns(UserWarning, match=f"{variable} is not a setting of mrq.*{hint}"):
        load({variable: "1"})


@pytest.mark.parametrize(
    "variable", ["MRQ_CONFIG", "MRQ_TEST_REDIS", "MRQ_BENCH_JOBS", "PATH", "XMRQ_LEASE", "mrq_x"]
)
def test_other_variables_are_none_of_its_business(variable: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load({variable: ""}) == Config()


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRQ_MAX_JOBS", "5")
    assert load_config().max_jobs == 5


# --- overrides --------------------------------------------------------------------------------------------


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigError, match="greenlet is not a setting of mrq; did you mean GREENLETS"):
        load(greenlet=1)


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["1", "true", "YES", " on ", True])
def test_words_that_mean_yes(word: object) -> None:
    assert load(quiet=word).quiet is True


@pytest.mark.parametrize("word", ["0", "False", "no", "OFF", False])
def test_words_that_mean_no(word: object) -> None:
    assert load(quiet=word).quiet is False


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("queues", {"a"}, "{'a'}"),
        ("plugins", frozenset({"a"}), "frozenset({'a'})"),
        ("queues", {"a": 1}.keys(), "{'a'}"),
        ("scheduler_tasks", {("a", "redis://:hush@h")}, "{('a', 'redis://:***@h')}"),
        ("name", ("a",), "('a',)"),
        ("tasks", {"a.B": {"b"}}, "{'a.B': {'b'}}"),
    ],
)
def test_a_value_of_a_wrong_kind_is_shown_as_what_it_is(name: str, value: object, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name.upper()} is {shown} (")


@pytest.mark.parametrize("value", ["a b", "a,b", " a, b ", ["a", "b"], ("a", "b")])
def test_names_may_be_a_list_or_one_text(value: object) -> None:
    assert load(queues=value).queues == ("a", "b")


def test_what_a_config_file_does_to_its_names_is_no_error(write_config: WriteConfig) -> None:
    write_config("GREENLETS = 2\nglobals()[5] = 3\n__file__ = None")
    config = load()
    assert config.greenlets == 2
    write_config("globals().clear()")
    module = load().module
    assert module is not None
    assert module.__file__ is not None
    assert Path(module.__file__).name == "mrq-config.py"


@pytest.mark.parametrize("value", [{"p": {"timeout": 5}}, '{"p": {"timeout": 5}}'])
def test_options_of_tasks_may_be_a_dict_or_json(value: object) -> None:
    assert load(tasks=value).tasks == {"p": {"timeout": 5}}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("GREENLETS", 0, "at least 1"),
        ("GREENLETS", "1.5", "a whole number"),
        ("GREENLETS", 1.5, "a whole number"),
        ("GREENLETS", True, "a whole number"),
        ("GREENLETS", "", "a whole number"),
        ("GREENLETS", [1], "a whole number"),
        ("GREENLETS", 10**30, "at most 1,000,000,000"),
        ("SOLO_PROCESSES", "9" * 23, "at most 1,000,000,000"),
        ("ADMIN_PORT", 65_536, "at most 65,535"),
        ("DASHBOARD_PORT", "99999", "at most 65,535"),
        ("LEASE", 0, "at least 0.1"),
        ("LEASE", "nan", "a number"),
        ("LEASE", float("inf"), "a number"),
        ("LEASE", "soon", "a number"),
        ("MAX_JOBS", -1, "at least 0"),
        ("QUIET", "perhaps", "yes or no"),
        ("QUIET", 2, "yes or no"),
        ("QUEUES", 5, "list of names"),
        ("QUEUES", ["a", 1], "list of names"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG"),
        ("BROKER", 5, "text"),
        ("TASKS", "{", "JSON object"),
        ("PLUGINS", ["a", 3], "a list of names, and found 3"),
        ("TASKS", '{"p": {"timeout": 5, "timeout": 6}}', "has the key 'timeout' twice"),
        ("TASKS", [1], "a dict"),
        ("TASKS", {"p": 5}, "a dict of options"),
        ("TASKS", {1: {}}, "a dict of options"),
    ],
)
def test_a_bad_value_is_refused_with_its_source(name: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_config({name: value}, environ={})
    assert str(caught.value).startswith(f"{name} is ")
    assert f"(--{name.lower().replace('_', '-')})" in str(caught.value)


def test_a_bad_value_of_the_environment_names_the_variable() -> None:
    with pytest.raises(ConfigError, match="environment variable MRQ_LEASE"):
        load({"MRQ_LEASE": "x"})


def test_a_number_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ConfigError):
        load(greenlets=10**400)


def test_the_password_of_a_bad_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load(greenlets="redis://u:hush@host")
    assert "hush" not in str(caught.value)


# --- odd files and values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfNAME = 'caf\xc3\xa9'\n",
        b"# -*- coding: latin-1 -*-\nNAME = 'caf\xe9'\n",
        b"#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\nNAME = 'caf\xe9'\n",
        "NAME = 'café'\r\n".encode(),
    ],
)
def test_a_file_is_decoded_as_python_decodes_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mrq-config.py").write_bytes(content)
    assert load().name == "café"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# coding: klingon\n", "unknown encoding: klingon"),
        (b"\xef\xbb\xbf# coding: latin-1\n", "is not valid Python"),
        (b"NAME = 'a\0b'\n", "null bytes"),
        (b"(" * 300 + b")" * 300, "is not valid Python"),
        (b"-" * 100_000 + b"1", "is not valid Python"),
        (b"NAME = '\\udcff'\n", r"NAME is '\\udcff' \(mrq-config\.py\): expected text in UTF-8"),
        (b"NAME = 'a\\0b'\n", r"NAME is 'a\\x00b' \(mrq-config\.py\): expected text without a NUL"),
        (b"NAME = b'x'\n", r"NAME is b'x' \(mrq-config\.py\): expected text"),
        (b"QUEUES = ['a', '\\udcff']\n", r"QUEUES is \['a', '\\udcff'\] .*: expected text in UTF-8"),
        (b"GREENLETS = 10**5000\n", r"GREENLETS is an integer of 16610 bits .*: expected a whole number"),
        (b"LEASE = 10**400\n", r"LEASE is an integer of 1329 bits .*: expected a number"),
        (b"LEASE = float('nan')\n", "LEASE is nan .*: expected a number"),
        (b"QUIET = 1.0\n", r"QUIET is 1\.0 .*: expected yes or no"),
        (b"TASKS = {'a.b': 5}\n", "expected a dict of options for each task, and found 'a.b': 5"),
        (b"class X:\n    def __repr__(self): 1/0\nNAME = X()\n", "NAME is <X instance .*: expected text"),
        (b"class X:\n    def __repr__(self): 1/0\nTASKS = {X(): 5}\n", "found <X instance"),
        (
            b"class X(dict):\n    def items(self): 1/0\nTASKS = X(a=1)\n",
            "TASKS .*cannot be read: its code raised ZeroDivisionError: division by zero; expected a plain",
        ),
        (
            b"class E(Exception):\n    def __str__(self): 1/0\nraise E\n",
            "failed, line 3: E: <its text fails>",
        ),
        (b"raise ValueError('x' * 10**6)\n", r"failed, line 1: ValueError: x+\.\.\.$"),
        (b"def f(): f()\nf()\n", "failed, line 1: RecursionError"),
    ],
)
def test_an_odd_file_is_one_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "mrq-config.py").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load()
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\tb", "a\u202eb", "a\u200bb"])
def test_a_name_of_a_worker_is_one_line_without_controls(tmp_path: Path, name: str) -> None:
    words = "expected one line without control characters"
    with pytest.raises(ConfigError, match=rf"NAME is .*: {words}"):
        load(environ={"MRQ_NAME": name})
    with pytest.raises(ConfigError, match=rf"NAME is .*: {words}") as raised:
        load(name=name)
    assert on_one_line(str(raised.value)) == str(raised.value)
    (tmp_path / "mrq-config.py").write_text(f"NAME = {name!r}")
    with pytest.raises(ConfigError, match=rf"NAME is .*: {words}"):
        load()
    assert load(name="Büro 1 👨\u200d👩").name == "Büro 1 👨\u200d👩"


@pytest.mark.parametrize("name", [*SETTINGS, "CONFIG"])
def test_a_variable_that_is_not_utf_8_is_named(name: str) -> None:
    value = os.fsdecode(b"caf\xe9")
    words = r"caf\\udce9.*: "
    if name in SETTINGS and SETTINGS[name].file_only:
        words = f"MRQ_{name} is ignored"
    elif name in SETTINGS and SETTINGS[name].secret:
        words = rf"{name} is '\*\*\*'.*: "
    with pytest.raises((ConfigError, UserWarning), match=words) as caught:
        load({f"MRQ_{name}": value})
    str(caught.value).encode()


def test_an_unknown_variable_that_is_not_utf_8_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"MRQ_caf\\udce9 is not a setting"):
        load({os.fsdecode(b"MRQ_caf\xe9"): "1"})


@pytest.mark.parametrize(
    "file", [5, b"x.py", "a\0b", "", " \n", "caf\udce9.py", ["x.py"], object(), "mrq-config.yaml"]
)
def test_an_odd_name_of_a_file_is_one_clear_error(file: Any) -> None:
    with pytest.raises(ConfigError, match=r"^the config file .*(expected the path|cannot be read)") as caught:
        load_config(file=file, environ={})
    str(caught.value).encode()


def test_the_url_of_a_broker_is_no_config_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file="redis://user:hush@host/1", environ={})
    assert "the URL 'redis://user:***@host/1': expected the path of a Python file" in str(caught.value)
    assert "belongs in BROKER (--broker)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.py", "(No such file or directory): correct the path, or create the file"),
        (
            "given",
            "(No such file or directory): correct the path, or create the file; did you mean given.py?",
        ),
        ("folder", "(Is a directory): expected a Python file with settings, such as folder/mrq-config.py"),
        ("given.py/x", "(Not a directory): expected a Python file with settings"),
        ("nowhere", "(it is a link to gone, which does not exist): correct the link, or remove it"),
        ("loop", "(Too many levels of symbolic links): correct the link, which leads back to itself"),
    ],
)
def test_a_path_that_leads_to_no_file_is_told_what_to_do(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mrq-config.py").touch()
    (tmp_path / "given.py").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError) as caught:
        load_config(file=name, environ={})
    assert str(caught.value) == f"the config file {name} cannot be read {says}"


def test_a_file_without_permission_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(source_file, "_read", refuse)  # root may read any file
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\): give the user of this"):
        load_config(file="secret.py", environ={})


def test_a_setting_without_a_value_is_refused(write_config: WriteConfig) -> None:
    write_config("BROKER: 'redis'\n")
    with pytest.raises(ConfigError, match="annotates BROKER, and gives it no value: expected BROKER = "):
        load()


def test_the_password_of_a_long_url_is_hidden() -> None:
    url = f"redis://user:{'secret' * 20}@host:{'9' * 100}\0"
    with pytest.raises(ConfigError) as caught:
        load(redis=url)
    assert "secret" not in str(caught.value)
    assert "user:***@host" in str(caught.value)


def test_values_of_the_config_file_that_contain_themselves_can_be_shown(write_config: WriteConfig) -> None:
    write_config("LOOP = {'PASSWORD': 'x', 5: {}}\nLOOP['again'] = [LOOP]\n")
    shown = load().redacted()["LOOP"]
    assert isinstance(shown, dict)
    assert (shown["PASSWORD"], shown[5]) == ("***", {})
    assert repr(shown).count("again") == 25


@pytest.mark.parametrize("text", ["auto", " AUTO "])
def test_auto_is_the_number_of_cores(write_config: WriteConfig, text: str) -> None:
    write_config(f"PROCESSES = {text!r}")
    assert load().processes == load({"MRQ_PROCESSES": text}).processes == available_cores()


def test_other_words_than_auto_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a whole number, or auto"):
        load(processes="all")
    with pytest.raises(ConfigError, match="expected a whole number"):
        load(greenlets="auto")


def test_a_directory_that_cannot_be_searched_is_said_to_hide_its_config_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mrq-config.py").write_text("GREENLETS = 7")
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # which may search any directory
            os.seteuid(65534)
        with pytest.warns(UserWarning, match=r"may not search the working directory \(Permission denied\)"):
            config = load_config(environ={})
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert config.greenlets != 7
    assert load_config(environ={}).greenlets == 7


@pytest.mark.parametrize("given", [["--broker", "x"], "broker=x", 5, [("broker", "x")]])
def test_settings_that_are_no_dict_are_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="expected a dict of names and values"):
        load_config(given, environ={})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [5, None, b"broker"])
def test_a_name_that_is_no_text_is_no_setting(name: object) -> None:
    with pytest.raises(ConfigError, match="is not a setting of mrq"):
        load_config({name: "x"}, environ={})  # type: ignore[dict-item]
