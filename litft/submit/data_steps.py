"""How the training data of a run comes to be again: by `litft prepare`, or from a folder that is brought along."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.config.commands import dataset_names
from litft.submit.record import Record
from litft.text.styles import STYLES

KEPT = ("max_seq_length", "test_split_fraction", "seed", "train_on", "too_long", "max_rejected_fraction")
FILES = ("train.pt", "test.pt")
MOUNTED, RAW = "data-in", "raw"


@dataclass(frozen=True)
class DataSteps:
    """Commands that bring the data, and what is mounted for them.

    Attributes:
        lines: of a shell script; they end with the data in `data/NAME`.
        needs: what the user mounts, as (folder in the container, what it must hold); None where nothing.
        sums: lines for `sha256sum --check`, of files that are brought along.
    """

    lines: list[str]
    needs: tuple[str, str] | None
    sums: list[str]


def data_steps(record: Record, base: str, name: str) -> DataSteps:
    """Gives the steps: a new preparation where the manifest says all of it, the prepared files otherwise.

    Args:
        record: the run.
        base: ORG/NAME whose tokenizer encoded the rows.
        name: of the folder below `data/`.
    """
    manifest = record.manifest
    if not is_repeatable(manifest, base):
        told = f"{' and '.join(FILES)} as they were prepared"
        lines = [f"mkdir -p data && ln -sfn ../{MOUNTED} data/{name}"]
        return DataSteps(lines, (MOUNTED, told), [])
    dataset, source = manifest["dataset"], manifest["sources"][manifest["dataset"]]
    words = ["litft", "prepare", dataset, "--checkpoint_dir", base, "--destination_path", f"data/{name}"]
    words += ["--prompt_style", manifest["prompt_style"]["name"]]
    for key in KEPT:
        words += [f"--{key}", str(manifest[key])]
    if source["repo_id"] is not None:
        revision = ["--revision", source["revision"]] if source["revision"] else []
        return DataSteps([shlex.join([*words, *revision])], None, [])
    file, digest = source["files"][0]["file"], source["files"][0]["sha256"]
    sums = [f"{digest}  {RAW}/{file}"]
    return DataSteps([shlex.join([*words, "--data_file", f"{RAW}/{file}"])], (RAW, f"{file}, the raw rows"), sums)


def is_repeatable(manifest: Mapping[str, Any], base: str) -> bool:
    """Whether `litft prepare` with the flags that a manifest names gives the same files.

    Args:
        manifest: of the data.
        base: ORG/NAME of the model whose tokenizer will encode the rows.
    """
    dataset, sources = manifest.get("dataset"), manifest.get("sources", {})
    if dataset not in dataset_names() or list(sources) != [dataset] or manifest.get("checkpoint") != Path(base).name:
        return False
    style, source = manifest.get("prompt_style") or {}, sources[dataset]
    named = STYLES.get(style.get("name", ""))
    is_named = named is not None and named.to_dict() == style
    changed = any(manifest.get(key) for key in ("new_tokens", "shard", "option_orders", "paraphrases", "score"))
    one_file = source.get("repo_id") is not None or len(source.get("files", [])) == 1
    has_all = all(key in manifest for key in KEPT)
    return is_named and has_all and one_file and not changed and not any(source.get("options", {}).values())
