"""`litft inspect`: what prepared files hold, to be looked at before anything is trained. Writes nothing but a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from litft.checkpoint.disk import atomic_path
from litft.config.inspect import InspectConfig
from litft.config.io import load_yaml
from litft.data import overview
from litft.data.html import refuse_foreign
from litft.data.listing import iter_lines
from litft.data.page import COMMAND, page_of
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir
from litft.data.texts import find_tokenizer, model_advice, require_tokenizer, saved_style
from litft.data.view import ShownRow, View
from litft.errors import DataError
from litft.terminal.bars import tracked
from litft.text.frames import Frames
from litft.text.token_texts import TokenReader, TokenText
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]


def inspect(config: InspectConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Shows prepared data: as lines, or as a page in a file.

    Args:
        config: which data, which of its rows, and where to.
        report: takes what is not the answer itself.

    Returns:
        The lines; none where a page was written.

    Raises:
        DataError: the data is missing, unfinished or damaged, has no such rows, or was made with another tokenizer.
        CheckpointError, TokenizerError, ConfigError: the model, its tokenizer or the prompt style cannot be used.
    """
    if config.html is not None:
        refuse_foreign(config.html, COMMAND, "html")
    view = view_of(config, report)
    if config.html is None:
        return iter_lines(view, in_colour=_wants_colour())
    with atomic_path(config.html) as path:
        path.write_text(page_of(view), encoding="utf-8")
    report(f"{config.html}: {view.chosen}")
    return iter(())


def view_of(config: InspectConfig, report: Report = lambda message: None) -> View:
    """Gives all that is to be shown.

    Args:
        config, report: as `inspect` takes them.

    Raises:
        LitftError: as `inspect`.
    """
    folder = find_data_dir(config.data_dir)
    files = {name: PreparedData.load(folder / name) for name in (TRAIN_FILE, TEST_FILE) if (folder / name).is_file()}
    name = TRAIN_FILE if config.split == "train" else TEST_FILE
    if name not in files:
        raise DataError(f"{folder} has no {name}: no row was held out; leave --split away.")
    data = files[name]
    if not len(data):
        raise DataError(f"{data.path} holds no rows; prepare it again.")
    manifest = load_yaml(folder / MANIFEST_FILE) if (folder / MANIFEST_FILE).is_file() else {}
    mixture = overview.mixture_of(list(files.values()))
    tables = [overview.ledger_of(manifest), *overview.shares_of(manifest), mixture]
    step = overview.step_of(data, config) if name == TRAIN_FILE else None
    chosen, rows = _rows(config, data, report)
    lengths = overview.lengths_of(data)
    return View(str(data.path), overview.facts_of(data, manifest), tables, lengths, step, chosen, rows)


def _rows(config: InspectConfig, data: PreparedData, report: Report) -> tuple[str, list[ShownRow]]:
    """Gives the rows to be shown, and which they are in words."""
    is_asked = bool(config.example) or config.grep is not None or config.longest is not None
    tokenizer = (require_tokenizer if is_asked else find_tokenizer)(data, config.checkpoint_dir)
    if tokenizer is None:
        missing = f"The rows are not shown, as the tokenizer is not at hand; {model_advice(data)}."
        report(missing)
        return missing, []
    numbers, chosen = _choose(config, data, tokenizer)
    frames = Frames(tokenizer, saved_style(data))
    reader, names = TokenReader(tokenizer), overview.source_names(data)
    return chosen, [_shown(data, number, reader, frames, names) for number in numbers]


def _choose(config: InspectConfig, data: PreparedData, tokenizer: Tokenizer) -> tuple[list[int], str]:
    """Gives the numbers of the rows to be shown, and which they are in words."""
    count = len(data)
    for number in config.example:
        if not 0 <= number < count:
            raise DataError(f"--example {number}: {data.path} has {count:,} rows, numbered from 0 to {count - 1:,}.")
    if config.example:
        return list(config.example), f"{len(config.example)} of {count:,} rows"
    found = list(range(count)) if config.grep is None else _matching(config, data, tokenizer)
    what = "rows" if config.grep is None else f'rows that match "{config.grep}"'
    if config.longest is not None:
        longest = sorted(found, key=lambda number: -int(data.lengths[number]))[: config.longest]
        return longest, f"the {len(longest):,} longest of {len(found):,} {what}"
    shown = found[: config.limit]
    return shown, f"the first {len(shown):,} of {len(found):,} {what}"


def _matching(config: InspectConfig, data: PreparedData, tokenizer: Tokenizer) -> list[int]:
    """Gives the rows whose text, special tokens left out, matches."""
    pattern = config.pattern()
    assert pattern is not None
    numbers = tracked(range(len(data)), "searching", "rows", stays=False)
    found = [number for number in numbers if pattern.search(tokenizer.decode(data.row(number)[0].tolist()))]
    if not found:
        raise DataError(
            f'No row of {data.path} matches --grep "{config.grep}"; upper and lower case count, (?i) ignores them.'
        )
    return found


def _shown(data: PreparedData, number: int, reader: TokenReader, frames: Frames, names: Sequence[str]) -> ShownRow:
    """Gives one row token by token."""
    ids, mask = (part.tolist() for part in data.row(number))
    tokens = reader.read(ids)
    kinds, unknown = frames.name(tokens, mask)
    notes = []
    if ids and ids[-1] not in frames.ends:
        notes.append("cut, or never ended: its last token is none at which generation stops")
    if frames.is_known and unknown is not None and not _is_document(tokens, mask):
        notes.append(
            f"the frame of the prompt style was not found from position {unknown} on: all of it counts as prompt"
        )
    score = None if data.score is None else float(data.score[number])
    return ShownRow(number, names[int(data.source[number])], tokens, kinds, mask, notes, score)


def _is_document(tokens: Sequence[TokenText], mask: Sequence[bool]) -> bool:
    """Says whether a row looks like a text that nobody asked for, which has no frame: all of it is learned."""
    return all(mask[1:]) and not any(token.is_special for token in tokens[1:-1])


def _wants_colour() -> bool:
    """Says whether stdout is a terminal whose user has nothing against colours. Source: no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
