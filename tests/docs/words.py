"""The turns of phrase that this project does not write, and the files that are not clean of them yet.

`python -m tests.docs.words` prints that list anew.
"""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("unclean.txt")
BANNED = (
    "what there is",
    "that which",
    "of its own",
    "of their own",
    "so many",
    "whoever",
    "whichever",
    "somebody",
    "nobody",
    "is to be",
    "are to be",
    "as it is",
    "what came of",
    "what becomes of",
    "others have",
    "one that is",
    "to be mended",
    "mended",
    "is looked at",
    "are looked at",
    "thousand million",
    "says what is",
    "lets go",
)
_BANNED = re.compile(
    r"\b(" + "|".join(phrase.replace(" ", r"\s+") for phrase in BANNED) + r")\b", re.IGNORECASE
)
_PROSE = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
_ENDINGS = (".py", ".md", ".lua")
_THIS = ("tests/docs/words.py", "tests/docs/test_words.py")


def files() -> list[str]:
    """The files that are held to these words: code, scripts and pages, without the tests of them."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in done.stdout.split("\n") if name.endswith(_ENDINGS) and name not in _THIS]
    return sorted(name for name in names if (ROOT / name).exists())


def found_in(name: str) -> list[str]:
    """The banned turns of phrase in the prose of a file: comments, strings, pages."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [re.sub(r"\s+", " ", match.group(0)) for match in _BANNED.finditer(_prose(name, text))]


def _prose(name: str, text: str) -> str:
    if name.endswith(".md"):
        return text
    if name.endswith(".lua"):
        return "\n".join(line.partition("--")[2] for line in text.splitlines())
    parts = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", None
        ):
            parts.append(token.string)
    return "\n".join(part.lstrip("# ") for part in parts)


def unclean() -> list[str]:
    """The files with a banned turn of phrase."""
    return [name for name in files() if found_in(name)]


if __name__ == "__main__":
    LIST.write_text("\n".join(unclean()) + "\n", encoding="utf-8")
    print(f"{len(unclean())} of {len(files())} files are not clean: {LIST}")
