"""The examples of the page on deployment, by their titles, and readers of their formats."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from tests.docs.pages import DOCS, blocks

PAGE = (DOCS / "deployment.md").read_text()
TITLED = {block.title: block.body for block in blocks(PAGE) if block.title}
SCRIPTS = [block.body for block in blocks(PAGE) if block.language == "sh"]

PROGRAM = "/srv/shop/venv/bin/mrq"


def ini(text: str) -> list[tuple[str, str, str]]:
    """Section, name and value of each line, in order: systemd has names more than once."""
    found, section = [], ""
    for line in text.splitlines():
        if head := re.fullmatch(r"\[(.+)\]", line):
            section = head[1]
        elif line.strip() and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            assert equals, line
            found.append((section, name, value))
    return found


def values(text: str, section: str) -> dict[str, str]:
    """The values of a section; of a name that is there twice, the last."""
    return {name: value for where, name, value in ini(text) if where == section}


def manifests(title: str) -> list[dict[str, Any]]:
    """The documents of a YAML example."""
    return list(yaml.safe_load_all(TITLED[title]))


class Container(NamedTuple):
    """A container of a manifest: what `mrq` is given, and its variables."""

    spec: Mapping[str, Any]
    words: list[str]
    environ: dict[str, str]


def container(manifest: Mapping[str, Any], secrets: Mapping[str, str]) -> Container:
    """The only container of a deployment; `secrets` are the values of what comes from elsewhere."""
    [spec] = manifest["spec"]["template"]["spec"]["containers"]
    assert "command" not in spec, "the image's entrypoint would be left out"
    environ = {}
    for one in spec["env"]:
        assert set(one) in ({"name", "value"}, {"name", "valueFrom"})
        environ[one["name"]] = one["value"] if "value" in one else secrets[one["name"]]
        assert isinstance(environ[one["name"]], str), f"{one['name']} has to be in quotes"
    return Container(spec, spec["args"], environ)


def compose_calls() -> Iterator[tuple[dict[str, str], list[str]]]:
    """The calls of `docker compose` on the page: variables, and words behind it."""
    for script in SCRIPTS:
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            environ = {}
            while words and "=" in words[0]:
                name, _, value = words.pop(0).partition("=")
                environ[name] = value
            if words[:2] == ["docker", "compose"]:
                yield environ, words[2:]
