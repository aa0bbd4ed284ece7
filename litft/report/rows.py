"""Which training rows a run found hardest, which it never learned, and what stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median, quantiles

from litft.data.store import TRAIN_FILE, PreparedData, find_data_dir
from litft.data.texts import TextReader, find_tokenizer
from litft.errors import LitftError
from litft.report.answers import cut
from litft.report.read import RowLoss, RunFolder

SHOWN = 10
SPIKES = 10
LONGEST = 800  # characters of a question or an answer
LEARNED = 0.1  # nats per target token: each is foreseen at 90%, on average; below it losses only waver
HINT = 90  # of the question, on the line that is always seen


@dataclass(frozen=True)
class Texts:
    """What rows say, as far as their file and its tokenizer are at hand.

    Attributes:
        texts: row -> what was asked and what was answered.
        note: why there are none; empty where there are.
    """

    texts: dict[int, tuple[str, str]]
    note: str = ""


def data_of(run: RunFolder) -> PreparedData:
    """Opens the training file of a run; rows of it are read only when asked for.

    Raises:
        DataError: it is not there, or damaged.
    """
    return PreparedData.load(find_data_dir(Path(str(run.settings.get("data_dir")))) / TRAIN_FILE)


def hardest(run: RunFolder) -> list[RowLoss]:
    """Gives the rows with the highest last loss."""
    return sorted(run.rows, key=lambda row: -row.last)[:SHOWN]


def seen_again(run: RunFolder) -> list[RowLoss]:
    """Gives the rows that were computed more than once; two losses of a row are never equal to six digits."""
    return [row for row in run.rows if row.first != row.last]


def never_learned(run: RunFolder) -> list[RowLoss]:
    """Gives the rows whose last loss is not below their first, the highest loss first; but those that are known."""
    return sorted((row for row in seen_again(run) if row.last >= max(row.first, LEARNED)), key=lambda row: -row.last)


def read_texts(run: RunFolder, rows: Sequence[RowLoss]) -> Texts:
    """Gives what these rows say, if the training file is still the one that was trained on."""
    if not rows:
        return Texts({})
    try:
        data = data_of(run)
        if any(row.row >= len(data) or int(data.target_counts[row.row]) != row.target_tokens for row in rows):
            return Texts({}, f"{data.path} is no longer what was trained on, so the texts of its rows are not shown.")
        final = run.path / "final"
        tokenizer = find_tokenizer(data, final if final.is_dir() else None)
        if tokenizer is None:
            tokenizer = find_tokenizer(data, Path(str(run.settings.get("checkpoint_dir"))))
        assert tokenizer is not None  # one that was named is there, or said what is wrong
        reader = TextReader(data, tokenizer)
        told = {row.row: reader.read(row.row) for row in rows}
    except LitftError as error:
        return Texts({}, f"The texts of the rows are not shown: {error}")
    return Texts({row: (cut(text.asked, LONGEST), cut(text.answered, LONGEST)) for row, text in told.items()})


def rows_part(run: RunFolder, level: int) -> Iterator[str]:
    """Gives the rows that stand out.

    Args:
        run: whose they are.
        level: of the headings.
    """
    if not run.rows:
        yield '<p class="soft">Not known: row_losses.csv is written at the end of a run.</p>\n'
        yield from _spikes(run, level)
        return
    worst, unlearned, again = hardest(run), never_learned(run), seen_again(run)
    texts = read_texts(run, [*worst, *unlearned[:SHOWN]])
    yield f"<p>{_in_words(run)}</p>\n"
    if texts.note:
        yield f'<p class="soft">{escape(texts.note)}</p>\n'
    yield f"<h{level}>Highest loss</h{level}>\n"
    yield from _rows(worst, texts)
    yield f"<h{level}>Never learned</h{level}>\n"
    if not again:
        yield '<p class="soft">Each row was computed once; a second epoch would tell.</p>\n'
    else:
        count = f"{len(unlearned):,} of {len(again):,} rows that were computed more than once"
        yield f"<p>{count} ({len(unlearned) / len(again):.1%}) ended with no lower loss than they began with. "
        yield f"Those that ended below {LEARNED} count as learned.</p>\n"
        yield from _rows(unlearned[:SHOWN], texts)
    yield from _spikes(run, level)


def _in_words(run: RunFolder) -> str:
    """Says how the losses of rows lie."""
    first, last = ([getattr(row, name) for row in run.rows] for name in ("first", "last"))
    if len(last) < 2:
        return f"One row was computed; its last loss was {last[0]:.4g}."
    return (
        f"{len(last):,} rows; their loss had a median of {median(first):.4g} when each was first computed and "
        f"{median(last):.4g} when last, and nine of ten then lay below {quantiles(last, n=10)[-1]:.4g}. "
        "Losses are those of training, in nats per target token."
    )


def _rows(rows: Sequence[RowLoss], texts: Texts) -> Iterator[str]:
    """Gives rows, each to be opened where its text is known."""
    for row in rows:
        source = f" of {escape(row.source)}" if row.source else ""
        numbers = f"<b>{row.last:.4g}</b> at step {row.last_step:,}, {row.first:.4g} at first"
        told = f"row {row.row:,}{source}: {numbers}, {row.target_tokens:,} targets"
        if row.row not in texts.texts:
            yield f'<p class="row-line">{told}</p>\n'
            continue
        asked, answered = texts.texts[row.row]
        hint = " ".join(asked.split())[:HINT]
        yield f'<details class="row-line"><summary>{told} <span class="soft">{escape(hint)}</span></summary>\n'
        yield f'<div class="texts"><div class="text asked"><b>asked</b><div class="said">{escape(asked)}</div></div>'
        yield f'<div class="text"><b>answered</b><div class="said">{escape(answered)}</div></div></div></details>\n'


def _spikes(run: RunFolder, level: int) -> Iterator[str]:
    """Gives the steps whose loss jumped; nothing where none did."""
    if not run.spikes:
        return
    yield f"<h{level}>Losses that jumped</h{level}>\n"
    highest = sorted(run.spikes, key=lambda spike: -float(spike.get("loss") or 0))[:SPIKES]
    if len(highest) < len(run.spikes):
        yield f'<p class="soft">The {len(highest)} highest of {len(run.spikes):,}; all are in spikes.jsonl.</p>\n'
    for spike in sorted(highest, key=lambda spike: int(spike.get("step") or 0)):
        rows = [row for row in spike.get("rows") or () if isinstance(row, dict)][:3]
        named = ", ".join(f"{row.get('row')} ({float(row.get('loss') or 0):.2f})" for row in rows)
        loss, usual = (float(spike.get(name) or 0) for name in ("loss", "median"))
        told = f"step {spike.get('step')}: {loss:.4f}, from a median of {usual:.4f}; most by the rows {named}"
        yield f'<p class="row-line">{escape(told)}</p>\n'
