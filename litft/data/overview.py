"""What prepared data is as a whole: its settings, its ledger, its mixture, its lengths, and one step of a run on it.

All of it comes from the files; the ledger from manifest.yaml, the counts from the rows. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from litft.config.inspect import InspectConfig
from litft.config.optim import OptimConfig
from litft.config.plan import build_plan
from litft.config.train import EvalConfig
from litft.data.batches import IGNORE, MicroBatch, build_batching, iter_micro_batches, rows_of_window, rows_within
from litft.data.ledger import LENGTH_BINS
from litft.data.store import TEST_FILE, PreparedData
from litft.data.view import ShownBatch, ShownStep, Stretch, Table
from litft.errors import DataError

_UNNAMED = "rows"  # the one source of files that name none


def facts_of(data: PreparedData, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Gives what decided the ids.

    Args:
        data: the file.
        manifest: of its folder; empty where there is none.
    """
    if not data.meta:
        return [("written by", "Lit-GPT, which names no prompt style: template is not told from prompt")]
    told = {**manifest, **data.meta}
    style, tokenizer = told.get("prompt_style"), told.get("tokenizer")
    facts = {name: told.get(name) for name in ("dataset", "checkpoint")}
    facts["prompt_style"] = style.get("name") if isinstance(style, dict) else None
    facts |= {name: told.get(name) for name in ("train_on", "max_seq_length", "too_long", "order", "seed")}
    facts["tokenizer"] = tokenizer.get("class") if isinstance(tokenizer, dict) else None
    facts["option_orders"] = told.get("option_orders") or None
    facts["paraphrases"] = " | ".join(told.get("paraphrases") or ()) or None
    named = [(name.replace("_", " "), str(value)) for name, value in facts.items() if value is not None]
    return [*named, *_score_facts(data)]


def _score_facts(data: PreparedData) -> list[tuple[str, str]]:
    """Gives what the scores of a file are, and how they lie; nothing where it has none."""
    if data.score is None:
        return []
    how = data.meta.get("score", {})
    kind = str(how.get("kind", "of a kind that the file does not name"))
    known = data.score[~data.score.isnan()].double()
    without = f"{len(data) - len(known):,} rows without"
    if len(known):
        # Between neighbours, as torch.quantile has it, which takes no more than 16 million numbers.
        ordered, places = known.sort().values, torch.linspace(0, len(known) - 1, 5, dtype=torch.float64)
        between = ordered[places.floor().long()].lerp(ordered[places.ceil().long()], places.frac())
        low, *quartiles, high = (f"{value:.3f}" for value in between.tolist())
        without = f"min {low}, quartiles {' '.join(quartiles)}, max {high}; {without}"
    return [("score", f"{kind}: {how['meaning']}" if "meaning" in how else kind), ("scores", without)]


def source_names(data: PreparedData) -> list[str]:
    """Gives the names of a file's sources."""
    return [str(name) for name in data.meta.get("source_names", [_UNNAMED])]


def ledger_of(manifest: Mapping[str, Any]) -> Table:
    """Gives the ledgers of a manifest, a column for each source, and what they say in words."""
    ledgers = dict(_ledgers(manifest.get("sources")))
    if not ledgers:
        return Table("Ledger", ("",), [], ("There is none: what became of the rows that were read is not known.",))
    names = dict.fromkeys(name for ledger in ledgers.values() for name, value in ledger.items() if _is_number(value))
    rows = [(name.replace("_", " "), *(_number(ledger.get(name)) for ledger in ledgers.values())) for name in names]
    notes = [
        f"{source}: {name.replace('_', ' ')}: {text}"
        for source, ledger in ledgers.items()
        for name, value in ledger.items()
        if (text := _in_words(name, value))
    ]
    cut = sum(int(ledger.get("rows_cut_prompt") or 0) for ledger in ledgers.values())
    if cut:
        notes.append(f"rows cut prompt: the files do not say which {cut:,} lost the beginning of what they are about")
    return Table("Ledger", ("", *ledgers), rows, (*notes, *_notes_of_join(manifest)))


