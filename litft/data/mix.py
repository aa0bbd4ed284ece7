"""`litft prepare mix` and `join`: rows of prepared folders become one folder. What is done, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litft.config.mix import JoinConfig, MixConfig
from litft.config.parse import config_to_dict
from litft.data.filters import build_filters
from litft.data.filters.row import Filter
from litft.data.listing import table_lines
from litft.data.mixing.equal import EQUAL, leave_equal
from litft.data.mixing.order import order_of
from litft.data.mixing.parts import Part, Rows, all_rows, open_parts
from litft.data.mixing.removed import REMOVED_FILE, Removed
from litft.data.mixing.result import Mixed, write_mixed
from litft.data.mixing.scores import check_scores
from litft.data.mixing.shares import choose
from litft.data.mixing.sift import KEEP, NEAR, Sieve
from litft.data.overview import shares_of
from litft.data.paths import MODEL_PLACE
from litft.data.publish import refuse_taken
from litft.data.store import TEST_FILE, TRAIN_FILE
from litft.data.summary import next_steps
from litft.data.texts import find_tokenizer, require_tokenizer
from litft.errors import DataError
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]


def join(config: JoinConfig, report: Report = lambda message: None) -> Path:
    """Writes all rows of prepared folders as one folder, as they stand there; equal rows stand in it once.

    Args:
        config: which folders, and where to write.
        report: takes each message for the user.

    Raises:
        DataError: a folder is none of prepared data, or made with another tokenizer or prompt style.
    """
    return _mix(MixConfig(**vars(config), order="given"), report, keeps_names=True)


def mix(config: MixConfig, report: Report = lambda message: None) -> Path:
    """Writes chosen rows of prepared folders as one folder, in chosen shares and order.

    Of held-out rows only those leave that stand in a benchmark, so that losses of two mixes can be compared.

    Args:
        config: which folders, what is left out, how much of each is taken, in which order, and where to write.
        report: takes each message for the user.

    Returns:
        The folder.

    Raises:
        DataError: a folder is none of prepared data, or made with another tokenizer or prompt style; no row is left, or
            too few for the size asked for; the destination is taken; or a library that a filter needs is missing.
        ConfigError: a filter cannot be used as asked.
    """
    return _mix(config, report, keeps_names=False)


def _mix(config: MixConfig, report: Report, keeps_names: bool) -> Path:
    """Does so."""
    destination = _destination(config)
    parts = open_parts(config.data_dirs, keeps_names)
    check_scores(config, parts)
    filters = build_filters(config.filters)
    tokenizer = _tokenizer(config, parts, filters)
    removed = Removed(_reasons(config, filters))
    sieve = Sieve(config.filters, filters, tokenizer, removed)
    held_out, left = _sift(sieve, parts, removed)
    if not any(map(len, left)):
        raise DataError(_nothing_left(removed))
    chosen = choose(config, left)
    order = order_of(config.order, chosen, config.seed)
    mixed = Mixed(parts, held_out, left, chosen, order, removed, sieve.notes(), _settings(config))
    _tell(write_mixed(mixed, destination, tokenizer), destination, report)
    return destination


def _settings(config: MixConfig) -> dict[str, Any]:
    """Gives what was asked for of the rows: the same mix in another place has the same."""
    elsewhere = ("destination_path", "overwrite", "checkpoint_dir")
    return _given({key: value for key, value in config_to_dict(config).items() if key not in elsewhere})


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is not set."""
    opened = {key: _given(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in opened.items() if value not in (None, [], {})}


def _destination(config: MixConfig) -> Path:
    """Gives where the mix goes, which must not be taken."""
    destination = config.destination_path.expanduser()
    if destination.resolve() in [Path(name).expanduser().resolve() for name in config.data_dirs]:
        raise DataError(
            f"destination_path {destination} is one of data_dirs, which are only read; name another folder."
        )
    refuse_taken(destination, config.overwrite)
    return destination


def _tokenizer(config: MixConfig, parts: Sequence[Part], filters: Sequence[Filter]) -> Tokenizer | None:
    """Opens the tokenizer of the rows; None where it is not at hand and no filter reads a text."""
    reads_text = config.filters.near.threshold is not None or any(each.reads_text for each in filters)
    return (require_tokenizer if reads_text else find_tokenizer)(parts[0].train, config.checkpoint_dir)


def _sift(sieve: Sieve, parts: Sequence[Part], removed: Removed) -> tuple[list[Rows], list[Rows]]:
    """Gives the held-out rows and the training rows that stay."""
    held_out = [sieve.judge(rows) for rows in leave_equal(all_rows(parts, TEST_FILE), [], removed)]
    left = [sieve.judge(rows) for rows in leave_equal(all_rows(parts, TRAIN_FILE), held_out, removed)]
    return held_out, sieve.keep_best(sieve.leave_near(left, held_out))


def _reasons(config: MixConfig, filters: Sequence[Filter]) -> dict[str, list[str]]:
    """Gives, for each file, under what rows of it may have been left out, in the order in which that is decided."""
    last = {NEAR: config.filters.near.threshold, KEEP: config.filters.keep}
    asked = [name for name, value in last.items() if value is not None]
    return {
        TRAIN_FILE: [EQUAL, *(each.name for each in filters), *asked],
        TEST_FILE: [EQUAL, *(each.name for each in filters if each.for_held_out)],
    }


def _nothing_left(removed: Removed) -> str:
    """Says what took all the rows."""
    counts = dict.fromkeys(row.reason for row in removed.rows)
    said = ", ".join(f"{name} took {sum(row.reason == name for row in removed.rows):,}" for name in counts)
    return f"No training row is left: {said or 'there was none'}; ask for less, and nothing was written."


def _tell(manifest: dict[str, Any], destination: Path, report: Report) -> None:
    """Tells the user what became of the rows."""
    for table in shares_of(manifest):
        report(f"{table.title}\n{''.join(table_lines(table))}".rstrip())
    if (destination / REMOVED_FILE).exists():
        report(f"Each row that was left out, and why: {destination / REMOVED_FILE}")
    if TEST_FILE not in manifest["files"]:
        report(
            "WARNING: no row is held out, and a run needs some; prepare one of the folders with some, or filter less."
        )
        return
    order = "" if manifest["order"] == "shuffled" else " --train.shuffle false"
    report(next_steps(destination, manifest["files"], manifest.get(MODEL_PLACE, "CHECKPOINT")) + order)
