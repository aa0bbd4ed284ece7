"""What all pages that litft writes have in common: one file of HTML that asks for nothing else.

A page is light or dark as its reader's system is, and fits a phone. Its browser is told to fetch nothing, and to run no
script but those that the page was written with, by their hashes; most have none. Each says in a line of its head which
command wrote it; only such a page may be replaced.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from litft.data.view import Table
from litft.errors import ConfigError

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1f; --soft: #5a5a66; --line: #cfcfd8; --panel: #f5f5f8;
  --template: #e4e9f7; --prompt: #fff; --answer: #fdf0d0; --target: #d9f2dd; --end: #f6dcf3; --edge: #3a3a46;
  --loss: #1d7a35; --read: #9aa4c4; --bar: #3d5fc4; }
@media (prefers-color-scheme: dark) { :root { --back: #17171b; --text: #e9e9ee; --soft: #a8a8b6; --line: #3d3d48;
  --panel: #212127; --template: #2a3352; --prompt: #17171b; --answer: #4a3c14; --target: #173f22; --end: #4b2447;
  --edge: #c9c9d6; --loss: #5fce7d; --read: #56608a; --bar: #8ba6ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin-bottom: .8rem; } a { color: var(--bar); }
p { margin: .4rem 0; } .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; } dd { margin: 0; }
dt { color: var(--soft); }
.wide { overflow-x: auto; background: linear-gradient(to right, var(--back) 1rem, transparent 2rem),
  linear-gradient(to left, var(--back) 1rem, transparent 2rem),
  linear-gradient(to right, var(--line), transparent 1rem), linear-gradient(to left, var(--line), transparent 1rem);
  background-attachment: local, local, scroll, scroll; }
.wide:focus-visible { outline: 2px solid var(--bar); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: normal; } thead th { color: var(--soft); font-weight: normal; }
"""


def generator_of(command: str) -> str:
    """Gives the line by which a page of a command is known.

    Args:
        command: such as `inspect`.
    """
    return f'<meta name="generator" content="litft {command}">'


def opening(title: str, command: str, style: str, scripts: Sequence[str] = ()) -> Iterator[str]:
    """Gives a page up to its first heading.

    Args:
        title: of the page.
        command: which wrote it.
        style: CSS that only its pages need.
        scripts: all that may run on the page, as `script_element` writes them into it.
    """
    title = escape(title)
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{generator_of(command)}\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">\n'
    yield f"<title>{title}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
    yield f"<header><h1>{title}</h1></header>\n"


def _policy(scripts: Sequence[str]) -> str:
    """Says what a browser may do: nothing but the page's own style, and these scripts."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    rules = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"{rules}; script-src{allowed}" if allowed else rules


def script_element(script: str) -> str:
    """Gives a script as it stands in a page, letter for letter, since its hash is that of its letters."""
    assert "</script" not in script and "<!--" not in script
    return f"<script>{script}</script>\n"


def contents(names: Iterable[str], within: str = "") -> str:
    """Gives links to the parts of a page.

    Args:
        names: of the parts.
        within: what `heading` was told of them, where it was.
    """
    links = " ".join(f'<a href="#{_anchor(name, within)}">{escape(name)}</a>' for name in names)
    return f'<nav aria-label="{escape(f"{within} parts of this page".strip())}">{links}</nav>\n'


def heading(name: str, level: int = 2, within: str = "") -> str:
    """Gives the heading of a part, which a link leads to.

    Args:
        name: of the part.
        level: 2, or 3 below another.
        within: the part around it, where several have such a part.
    """
    return f'<h{level} id="{_anchor(name, within)}">{escape(name)}</h{level}>\n'


def _anchor(name: str, within: str) -> str:
    """Gives the name by which a link finds a part."""
    return escape(f"{within} {name}".strip().lower().replace(" ", "-").replace(",", ""))


def facts_list(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Gives names and values, one below the other."""
    yield "<dl>\n"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in facts)
    yield "</dl>\n"


def table_part(table: Table, level: int = 2, within: str = "") -> Iterator[str]:
    """Gives a table under its heading, of which `heading` says the rest."""
    yield heading(table.title, level, within)
    yield from plain_table(table, within)


def plain_table(table: Table, within: str = "") -> Iterator[str]:
    """Gives a table; it scrolls by itself where it is wider than the page."""
    title = escape(f"{within} {table.title}".strip())
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
    yield f"<table>\n<thead><tr>{_cells(table.head, 'col')}</tr></thead>\n<tbody>\n"
    for first, *rest in table.rows:
        yield f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>\n'
    yield "</tbody>\n</table></div>\n"
    yield from (f'<p class="soft">{escape(note)}</p>\n' for note in table.notes)


def _cells(texts: Iterable[str], scope: str) -> str:
    """Gives the cells of a head; one that says nothing is no heading."""
    return "".join(f'<th scope="{scope}">{escape(text)}</th>' if text else "<td></td>" for text in texts)


def refuse_foreign(path: Path, command: str, flag: str) -> None:
    """Refuses to replace a file that is no page of this command.

    Args:
        path: where a page is to be written.
        command: which writes it.
        flag: which named the place.

    Raises:
        ConfigError: there is such a file.
    """
    if path.exists() and generator_of(command).encode() not in path.read_bytes()[:1000]:
        raise ConfigError(f"{flag} {path} exists and is no page of litft {command}; name another file, or remove it.")
