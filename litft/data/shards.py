"""Large datasets in shards: each is prepared by itself, and joined they are the preparation of the whole. No text here.

A shard holds nothing out. Rows are held out when all shards are there, by what they are, so that the same rows are
chosen as in a preparation of the whole.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from litft.config.io import dump_yaml, load_yaml
from litft.config.mix import JoinConfig
from litft.config.prepare import Preparations
from litft.data import mix
from litft.data.kept import Kept
from litft.data.paths import MODEL_PLACE
from litft.data.prepare import destination_of, files_of, gathering_of, prepare, settings_of, settle
from litft.data.publish import damaged_file, publish, refuse_taken
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir
from litft.data.summary import next_steps
from litft.data.vocabulary import TOKENIZER_DIR
from litft.errors import DataError

Report = Callable[[str], None]

Shard = tuple[Path, dict[str, Any]]  # its folder and its manifest

# What a manifest says of one shard alone.
_OWN = ("shard", "sources", "files")


def prepare_missing(dataset: str, config: Preparations, report: Report = lambda message: None) -> None:
    """Makes prepared data out of a dataset; a shard that is whole already is left as it is.

    Args:
        dataset, config, report: as `prepare` takes them.

    Raises:
        DataError, CheckpointError, TokenizerError, ConfigError: as `prepare`.
    """
    if config.part and not config.overwrite and _is_whole(dataset, config):
        report(f"shard {config.shard} of {dataset} is whole already: {destination_of(dataset, config)}")
    else:
        prepare(dataset, config, report)


def _is_whole(dataset: str, config: Preparations) -> bool:
    """Says whether a shard was prepared with the same settings from the same files, and is undamaged."""
    folder = destination_of(dataset, config)
    if not (folder / MANIFEST_FILE).is_file():
        return False
    manifest = load_yaml(folder / MANIFEST_FILE)
    if not manifest.get("files"):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        setting = settle(dataset, replace(config, overwrite=True), Path(scratch))
        asked = {**settings_of(setting), **files_of(gathering_of(setting))}
    told = {**manifest, **manifest.get("sources", {}).get(dataset, {})}
    is_same = dump_yaml(asked) == dump_yaml({key: told.get(key) for key in asked})
    return is_same and damaged_file(folder, manifest["files"]) is None


def join(config: JoinConfig, report: Report = lambda message: None) -> Path:
    """Writes all rows of prepared folders as one folder; equal rows stand in it once.

    Shards become what a preparation of the whole would have been: the same rows for training, the same held out.

    Args:
        config: which folders, and where to write.
        report: takes each message for the user.

    Returns:
        The folder.

    Raises:
        DataError: a folder is none of prepared data, or made in another way than the first; a shard is missing; or the
            destination is taken.
    """
    folders = [find_data_dir(Path(name)) for name in config.data_dirs]
    found = [(folder, _manifest(folder)) for folder in folders]
    if not all("shard" in manifest for _, manifest in found):
        return mix.join(config, report)
    shards = sorted(found, key=lambda pair: int(pair[1]["shard"].partition("/")[0]))
    _refuse_strangers(shards)
    _refuse_missing([manifest["shard"] for _, manifest in shards])
    destination = config.destination_path.expanduser()
    refuse_taken(destination, config.overwrite)
    if destination.resolve() in [folder.resolve() for folder in folders]:
        raise DataError(f"destination_path {destination} is one of the shards; name another folder.")
    _join(shards, destination, report)
    return destination


def _manifest(folder: Path) -> dict[str, Any]:
    """Gives what is said of prepared data; nothing of Lit-GPT's."""
    return load_yaml(folder / MANIFEST_FILE) if (folder / MANIFEST_FILE).is_file() else {}


def _refuse_strangers(shards: Sequence[Shard]) -> None:
    """Refuses shards that were made in different ways or of different files."""
    first, manifest = shards[0]
    wanted = _shared(manifest)
    for folder, other in shards[1:]:
        given = _shared(other)
        differing = next((key for key in wanted | given if wanted.get(key) != given.get(key)), None)
        if differing is not None:
            raise DataError(
                f"{folder} was prepared with another {differing} than {first}, so they are not shards of one whole; "
                "prepare it again with the same."
            )


def _shared(manifest: dict[str, Any]) -> dict[str, Any]:
    """Gives what all shards of a preparation have in common."""
    settings = {key: value for key, value in manifest.items() if key not in (*_OWN, MODEL_PLACE)}
    [source] = manifest["sources"].values()
    return {**settings, **{key: source[key] for key in ("files", "options", "revision")}}


def _refuse_missing(given: Sequence[str]) -> None:
    """Refuses to call some shards the whole."""
    count = int(given[0].partition("/")[2])
    missing = [shard for shard in (f"{number}/{count}" for number in range(1, count + 1)) if shard not in given]
    if missing or len(given) > count:
        what = f"lacks the shard {', '.join(missing)}" if missing else "names a shard twice"
        raise DataError(f"data_dirs {what}; name each of the {count} once.")


def _join(shards: Sequence[Shard], destination: Path, report: Report) -> None:
    """Takes the rows together, holds some out, and writes."""
    kept, manifest = Kept(), shards[0][1]
    read = 0
    for folder, _ in shards:
        data = PreparedData.load(folder / TRAIN_FILE)
        read += len(data)
        for number, (ids, mask) in enumerate(map(data.row, range(len(data)))):
            draw = None if data.draw is None else data.draw[number].numpy().tobytes()
            score = math.nan if data.score is None else float(data.score[number])
            kept.take(ids.numpy().tobytes(), mask.numpy().tobytes(), draw, score)
    equal = read - len(kept)
    train, test = kept.split(manifest["test_split_fraction"], manifest["seed"])
    parts = {name: part for name, part in ((TRAIN_FILE, train), (TEST_FILE, test)) if len(part["source"])}
    described = {
        **{key: value for key, value in manifest.items() if key not in _OWN},
        "rows_equal_across_shards": equal,
        "sources": {f"shard {other['shard']}": other["sources"] for _, other in shards},
    }
    tokenizer = shards[0][0] / TOKENIZER_DIR
    publish(destination, parts, data.meta, described, tokenizer if tokenizer.is_dir() else None)
    report(
        f"{len(shards)} shards -> {destination}: {len(train['source']):,} rows for training, {len(test['source']):,} "
        f"held out, {equal:,} equal to rows of other shards left out"
    )
    report(next_steps(destination, parts, manifest.get(MODEL_PLACE, "CHECKPOINT")))
