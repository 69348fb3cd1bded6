"""Reads pages as a browser does: their elements, links and text."""

from __future__ import annotations

from html.parser import HTMLParser


class PageReader(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    @property
    def links(self) -> list[str]:
        """The addresses of links."""
        return [attributes["href"] for tag, attributes in self.elements if tag == "a"]

    def dangers(self) -> list[str]:
        """What an attack would add to a page: scripts, handlers, styles, foreign addresses, odd elements."""
        found = []
        scripts = 0
        for tag, attributes in self.elements:
            scripts += tag == "script" and not attributes.get("src", "").startswith("/static/")
            if tag in ("img", "iframe", "object", "embed", "base", "style", "template", "foreignobject"):
                found.append(f"<{tag}>")
            for name, value in attributes.items():
                if name.startswith("on") or name == "style":
                    found.append(f"<{tag} {name}>")
                if name in ("href", "src", "action", "formaction") and not value.startswith(("/", "#")):
                    found.append(f"<{tag} {name}={value!r}>")
                if name in ("href", "src", "action") and value.startswith("//"):
                    found.append(f"<{tag} {name}={value!r}>")
        if scripts:
            found.append(f"{scripts} scripts that are no file of the dashboard")
        return found
