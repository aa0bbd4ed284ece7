"""Reads the pages of `litft evaluate` and `litft judge`, and checks what all of them promise."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Outline(HTMLParser):
    """Reads a page: tags that are open, those that fetch something, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetching: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)
        values = dict(attrs)
        if tag in ("script", "img", "link", "iframe") or "src" in values or (values.get("href") or "#")[0] != "#":
            self.fetching.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def read_page(path: Path) -> str:
    """Gives the text of a page that stands alone, is dark where its reader's system is, and fits a phone."""
    text = path.read_text(encoding="utf-8")
    page = Outline()
    page.feed(text)
    assert page.open == [] and page.fetching == []
    assert (
        "prefers-color-scheme: dark" in text and 'content="width=device-width' in text and "default-src 'none'" in text
    )
    assert "minmax(min(18rem, 100%), 1fr)" in text
    return page.said
