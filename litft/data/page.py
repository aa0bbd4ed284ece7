"""What `litft inspect` writes as a page: one file of HTML that asks for nothing else, without scripts. Knows no files.

What a token is stands beside it in words and in the line below it, not in its colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import dropwhile

from litft.data.html import contents, facts_list, heading, opening, table_part
from litft.data.view import LENGTHS, ROWS, SETTINGS, STEP, Run, ShownBatch, ShownRow, ShownStep, View, visible
from litft.text.frames import ANSWER, END, KINDS, PROMPT, TARGET, TEMPLATE
from litft.text.token_texts import TokenText

COMMAND = "inspect"

_MEANINGS = {
    TEMPLATE: "the frame that the prompt style writes",
    PROMPT: "what a person asks, or a system text says",
    ANSWER: "an answer without loss",
    TARGET: "an answer with loss",
    END: "the token that ends an answer",
}

_STYLE = """
.bars { display: grid; grid-template-columns: max-content max-content 1fr; gap: .1rem .7rem; align-items: center;
  font-variant-numeric: tabular-nums; margin: 0; padding: 0; list-style: none; }
.bars li { display: contents; } .bars span { text-align: right; }
.bar { height: .8rem; background: var(--bar); min-width: 0; }
.track { display: flex; height: .9rem; border: 1px solid var(--line); min-width: 6rem; }
.track i { background: var(--read); } .track i.loss { background: var(--loss); } .track i.others { background: none; }
.track i.padding { background: repeating-linear-gradient(45deg, var(--line) 0 1px, transparent 1px 5px); }
.key { display: inline-block; width: 1.5rem; height: .8rem; vertical-align: middle; border: 1px solid var(--line); }
.key.track { display: inline-flex; min-width: 0; } .key i { flex: 1; }
.legend { list-style: none; margin: .5rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
.run { display: grid; grid-template-columns: 8.5rem 1fr; gap: 0 .8rem; padding: .3rem .5rem;
  border-top: 1px solid var(--line); }
.row { border: 1px solid var(--line); border-top: 0; margin: 0; }
.name { font-size: .85rem; color: var(--soft); } .name b { color: var(--text); display: block; }
.tokens { font-family: ui-monospace, monospace; font-size: .9rem; line-height: 1.9; white-space: pre-wrap; }
.t { unicode-bidi: isolate; padding: .1rem 0; margin-right: 2px; border-bottom: 2px solid var(--line); }
.template .t { background: var(--template); border-bottom-style: dotted; border-color: var(--edge); }
.prompt .t { background: var(--prompt); }
.answer .t { background: var(--answer); border-bottom-style: dashed; border-color: var(--edge); }
.target .t { background: var(--target); border-color: var(--loss); }
.end .t { background: var(--end); border-bottom: 2px double var(--edge); }
.t.special { border: 1px solid var(--edge); border-radius: .3rem; padding: 0 .25rem; font-weight: bold; }
.t small { display: none; unicode-bidi: isolate; color: var(--soft); font-size: .7rem; padding-left: .2rem; }
main:has(#numbers:checked) small { display: inline; }
#numbers { width: 1.1rem; height: 1.1rem; vertical-align: text-bottom; }
.note { border-left: 4px solid var(--edge); padding-left: .6rem; }
@media (max-width: 40rem) { .run { grid-template-columns: 1fr; } .name b { display: inline; margin-right: .4rem; } }
"""


def page_of(view: View) -> str:
    """Gives the page.

    Args:
        view: what to show; all texts in it are escaped.
    """
    return "".join(_page(view))


def _page(view: View) -> Iterator[str]:
    """Gives the page in pieces."""
    yield from opening(view.title, COMMAND, _STYLE)
    yield contents(_headings(view))
    yield '<main>\n<input type="checkbox" id="numbers"> '
    yield f'<label for="numbers">show position and id of each token</label>\n{heading(SETTINGS)}'
    yield from facts_list(view.facts)
    for table in view.tables:
        yield from table_part(table)
    yield from _lengths(view.lengths)
    if view.step is not None:
        yield from _step(view.step)
    yield f"{heading(ROWS)}<p>{escape(view.chosen)}</p>\n"
    if view.rows:
        yield from _legend()
    for row in view.rows:
        yield from _row(row)
    yield "</main>\n</body>\n</html>\n"


def _headings(view: View) -> list[str]:
    """Gives the parts of the page in their order."""
    return [SETTINGS, *(table.title for table in view.tables), LENGTHS, *([STEP] if view.step else []), ROWS]


def _lengths(lengths: list[tuple[str, int]]) -> Iterator[str]:
    """Gives the histogram, each bar with its number."""
    highest = max(count for _, count in lengths)
    yield f'{heading(LENGTHS)}<ul class="bars">\n'
    for name, count in dropwhile(lambda pair: not pair[1], lengths):
        bar = f'<div class="bar" style="width: {100 * count / highest:.1f}%"></div>'
        yield f"<li><span>{name}</span><span>{count:,}</span>{bar}</li>\n"
    yield "</ul>\n"


def _step(step: ShownStep) -> Iterator[str]:
    """Gives the micro-batches of a step; a row's bar is as long as its batch is wide."""
    widest = max(batch.width for batch in step.batches)
    yield f"{heading(STEP)}<p>{escape(step.summary)}</p>\n"
    yield '<p class="soft">Positions count from 0 in each row. <span class="key track"><i></i></span> read, '
    yield '<span class="key track"><i class="loss"></i></span> predicts a token with loss, '
    yield '<span class="key track"><i class="padding"></i></span> padding; empty: other rows of the same line, which '
    yield "a row does not see</p>\n"
    for number, batch in enumerate(step.batches):
        size = f"{len(batch.rows)} rows in {batch.width:,}" if batch.packed else f"{len(batch.rows)} x {batch.width:,}"
        yield f"<h3>micro-batch {number}: {size}</h3>\n"
        yield from _batch(batch, widest)


def _batch(batch: ShownBatch, widest: int) -> Iterator[str]:
    """Gives the rows of a micro-batch."""
    yield '<ul class="bars">\n'
    for number, start, length, stretches in batch.placed():
        parts = [(stretch.length, "loss" if stretch.is_learned else "read") for stretch in stretches]
        learned, rest = sum(count for count, kind in parts if kind == "loss"), batch.width - start - length
        parts = [(start, "others"), *parts, (rest, "others" if batch.packed else "padding")]
        bar = "".join(f'<i class="{kind}" style="flex: {count} 0 0"></i>' for count, kind in parts if count)
        where = f"from {start:,} on" if batch.packed else f"{rest:,} of padding"
        said = f"{length:,} positions, {learned:,} with loss, {where}"
        yield f"<li><span>row {number:,}</span><span>0-{length - 1:,}</span>"
        yield f'<div class="track" role="img" aria-label="{said}" title="{said}" '
        yield f'style="width: {100 * batch.width / widest:.1f}%">{bar}</div></li>\n'
    yield "</ul>\n"


def _legend() -> Iterator[str]:
    """Says what the kinds of tokens look like."""
    yield '<ul class="legend">\n'
    for kind in KINDS:
        yield f'<li><span class="{kind}"><span class="t">{kind}</span></span> {_MEANINGS[kind]}</li>\n'
    yield '<li><span class="t special">special</span> a special token</li>\n</ul>\n'
    yield '<p class="soft">Each underlined piece is one token; \u21b5 is a line end, \u2026 a character that goes on '
    yield "in the next token.</p>\n"


def _row(row: ShownRow) -> Iterator[str]:
    """Gives one row token by token."""
    yield f"<h3>{escape(row.summary)}</h3>\n"
    yield from (f'<p class="note">{escape(note)}</p>\n' for note in row.notes)
    yield '<div class="row">\n'
    for run in row.runs():
        yield from _run(run)
    yield "</div>\n"


def _run(run: Run) -> Iterator[str]:
    """Gives tokens of one kind, with their name and positions beside them."""
    last = run.begin + len(run.tokens) - 1
    where = f"{run.begin}" if last == run.begin else f"{run.begin}-{last}"
    loss = "loss" if run.is_learned else "no loss"
    yield f'<div class="run {run.kind}"><div class="name"><b>{run.kind}</b> {where}, {loss}</div><div class="tokens">'
    yield from (_token(position, token) for position, token in enumerate(run.tokens, start=run.begin))
    yield "</div></div>\n"


def _token(position: int, token: TokenText) -> str:
    """Gives one token; a line may end behind it, and does where its text has a line end."""
    kind = "t special" if token.is_special else "t"
    numbers = f"{position}:{token.number}"
    end = "\n" if token.text.endswith("\n") else "<wbr>"
    return f'<span class="{kind}" title="{numbers}">{escape(visible(token))}<small>{numbers}</small></span>{end}'