def _notes_of_join(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Says why the columns of shards do not add up to the joined rows."""
    equal = manifest.get("rows_equal_across_shards")
    if isinstance(equal, int):
        held_out = manifest.get("files", {}).get(TEST_FILE, {}).get("rows", 0)
        yield (
            f"each column is a shard before it was joined. The join left out {equal:,} rows equal to rows of other "
            f"shards and held out {held_out:,}; the mixture counts what there is now"
        )


def _ledgers(sources: object, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives the ledger of each source; those of a mix lie below the folders that it was made of."""
    for name, values in sources.items() if isinstance(sources, dict) else ():
        if isinstance(values, dict) and "rows_read" in values:
            yield f"{prefix}{name}", values
        else:
            yield from _ledgers(values, f"{prefix}{name}/")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> str:
    """Writes a count, or a share in percent."""
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else "-"


def _in_words(name: str, value: object) -> str:
    """Writes what is no number of a ledger; nothing for what says nothing, or is too long to be read."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and all(isinstance(count, int) for count in value.values()):
        return ", ".join(f"{key}: {count:,}" for key, count in value.items())
    is_shown = isinstance(value, list) and name not in ("lengths", "files", "rejected")
    return ", ".join(map(str, value)) if is_shown and isinstance(value, list) else ""


def shares_of(manifest: Mapping[str, Any]) -> list[Table]:
    """Gives what a mix left out and took of each folder, a column for each; nothing for data that is no mix."""
    parts = [part for part in manifest.get("parts") or () if isinstance(part, dict)]
    if not parts:
        return []
    columns = [_counts_of(part) for part in parts]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [(name.replace("_", " "), *(_number(column.get(name)) for column in columns)) for name in names]
    notes = manifest.get("notes") or {}
    told = tuple(f"{note}: {_number(count)}" for note, count in notes.items()) if isinstance(notes, dict) else ()
    return [Table("Parts of the mix", ("", *(str(part.get("data_dir")) for part in parts)), rows, told)]


def _counts_of(part: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Gives the counts of one part under one name each, what was left out by its reasons."""
    counts: dict[str, int] = {}
    for name, value in part.items():
        if isinstance(value, dict):
            inner = "left out by " if name == "removed" else f"{name}, "
            counts |= _counts_of(value, prefix + inner)
        elif isinstance(value, int):
            counts[prefix + name] = value
    return counts


def mixture_of(files: Sequence[PreparedData]) -> Table:
    """Gives the shares of each source in each file, by rows and by tokens with loss."""
    rows: list[tuple[str, ...]] = []
    for data in files:
        lengths, targets = data.lengths, data.target_counts
        for index, name in enumerate(source_names(data)):
            of = data.source == index
            tokens, learned = int(lengths[of].sum()), int(targets[of].sum())
            share, learned_share = int(of.sum()) / max(len(data), 1), learned / max(int(targets.sum()), 1)
            cells = (f"{int(of.sum()):,}", f"{share:.1%}", f"{tokens:,}", f"{learned:,}", f"{learned_share:.1%}")
            rows.append((f"{data.path.name} {name}", *cells))
    return Table("Mixture", ("file, source", "rows", "share", "tokens", "with loss", "share of loss"), rows)


def lengths_of(data: PreparedData) -> list[tuple[str, int]]:
    """Counts the rows by their length, in equal steps up to the longest."""
    longest = int(data.lengths.max())
    width = -(-longest // LENGTH_BINS)
    counts = torch.bincount((data.lengths.clamp(min=1) - 1) // width).tolist()
    starts = range(0, longest, width)
    return [
        (f"{start + 1:,}-{min(start + width, longest):,}", count) for start, count in zip(starts, counts, strict=True)
    ]


def step_of(data: PreparedData, config: InspectConfig) -> ShownStep:
    """Gives the micro-batches of one optimizer step, as the loop makes them.

    Args:
        data: the training rows.
        config: which step, and the batches of the run.

    Raises:
        DataError: no row is short enough.
    """
    rows = rows_within(data, config.max_seq_length)
    if not len(rows):
        raise DataError(f"{data.path} has no row of at most {config.max_seq_length} tokens (max_seq_length); raise it.")
    plan = build_plan(len(rows), config.train_config(), OptimConfig(), EvalConfig())
    window = plan.window(config.step)
    chosen = rows_of_window(rows, window, config.seed if config.shuffle else None)
    batching = build_batching(config.train_config(), data)
    batches = list(iter_micro_batches(data, chosen, batching))
    room = f"{batching.tokens:,} tokens" if batching.packed else f"{plan.micro_batch_size:,}"
    learned = sum(batch.target_tokens for batch in batches)
    tokens, padding = sum(batch.tokens for batch in batches), sum(batch.padding_tokens for batch in batches)
    summary = (
        f"step {config.step:,}, counted from 0, in epoch {window.epoch + 1:,} of {plan.steps_per_epoch:,} steps each: "
        f"{len(chosen):,} rows in {len(batches):,} micro-batches of up to {room}; "
        f"{tokens:,} tokens, {learned:,} of them with loss; {padding:,} positions of padding "
        f"({padding / (tokens + padding):.1%})"
    )
    return ShownStep(summary, [_shown(batch) for batch in batches])


def _shown(batch: MicroBatch) -> ShownBatch:
    """Gives what stands at the positions of a micro-batch."""
    rows = []
    for row, targets in zip(batch.rows, batch.of_rows(batch.targets), strict=True):
        values, counts = torch.unique_consecutive(targets != IGNORE, return_counts=True)
        rows.append((row, [Stretch(*pair) for pair in zip(counts.tolist(), values.tolist(), strict=True)]))
    return ShownBatch(batch.input_ids.shape[1], batch.packed, rows)
