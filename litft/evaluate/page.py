"""The page on which the answers of several models are read side by side. Knows no files.

Texts of models are escaped; their spaces and line ends are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from litft.data.html import contents, facts_list, heading, opening, table_part
from litft.data.view import Table

SETTINGS = "Settings"

_STYLE = """
dl { grid-template-columns: fit-content(40%) 1fr; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: .6rem; }
.text { border: 1px solid var(--line); padding: .4rem .6rem; min-width: 0; }
.text b { display: block; font-size: .85rem; color: var(--soft); font-weight: normal; }
.text.chosen { border: 2px solid var(--loss); } .text.chosen b { color: var(--text); font-weight: bold; }
.said { white-space: pre-wrap; unicode-bidi: plaintext; } .question { background: var(--panel); margin-bottom: .6rem; }
article { margin-bottom: 1.6rem; }
"""


class Text(NamedTuple):
    """A text in its box.

    Attributes:
        name: who says it, and what is to be known of it.
        said: the text.
        is_chosen: whether it stands out; its name says why.
    """

    name: str
    said: str
    is_chosen: bool = False


class Comparison(NamedTuple):
    """A question, and what was answered to it.

    Attributes:
        title: which it is.
        question: what was asked.
        texts: the answers, side by side.
        notes: what is to be known of all of them, below.
    """

    title: str
    question: str
    texts: Sequence[Text]
    notes: Sequence[str] = ()


def page_of(
    title: str,
    command: str,
    facts: Iterable[tuple[str, str]],
    tables: Sequence[Table],
    part: str,
    comparisons: Sequence[Comparison],
) -> Iterator[str]:
    """Gives the page in pieces.

    Args:
        title: of the page.
        command: which writes it, such as `judge`.
        facts: names and values of what decided the numbers.
        tables: the numbers.
        part: the heading above the comparisons.
        comparisons: the questions with their answers; none: no such part.
    """
    yield from opening(title, command, _STYLE)
    yield contents([*(table.title for table in tables), SETTINGS, *([part] if comparisons else [])])
    yield "<main>\n"
    for table in tables:
        yield from table_part(table)
    yield heading(SETTINGS)
    yield from facts_list(facts)
    if comparisons:
        yield heading(part)
    for comparison in comparisons:
        yield from _comparison(comparison)
    yield "</main>\n</body>\n</html>\n"


def _comparison(comparison: Comparison) -> Iterator[str]:
    """Gives one question with its answers."""
    yield f"<article>\n<h3>{escape(comparison.title)}</h3>\n"
    yield f'<div class="text question"><b>question</b><div class="said">{escape(comparison.question)}</div></div>\n'
    yield '<div class="texts">\n'
    for text in comparison.texts:
        kind = "text chosen" if text.is_chosen else "text"
        yield f'<div class="{kind}"><b>{escape(text.name)}</b><div class="said">{escape(text.said)}</div></div>\n'
    yield "</div>\n"
    yield from (f'<p class="soft">{escape(note)}</p>\n' for note in comparison.notes)
    yield "</article>\n"
