"""What a checkpoint says of the run that made it: its settings, its sums, its data. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import read_json
from litft.checkpoint.files import CHECKPOINTS_DIR, WEIGHTS_NAME, resolve_checkpoint_dir
from litft.config.io import load_yaml
from litft.config.submit import REPO_ID

RUN_FILE, SUMMARY_FILE, PROVENANCE_FILE, METHOD_FILE = "run.yaml", "summary.json", "provenance.json", "method.yaml"
MANIFEST_FILE = "manifest.yaml"
# What a folder was made of, where the run's own files are not in it: `litft merge` and `litft export hf` say so.
MADE_OF = {"merge.json": ("adapters",), "export_report.json": ("checkpoint_dir", "adapters")}


@dataclass(frozen=True)
class Record:
    """What is known of a checkpoint; empty mappings where nothing is.

    Attributes:
        checkpoint_dir: the folder itself.
        final: the folder of the run that made it; None where there was none.
        run: every setting of the run.
        method: `full`, or what method.yaml says.
        provenance: hashes, versions, device.
        summary: its numbers.
        manifest: of its data.
        data_dir: where the data should be.
        base: ORG/NAME of the base, where the folder that was trained says it.
    """

    checkpoint_dir: Path
    final: Path | None
    run: dict[str, Any]
    method: str
    provenance: dict[str, Any]
    summary: dict[str, Any]
    manifest: dict[str, Any]
    data_dir: Path | None
    base: str | None

    @property
    def is_whole(self) -> bool:
        """Whether the folder holds whole weights in litft's layout."""
        return (self.checkpoint_dir / WEIGHTS_NAME).is_file()


def open_record(checkpoint_dir: Path, data_dir: Path | None = None, base_repo: str | None = None) -> Record:
    """Finds what a checkpoint says of its run.

    Args:
        checkpoint_dir: what the user typed: base, finetuned, or merged.
        data_dir: the prepared data; None for where the run had it.
        base_repo: the base on the hub; None for what its folder is called.

    Raises:
        CheckpointError: there is no such folder.
        ConfigError, CheckpointError: a file of the run is damaged.
    """
    folder = resolve_checkpoint_dir(checkpoint_dir)
    final = _final_of(folder)
    if final is None:
        return Record(folder, None, {}, "none", {}, {}, {}, data_dir, base_repo or _repo_of(folder))
    run, provenance = load_yaml(final / RUN_FILE), _json(final / PROVENANCE_FILE)
    data_dir = data_dir or Path(str(provenance.get("data", run.get("data_dir", ""))))
    manifest = data_dir / MANIFEST_FILE
    return Record(
        checkpoint_dir=folder,
        final=final,
        run=run,
        method=str(load_yaml(final / METHOD_FILE)["method"]) if (final / METHOD_FILE).is_file() else "full",
        provenance=provenance,
        summary=_json(final.parent / SUMMARY_FILE),
        manifest=load_yaml(manifest) if manifest.is_file() else {},
        data_dir=data_dir,
        base=base_repo or _repo_of(Path(str(provenance.get("base", "")))),
    )


def _final_of(folder: Path) -> Path | None:
    """Gives the run's folder that a checkpoint came of: itself, or what it was merged or exported from."""
    for _ in range(3):
        if (folder / RUN_FILE).is_file():
            return folder
        made_of = [
            value
            for name, keys in MADE_OF.items()
            for key in keys
            if isinstance(value := _json(folder / name).get(key), str)
        ]
        nearest = next((path for value in made_of for path in _places(value, folder) if path.is_dir()), None)
        if nearest is None:
            return None
        folder = nearest
    return None


def _places(value: str, folder: Path) -> tuple[Path, Path]:
    """Gives where a folder may be that another one names: as it was written, or beside it."""
    return Path(value), folder.parent / Path(value).name


def _json(path: Path) -> dict[str, Any]:
    """Gives a JSON object; an empty one where there is no file."""
    return read_json(path) if path.is_file() else {}


def _repo_of(folder: Path) -> str | None:
    """Gives ORG/NAME of a folder under checkpoints/, where downloads lie; what others are called says nothing."""
    parts = folder.parts
    if str(CHECKPOINTS_DIR) not in parts[:-1]:
        return None
    below = parts[len(parts) - parts[::-1].index(str(CHECKPOINTS_DIR)) :]
    name = "/".join(below)
    return name if len(below) == 2 and REPO_ID.fullmatch(name) else None
