"""`litft prepare mix` and `join`: prepared folders become one, whole or in shares. Knows no text.

Shares are kept as far as rows allow: the mix is as large as the scarcest folder lets it be, and no row stands in it
more often than `repeats` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import atomic_path, sha256_file
from litft.config.io import dump_yaml, load_yaml
from litft.config.mix import JoinConfig, MixConfig
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir, save_prepared
from litft.data.vocabulary import TOKENIZER_DIR, publish_tokenizer
from litft.errors import DataError

Report = Callable[[str], None]

# What rows must share to be learned by one model in one way.
_SHARED = ("tokenizer", "prompt_style", "new_tokens")


@dataclass(frozen=True)
class Part:
    """One prepared folder.

    Attributes:
        name: as the user gave it.
        folder: where it lies.
        sources: what each of its sources is called in the mix.
        train, test: its rows; test is None where nothing was held out.
        manifest: what was said of it.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    train: PreparedData
    test: PreparedData | None
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows of one part, in their order; a row may stand here several times.

    Attributes:
        data: where they lie.
        sources: what each source of the data is called in the mix.
        numbers: which rows, int64 (n,).
    """

    data: PreparedData
    sources: tuple[str, ...]
    numbers: Tensor

    @property
    def target_tokens(self) -> int:
        """How many tokens of them carry loss."""
        return int(_targets(self.data)[self.numbers].sum())


def join(config: JoinConfig, report: Report = lambda message: None) -> Path:
    """Writes all rows of prepared folders as one folder; equal rows stand in it once.

    Args:
        config: which folders, and where to write.
        report: takes each message for the user.

    Raises:
        DataError: a folder is none of prepared data, or made with another tokenizer or prompt style.
    """
    return _mix(MixConfig(**vars(config), order="source"), report, is_whole=True)


def mix(config: MixConfig, report: Report = lambda message: None) -> Path:
    """Writes rows of prepared folders, in shares, as one folder. Held-out rows are taken whole.

    Args:
        config: which folders, how much of each, and where to write.
        report: takes each message for the user.

    Returns:
        The folder.

    Raises:
        DataError: a folder is none of prepared data, or made with another tokenizer or prompt style; there are too few
            rows for the size asked for; or the destination is taken.
    """
    return _mix(config, report, is_whole=False)


def _mix(config: MixConfig, report: Report, is_whole: bool) -> Path:
    """Does so; parts of one whole keep the names of their sources, others are called by their folders."""
    destination = config.destination_path.expanduser()
    if not config.overwrite and any((destination / name).exists() for name in (TRAIN_FILE, MANIFEST_FILE)):
        raise DataError(
            f"destination_path {destination} already holds prepared data; name another folder, or replace it with "
            "--overwrite true."
        )
    parts = [_open(name, is_whole) for name in config.data_dirs]
    _refuse_strangers(parts)
    held_out = _first_of_equals([Rows(part.test, part.sources, _all(part.test)) for part in parts if part.test], set())
    known = {digest for rows in held_out for digest in _digests(rows.data)}
    unique = _first_of_equals([Rows(part.train, part.sources, _all(part.train)) for part in parts], known)
    chosen = _choose(config, parts, unique)
    names = list(dict.fromkeys(name for part in parts for name in part.sources))
    files = {TRAIN_FILE: _gather(chosen, names, config)}
    if any(len(rows.numbers) for rows in held_out):
        files[TEST_FILE] = _gather(held_out, names)
    _write(destination, _meta(config, parts, names), files, parts, chosen)
    for part, rows, first in zip(parts, chosen, unique, strict=True):
        equal = len(part.train) - len(first.numbers)
        report(
            f"{part.name}: {len(rows.numbers):,} of {len(part.train):,} training rows, {rows.target_tokens:,} target "
            f"tokens{f'; {equal:,} equal to others, or held out, were left out' if equal else ''}"
        )
    order = "" if config.order == "shuffled" else " --train.shuffle false"
    report(f"Next: litft finetune lora --checkpoint_dir CHECKPOINT --data_dir {destination}{order}")
    return destination


def _open(name: str, is_whole: bool) -> Part:
    """Opens one folder."""
    folder = find_data_dir(Path(name))
    train = PreparedData.load(folder / TRAIN_FILE)
    if not train.meta:
        raise DataError(f"{folder} holds rows of Lit-GPT; `litft prepare tokenized` makes them ready to be mixed.")
    test = PreparedData.load(folder / TEST_FILE) if (folder / TEST_FILE).is_file() else None
    sources = tuple(train.meta["source_names"])
    if not is_whole:
        sources = (folder.name,) if len(sources) == 1 else tuple(f"{folder.name}/{source}" for source in sources)
    return Part(name, folder, sources, train, test, load_yaml(folder / MANIFEST_FILE))


def _all(data: PreparedData) -> Tensor:
    """Gives the numbers of all rows."""
    return torch.arange(len(data))


def _refuse_strangers(parts: Sequence[Part]) -> None:
    """Refuses folders whose rows do not belong to one model and one way to ask it."""
    first = parts[0]
    for part in parts[1:]:
        for field in _SHARED:
            ours, theirs = first.train.meta.get(field), part.train.meta.get(field)
            if ours != theirs:
                said = {"prompt_style": "prompt style", "new_tokens": "new tokens"}.get(field, field)
                raise DataError(
                    f"{part.name} was prepared with another {said} than {first.name}; prepare it again with the same."
                )


def _targets(data: PreparedData) -> Tensor:
    """Counts the tokens with loss of each row, (n,) int64."""
    sums = torch.cat([torch.zeros(1, dtype=torch.int64), data.target_mask.long().cumsum(0)])
    return sums[data.offsets[1:]] - sums[data.offsets[:-1]]


def _digests(data: PreparedData) -> list[bytes]:
    """Gives what tells each row from others: a hash of its ids and its mask."""
    ids, mask = data.input_ids.numpy(), data.target_mask.numpy()
    return [
        hashlib.blake2b(ids[begin:end].tobytes() + mask[begin:end].tobytes(), digest_size=16).digest()
        for begin, end in zip(data.offsets[:-1].tolist(), data.offsets[1:].tolist(), strict=True)
    ]


def _first_of_equals(parts: Sequence[Rows], known: set[bytes]) -> list[Rows]:
    """Gives, of rows that are equal in all parts, the first; and none that is known already."""
    seen = set(known)
    made = []
    for rows in parts:
        kept = []
        for number, digest in enumerate(_digests(rows.data)):
            if digest not in seen:
                kept.append(number)
                seen.add(digest)
        made.append(replace(rows, numbers=torch.tensor(kept, dtype=torch.int64)))
    return made


def _choose(config: MixConfig, parts: Sequence[Part], unique: Sequence[Rows]) -> list[Rows]:
    """Draws rows of each part, so many as its share asks for."""
    generator = torch.Generator().manual_seed(config.seed)
    most, repeats = config.max_rows or {}, config.repeats or {}
    drawn = []
    for part, rows in zip(parts, unique, strict=True):
        order = torch.randperm(len(rows.numbers), generator=generator)[: most.get(part.name)]
        drawn.append(replace(rows, numbers=rows.numbers[order]))
    room = [_size(config, rows) * repeats.get(part.name, 1) for part, rows in zip(parts, drawn, strict=True)]
    if config.weights is None:
        return [_repeated(rows, size, config) for rows, size in zip(drawn, room, strict=True)]
    shares = [config.weights[part.name] / sum(config.weights.values()) for part in parts]
    largest = min(size / share for size, share in zip(room, shares, strict=True))
    total = largest if config.total is None else config.total
    if total > largest:
        scarce = min(range(len(parts)), key=lambda index: room[index] / shares[index])
        raise DataError(
            f"total is {config.total}, but {parts[scarce].name} has {room[scarce]:,.0f} {config.by.replace('_', ' ')} "
            f"for a share of {shares[scarce]:.1%}, enough for {largest:,.0f}; lower total, or raise its --repeats."
        )
    return [_repeated(rows, total * share, config) for rows, share in zip(drawn, shares, strict=True)]


def _size(config: MixConfig, rows: Rows) -> int:
    """Gives how large rows are, in what the shares count."""
    return len(rows.numbers) if config.by == "examples" else rows.target_tokens


def _repeated(rows: Rows, size: float, config: MixConfig) -> Rows:
    """Takes rows from the first on, and again from the first, until they are as large as asked for."""
    whole = _size(config, rows)
    passes = int(size // whole) if whole else 0
    rest = round(size - passes * whole)
    if config.by == "examples":
        count = rest
    else:
        sums = _targets(rows.data)[rows.numbers].cumsum(0)
        count = int((sums <= rest).sum())
    return replace(rows, numbers=torch.cat([*[rows.numbers] * passes, rows.numbers[:count]]))


def _order(config: MixConfig, lengths: Tensor) -> Tensor:
    """Gives the order of rows that stand part by part, (n,) int64.

    Args:
        config: which order, and the seed.
        lengths: tokens of each row.
    """
    if config.order == "length":
        return lengths.argsort(stable=True)
    if config.order == "source":
        return torch.arange(len(lengths))
    return torch.randperm(len(lengths), generator=torch.Generator().manual_seed(config.seed))


def _gather(parts: Sequence[Rows], names: Sequence[str], config: MixConfig | None = None) -> dict[str, Tensor]:
    """Gives rows as the tensors of `save_prepared`, in the order of the config, without one part by part."""
    lengths = torch.cat([rows.data.lengths[rows.numbers] for rows in parts])
    order = torch.arange(len(lengths)) if config is None else _order(config, lengths)
    entries = [(rows.data, number) for rows in parts for number in rows.numbers.tolist()]
    pairs = [data.row(number) for data, number in (entries[index] for index in order.tolist())]
    places = [torch.tensor([names.index(name) for name in rows.sources]) for rows in parts]
    sources = [place[rows.data.source.long()][rows.numbers] for place, rows in zip(places, parts, strict=True)]
    return {
        "input_ids": torch.cat([ids for ids, _ in pairs]),
        "target_mask": torch.cat([mask for _, mask in pairs]),
        "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths[order]]).cumsum(0),
        "source": torch.cat(sources)[order],
    }


def _meta(config: MixConfig, parts: Sequence[Part], names: list[str]) -> dict[str, Any]:
    """Gives what a finetuning must know of the mix."""
    trained = {part.train.meta["train_on"] for part in parts}
    return {
        **parts[0].train.meta,
        "dataset": "mix",
        "source_names": names,
        "max_seq_length": max(part.train.meta["max_seq_length"] for part in parts),
        "train_on": trained.pop() if len(trained) == 1 else "as each source",
        "seed": config.seed,
        "order": config.order,
    }


def _write(
    destination: Path,
    meta: dict[str, Any],
    files: dict[str, dict[str, Tensor]],
    parts: Sequence[Part],
    chosen: Sequence[Rows],
) -> None:
    """Writes the folder. The old manifest goes first, the new one comes last."""
    described: dict[str, Any] = {}
    try:
        destination.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST_FILE, TEST_FILE):
            (destination / name).unlink(missing_ok=True)
        for name, tensors in files.items():
            with atomic_path(destination / name) as path:
                save_prepared(path, **tensors, meta=meta)
            digest = sha256_file(destination / name)
            described[name] = {"rows": len(tensors["source"]), "tokens": len(tensors["input_ids"]), "sha256": digest}
        tokenizer = parts[0].folder / TOKENIZER_DIR
        publish_tokenizer(tokenizer if tokenizer.is_dir() else None, destination)
        manifest = {
            **meta,
            "parts": [_account(part, rows) for part, rows in zip(parts, chosen, strict=True)],
            "sources": {part.name: part.manifest["sources"] for part in parts},
            "files": described,
        }
        with atomic_path(destination / MANIFEST_FILE) as path:
            path.write_text(dump_yaml(manifest), encoding="utf-8")
    except OSError as error:
        raise DataError(f"Cannot write to destination_path {destination}: {error.strerror}.") from error


def _account(part: Part, rows: Rows) -> dict[str, Any]:
    """Says what was taken of a part."""
    return {
        "data_dir": part.name,
        "sha256": part.manifest["files"][TRAIN_FILE]["sha256"],
        "rows": len(part.train),
        "rows_taken": len(rows.numbers),
        "rows_different": len(set(rows.numbers.tolist())),
        "target_tokens_taken": rows.target_tokens,
    }
