"""The pages hang together: links lead somewhere, and every public name is described."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import mrq_core
from mrq_core.cli.app import application
from mrq_core.config.settings import SETTINGS, Config, flag_of
from mrq_core.contract.record import Status
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.plugins import hookspecs
from mrq_core.plugins.manager import Plugins
from mrq_core.tasks.enqueue_options import SingleEnqueueOptions
from mrq_core.tasks.options import OPTION_NAMES
from tests.benchmarks.chart import drawn
from tests.docs.pages import DOCS, ROOT, blocks, name_of, pages, prose

_LINK = re.compile(r"\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def text_of(name: str) -> str:
    return (DOCS / name).read_text()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them of plain words."""
    names = set()
    for heading in _HEADING.findall(prose(page.read_text())):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        names.add(re.sub(r"[\s]+", "-", plain))
    return names


def commands(command: object, prefix: str = "mrq") -> Iterator[str]:
    """All commands that `--help` shows, with those of their groups."""
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            yield f"{prefix} {name}"
            yield from commands(sub, f"{prefix} {name}")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The module that fills the placeholders."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_to_what_exists(page: Path) -> None:
    for link in _LINK.findall(prose(page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{name_of(page)}: {link}"
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


def test_the_files_that_the_page_of_the_architecture_names_exist() -> None:
    """Names without a folder are files of `mrq_core` itself."""
    named = re.findall(r"`([\w/]+\.py)`", text_of("architecture.md"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / "mrq_core" / name).is_file()] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.glob("**/*.md"):
        assert f": {page.relative_to(DOCS).as_posix()}\n" in navigation


@pytest.mark.parametrize("command", sorted(commands(get_command(application()))))
def test_every_command_is_described(command: str) -> None:
    assert re.search(rf"`{command}[` ]", text_of("command-line.md")), command


@pytest.mark.parametrize("name", mrq_core.__all__)
def test_every_public_name_is_described(name: str) -> None:
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    assert re.search(rf"`{name}\b|\b{name}\(", text), name


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_every_option_of_a_task_is_described(name: str) -> None:
    assert f"`{name}`" in text_of("tasks.md")


@pytest.mark.parametrize("name", sorted(SingleEnqueueOptions.__optional_keys__))
def test_every_option_of_an_enqueue_is_described(name: str) -> None:
    assert f"| `{name}` |" in text_of("enqueueing.md")


@pytest.mark.parametrize("kind", ReasonKind)
def test_every_kind_of_reason_is_described(kind: ReasonKind) -> None:
    table = text_of("command-line.md").partition("| kind | reason |")[2].partition("\n\n")[0]
    assert re.search(rf"^\|[^|]*`{kind}`", table, re.MULTILINE), kind


@pytest.mark.parametrize("status", Status)
def test_every_status_is_described(status: Status) -> None:
    assert f"| `{status}` |" in text_of("tasks.md")


def test_the_page_of_settings_lists_all_of_them(generate: ModuleType) -> None:
    text = generate.on_page_markdown(text_of("configuration.md"), page=None)
    for name, setting in SETTINGS.items():
        assert f"| `{name}` |" in text
        assert setting.file_only or f"`{flag_of(name)}`" in text


def test_the_page_of_plugins_lists_all_hooks(generate: ModuleType) -> None:
    text = generate.on_page_markdown(text_of("plugins.md"), page=None)
    hooks = [name for name in vars(hookspecs) if name.startswith("mrq_")]
    assert hooks
    for name in hooks:
        assert f"### {name}\n" in text


def test_the_chart_of_the_peers_is_drawn_from_their_figures() -> None:
    document = json.loads((DOCS / "peers.json").read_text())
    assert (DOCS / "peers.svg").read_text() == drawn(document)


def test_generated_tables_have_no_empty_cells(generate: ModuleType) -> None:
    for make in generate.TABLES.values():
        assert "|  |" not in make()


def test_an_unknown_placeholder_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(KeyError):
        generate.on_page_markdown("{{ nothing }}")


@pytest.mark.parametrize("command", ["demo", "tests"])
def test_the_readme_has_its_commands_on_one_line(command: str) -> None:
    text = (ROOT / "README.md").read_text()
    found = re.findall(rf"^<!-- command: {command} -->\n```sh\n([^\n]+)\n```$", text, re.MULTILINE)
    assert len(found) == 1


FIRST_PAGES = ["README.md", "docs/index.md", "docs/enqueueing.md"]
"""Pages that readers copy from: they show complete, real output."""


@pytest.mark.parametrize("name", FIRST_PAGES)
def test_the_first_pages_show_real_output(name: str) -> None:
    for block in blocks((ROOT / name).read_text()):
        if block.language == "console":
            assert "..." not in block.body, f"{name}, line {block.line}"
            assert "# exits with" not in block.body, f"{name}, line {block.line}"


def test_the_start_page_leads_to_every_page() -> None:
    links = set(_LINK.findall(text_of("index.md")))
    assert [page.name for page in DOCS.glob("*.md") if page.name not in links | {"index.md"}] == []


def test_the_start_page_does_not_miss_drivers_that_exist() -> None:
    missing = text_of("index.md").partition("## What is not here yet")[2]
    assert missing
    for driver in Plugins(Config()).drivers:
        assert driver.casefold() not in missing.casefold(), driver


# --- installation --------------------------------------------------------------------------------

_INSTALL = re.compile(r"\b(?:pip3?|pipx|uv|poetry|pdm) +(?:pip +)?(?:install|add) +([^\n`]+)")
_FROM_INDEX = re.compile(
    r"""(?:^|[\s'"])mrq(?:\[[\w, ]*\])?(?:[<>=~!]=?[\w.*]+)?(?=$|[\s'",;.)])(?!\S*\.whl)"""
)
_REQUIREMENT = re.compile(r"^mrq(?:\[[\w, ]*\])?\s*(?:[<>=~!]=.*)?$", re.MULTILINE)


def installs_from_index(text: str) -> list[str]:
    """The commands in a text that would install the other MRQ, which the public index has under this name."""
    commands = [found[0] for found in _INSTALL.finditer(text) if _FROM_INDEX.search(found[1])]
    in_blocks = [found[0] for block in blocks(text) for found in _REQUIREMENT.finditer(block.body)]
    return commands + in_blocks


def sources() -> list[Path]:
    """Every file with messages or instructions for users."""
    code = [path for package in ("mrq_core", "mrq_broker_redis", "mrq_broker_mongo")
            for path in (ROOT / package).glob("**/*.py")]  # fmt: skip
    return [*pages(), *code, ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "noxfile.py"]


def test_nothing_tells_people_to_install_the_other_mrq() -> None:
    found = [
        (name_of(path), install) for path in sources() for install in installs_from_index(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install mrq", "pip3 install --quiet 'mrq[redis]'", 'pip install "mrq[redis,mongo]"',
        "`pip install mrq`", "python -m pip install -U mrq==1.0", "uv add mrq", "uv pip install redis mrq",
        "run pip install mrq, then", "pip install mrq.", "pipx install mrq",
        "```text\nredis\nmrq[redis]>=1\n```\n",
    ],
)  # fmt: skip
def test_an_instruction_to_install_the_other_mrq_is_noticed(text: str) -> None:
    assert installs_from_index(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install .", "pip install '.[redis,mongo]'", "pip install 'redis[hiredis]'",
        "pip install pymongo",
        "pip install ./mrq-1.0.0-py3-none-any.whl", "pip install './dist/mrq-1.0-py3-none-any.whl[redis]'",
        ".venv/bin/pip install --quiet . && .venv/bin/mrq demo", "pip install nox`, then `mrq worker`",
        "Do not install `mrq` from PyPI", "```text\nmrq.worker\n```\n",
    ],
)  # fmt: skip
def test_other_instructions_are_left_alone(text: str) -> None:
    assert installs_from_index(text) == []


def test_pages_have_one_title() -> None:
    for page in pages():
        assert len(re.findall(r"^# ", prose(page.read_text()), re.MULTILINE)) == 1, name_of(page)
