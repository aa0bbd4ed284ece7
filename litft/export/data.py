"""`litft export data`: prepared rows for other programs, as JSON Lines or as a folder of `datasets`.

The labels are Hugging Face's: of the row's own length, -100 where nothing is to be predicted, not shifted.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

# The base of every error of the HTTP library beneath, which is requests, httpx or httpx2 by the client's version.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # isort: skip

from litft.checkpoint.disk import atomic_folder, require_free
from litft.config.export import ExportDataConfig
from litft.data.batches import IGNORE
from litft.data.overview import source_names
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir
from litft.data.texts import find_tokenizer
from litft.errors import DataError
from litft.terminal.bars import tracked
from litft.terminal.shown import without_secrets
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]

# The file that marks an export, and says how the rows were made.
MARK = "prepared.json"

ADVICE = "name another folder, or replace an export by --overwrite true"


def export_data(config: ExportDataConfig, report: Report = lambda message: None) -> Path:
    """Writes prepared rows for other programs; to the hub and to Weights & Biases too, if asked.

    Args:
        config: which rows, in which form, and where to.
        report: takes each message for the user.

    Returns:
        The folder written.

    Raises:
        DataError: the rows cannot be read, a library is missing, or the hub or W&B does not take them.
        ConfigError: out_dir is not empty.
    """
    folder = find_data_dir(config.data_dir)
    require_free(config.out_dir, config.overwrite, MARK, ADVICE, (folder,))
    datasets = _library("datasets") if config.form == "datasets" else None
    wandb = _library("wandb") if config.artifact else None
    files = {path.stem: PreparedData.load(path) for path in (folder / TRAIN_FILE, folder / TEST_FILE) if path.is_file()}
    tokenizer = find_tokenizer(files["train"], config.checkpoint_dir)
    if tokenizer is None:
        report("The rows go out without their texts; name the model of their tokenizer with --checkpoint_dir.")
    with atomic_folder(config.out_dir) as target:
        for name, data in files.items():
            _write_lines(target / f"{name}.jsonl", data, tokenizer)
        if datasets is not None:
            _to_datasets(target, list(files), datasets)
        (target / MARK).write_text(json.dumps(files["train"].meta, indent=2, default=str) + "\n", encoding="utf-8")
        if (folder / MANIFEST_FILE).is_file():
            shutil.copyfile(folder / MANIFEST_FILE, target / MANIFEST_FILE)
    counts = ", ".join(f"{len(data):,} rows of {name}" for name, data in files.items())
    report(f"Wrote {counts} to {config.out_dir}; labels are not shifted, and {IGNORE} where nothing is learned.")
    if config.push is not None:
        report(f"Pushed to {_push(config, config.push)}.")
    if config.artifact is not None:
        report(f"Logged as {_log(config.out_dir, config.artifact, wandb)}.")
    return config.out_dir


def _library(name: str) -> Any:
    """Gives an optional library."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"This needs the library {name}; install it with `pip install 'litft[{name}]'`.") from error


def _rows(data: PreparedData, tokenizer: Tokenizer | None) -> Iterator[dict[str, Any]]:
    """Gives each row as other programs read it."""
    names = source_names(data)
    for number in tracked(range(len(data)), data.path.name, "rows"):
        ids, mask = (part.tolist() for part in data.row(number))
        row: dict[str, Any] = {
            "input_ids": ids,
            "labels": [each if is_target else IGNORE for each, is_target in zip(ids, mask, strict=True)],
            "source": names[int(data.source[number])],
        }
        if data.score is not None:
            score = float(data.score[number])
            row["score"] = score if math.isfinite(score) else None
        if tokenizer is not None:
            row["text"] = tokenizer.decode(ids)
        yield row


def _write_lines(path: Path, data: PreparedData, tokenizer: Tokenizer | None) -> None:
    """Writes rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(data, tokenizer):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _to_datasets(folder: Path, names: list[str], datasets: Any) -> None:
    """Turns the JSON Lines of a folder into what `datasets.load_from_disk` reads."""
    paths = {name: str(folder / f"{name}.jsonl") for name in names}
    with tempfile.TemporaryDirectory() as cache:
        read = datasets.DatasetDict.from_json(paths, cache_dir=cache)
        read.save_to_disk(str(folder))
    for path in paths.values():
        Path(path).unlink()


def _push(config: ExportDataConfig, repo_id: str) -> str:
    """Uploads the folder to the hub, in one commit.

    Returns:
        Its address there.
    """
    api = HfApi()
    try:
        address = api.create_repo(repo_id, repo_type="dataset", private=config.private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=config.out_dir, repo_type="dataset", commit_message="Add rows")
    except (HTTPError, HFValidationError, OSError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        why = "a token that may write there is needed (HF_TOKEN, or `hf auth login`)"
        why = why if status in (401, 403) else _first_line(error)
        raise DataError(f"{repo_id} was not pushed: {why}. The rows are in {config.out_dir}.") from error
    return str(address)


def _log(folder: Path, name: str, wandb: Any) -> str:
    """Logs the folder as an artifact of Weights & Biases.

    Args:
        folder: what is logged.
        name: PROJECT/ARTIFACT.
        wandb: the library.

    Returns:
        What it is called there.
    """
    project, _, title = name.partition("/")
    try:
        with wandb.init(project=project, job_type="prepare") as run:
            artifact = wandb.Artifact(title, type="dataset", metadata=json.loads((folder / MARK).read_text("utf-8")))
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)
            return f"artifact {title} of {run.project}" + (", to be synced" if run.offline else "")
    except wandb.errors.Error as error:
        raise DataError(f"{name} was not logged: {_first_line(error)}. The rows are in {folder}.") from error


def _first_line(error: Exception) -> str:
    """Gives what an error says, never with the token in it."""
    told = str(error).strip().partition("\n")[0].rstrip(".")
    token = get_token()
    return without_secrets(told.replace(token, "***") if token else told)
