"""Every example of the documentation does what the page says.

On each page, in order and in one empty folder: a python block with a title is written to the file
of that name; one without is run; the commands of a console block are run, and print what is
shown below them. Fragments are only compiled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, Block, Step, blocks, matches, name_of, pages, steps

SECONDS = 60.0
_MARK = "=== end of command"

EXAMPLE_LANGUAGES = {"python", "console"}
OTHER_LANGUAGES = {"sh", "text", "toml", "yaml", "ini", "dockerfile"}


def examples(page: Path) -> list[Block]:
    return [block for block in blocks(page.read_text()) if block.language in EXAMPLE_LANGUAGES]


def run(arguments: list[str], folder: Path, *, path: str | None = None) -> tuple[int, str]:
    """The exit code of a program and its output; its whole process group ends with it. `path`: the PATH; the
    default begins with the folder of this Python."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MRQ_")}
    environ["PATH"] = path or f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    process = subprocess.Popen(
        arguments, cwd=folder, env=environ, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        pytest.fail(f"{arguments} has not ended after {SECONDS:g} s; it printed:\n{printed}")
    return process.returncode, printed


def run_script(page: Path, block: Block, folder: Path) -> None:
    # Written where it is run, so that it finds the modules of the example.
    script = folder / "example.py"
    script.write_text(block.body)
    code, printed = run([sys.executable, script.name], folder)
    assert code == 0, f"{name_of(page)}, line {block.line}: the script exits with {code}:\n{printed}"


def run_console(page: Path, block: Block, folder: Path) -> None:
    wanted = steps(block)
    for step, (code, output) in zip(wanted, outputs_of(wanted, folder), strict=True):
        check(step, code, output, f"{name_of(page)}, line {step.line}: {step.command}")


def outputs_of(wanted: list[Step], folder: Path, *, path: str | None = None) -> Iterator[tuple[int, str]]:
    """Runs commands in one shell, so that its variables last, and yields the exit code and output of each."""
    # The commands come from a file, and read nothing: a program among them must not swallow the next.
    mark = f"printf '\\n{_MARK} %d\\n' $?"
    script = "".join(f"{{ {step.command}\n}} < /dev/null 2>&1\n{mark}\n" for step in wanted)
    (folder / ".example.sh").write_text(script)
    _, printed = run(["bash", ".example.sh"], folder, path=path)
    for step in wanted:
        output, mark, rest = printed.partition(f"\n{_MARK} ")
        assert mark, f"{step.command}\nthe shell ended; it printed:\n{printed}"
        code, _, printed = rest.partition("\n")
        yield int(code), output


def check(step: Step, code: int, output: str, where: str) -> None:
    assert code == step.code, f"{where}\nexits with {code}, expected {step.code}; it printed:\n{output}"
    assert matches(step.expected, output), f"{where}\nprinted\n{output}\nexpected\n{step.expected}"


PAGES = [page for page in pages() if examples(page) and page.parent == DOCS]
"""`test_readme` runs the README."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_examples_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    for block in examples(page):
        if block.language == "python":
            where = block.title or f"{name_of(page)}:{block.line}"
            compile(block.body, where, "exec")
        if block.fragment:
            continue
        if block.language == "console":
            run_console(page, block, tmp_path)
        elif block.title is not None:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.body)
        else:
            run_script(page, block, tmp_path)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page.read_text()):
        assert block.language in EXAMPLE_LANGUAGES | OTHER_LANGUAGES, f"{name_of(page)}, line {block.line}"


# --- the test itself ----------------------------------------------------------------------------

WRONG = {
    "a script that raises": "```python\nraise SystemExit('no')\n```\n",
    "a module that does not compile": '```python title="a.py"\ndef:\n```\n',
    "a fragment that does not compile": "``` { .python .fragment }\ndef:\n```\n",
    "another exit code": "```console\n$ false\n```\n",
    "no exit code where one is told": "```console\n$ true  # exits with 1\n```\n",
    "other output": "```console\n$ echo one\ntwo\n```\n",
    "output where none is shown": "```console\n$ echo one\n```\n",
    "a line too many": "```console\n$ printf 'one\\ntwo\\n'\none\n```\n",
    "the second of two commands": "```console\n$ echo one\none\n$ echo two\none\n```\n",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_example_is_noticed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    monkeypatch.setattr("tests.docs.test_examples.name_of", lambda page: page.name)
    (tmp_path / "folder").mkdir()
    with pytest.raises((AssertionError, SyntaxError)):
        test_the_examples_of_a_page_do_what_it_says(page, tmp_path / "folder")


def test_a_right_example_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```python title="greeting.py"\nTEXT = "hello"\n```\n'
        "```python\nimport greeting\nassert greeting.TEXT\n```\n"
        "```console\n$ word=$(echo one)\n$ printf 'a\\n%s two\\nb\\n' $word\n...\no... two\nb\n"
        "$ (exit 3)  # exits with 3\n```\n"
    )
    monkeypatch.setattr("tests.docs.test_examples.name_of", lambda page: page.name)
    (tmp_path / "folder").mkdir()
    test_the_examples_of_a_page_do_what_it_says(page, tmp_path / "folder")
