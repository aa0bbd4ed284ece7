"""Models from the hub into `checkpoints/ORG/NAME`: only the files litft uses, each kind of weights once.

Honours HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxies, as huggingface_hub does. Knows no layout of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

# The base of every error of the HTTP library beneath, which is requests, httpx or httpx2 by the client's version.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # isort: skip

from litft.checkpoint.convert import from_hf
from litft.checkpoint.disk import require_space
from litft.checkpoint.files import SIDE_FILES
from litft.checkpoint.weights import weights_files
from litft.config.convert import FromHfConfig
from litft.config.download import DownloadConfig
from litft.errors import CheckpointError
from litft.terminal.shown import without_secrets

# The kinds of weights in the order of preference, as (what proves the kind is there, the files of that kind).
_KINDS = (
    (r"model\.safetensors", r"model\.safetensors"),
    (r"model\.safetensors\.index\.json", r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json"),
    (r"pytorch_model\.bin", r"pytorch_model\.bin"),
    (r"pytorch_model\.bin\.index\.json", r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json"),
)


def download(config: DownloadConfig, report: Callable[[str], None] = lambda message: None) -> Path:
    """Fetches a model and converts it; what is there already is not fetched again, and a broken download is resumed.

    Args:
        config: which model, and where to.
        report: is told, in sentences, what was done.

    Returns:
        The model's folder.

    Raises:
        CheckpointError: the model or revision does not exist, is gated, cannot be reached, holds no weights that litft
            reads, does not fit on the disk, or cannot be converted.
    """
    folder = config.target_dir
    if constants.HF_HUB_OFFLINE:
        if not _is_complete(folder, config.tokenizer_only):
            raise CheckpointError(
                f"HF_HUB_OFFLINE is set and {folder} does not hold the model; unset it, or copy the files there."
            )
        report(f"HF_HUB_OFFLINE is set: using the files in {folder} as they are.")
    else:
        _fetch(config, report)
    if config.convert and not config.tokenizer_only:
        from_hf(FromHfConfig(checkpoint_dir=folder, overwrite=config.overwrite), report)
    return folder


def _fetch(config: DownloadConfig, report: Callable[[str], None]) -> None:
    """Brings the wanted files of one revision into the model's folder."""
    folder = config.target_dir
    try:
        info = HfApi(token=config.access_token).model_info(
            config.repo_id, revision=config.revision, files_metadata=True
        )
    except (HTTPError, OSError) as error:
        if isinstance(error, HfHubHTTPError) or not _is_complete(folder, config.tokenizer_only):
            raise CheckpointError(_explain(error, config)) from None
        report(f"{without_secrets(constants.ENDPOINT)} cannot be reached: using the files in {folder} as they are.")
        return
    sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
    wanted = wanted_files(sizes, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, _needed_bytes({name: sizes[name] for name in wanted}, config))
        snapshot_download(
            config.repo_id,
            revision=info.sha,
            local_dir=folder,
            allow_patterns=wanted,
            token=config.access_token,
            force_download=config.overwrite,
        )
    except (HTTPError, OSError) as error:
        raise CheckpointError(_explain(error, config)) from None
    report(f"Fetched {config.repo_id} ({len(wanted)} files, revision {info.sha}) to {folder}.")


def wanted_files(sizes: Mapping[str, int], config: DownloadConfig) -> list[str]:
    """Chooses from a repository's files: tokenizer, descriptions and one kind of weights, safetensors if it can be.

    Args:
        sizes: every file of the repository and its size in bytes.
        config: which model, and whether weights are wanted.

    Raises:
        CheckpointError: the repository holds no weights that litft reads.
    """
    side_files = [name for name in sizes if any(fnmatchcase(name, pattern) for pattern in SIDE_FILES)]
    side_files = [name for name in side_files if re.fullmatch(r"[\w.+-]+", name)]  # in this folder, and to be shown
    if config.tokenizer_only:
        return side_files
    for proof, files in _KINDS:
        if any(re.fullmatch(proof, name) for name in sizes):
            return side_files + [name for name in sizes if re.fullmatch(files, name)]
    shown = ", ".join(sorted(sizes)[:8]) or "nothing"
    raise CheckpointError(
        f"{config.repo_id} holds no weights that litft reads (model.safetensors or pytorch_model.bin, whole or "
        f"sharded), but {shown}; look for the same model in Hugging Face format."
    )


def _needed_bytes(sizes: Mapping[str, int], config: DownloadConfig) -> int:
    """Gives the bytes still to be written: files not there yet, and the converted weights."""
    missing = sum(
        size
        for name, size in sizes.items()
        if config.overwrite
        or not (config.target_dir / name).is_file()
        or (config.target_dir / name).stat().st_size != size
    )
    weights = sum(size for name, size in sizes.items() if name.endswith((".safetensors", ".bin")))
    is_converted = (config.target_dir / "lit_model.safetensors").is_file() and not missing
    return missing + (weights if config.convert and not is_converted else 0)


def _is_complete(folder: Path, tokenizer_only: bool) -> bool:
    """Says whether a folder holds a model already, every shard of it."""
    if not (folder / "config.json").is_file():
        return False
    try:
        return tokenizer_only or bool(weights_files(folder))
    except CheckpointError:
        return False


def _explain(error: Exception, config: DownloadConfig) -> str:
    """Says in one sentence what went wrong with the hub and what to do; never with the token in it."""
    where = f"{config.repo_id} at {without_secrets(constants.ENDPOINT)}"
    token_advice = "give a token with --access_token or HF_TOKEN"
    if isinstance(error, GatedRepoError):
        return f"{where} is gated; accept its terms on its page, then {token_advice}."
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no model {where}, or it is private; check the name, or {token_advice} that may read it."
    if isinstance(error, RevisionNotFoundError):
        return f'{where} has no revision "{config.revision}"; check the branch, tag or commit.'
    told = (str(error).strip().splitlines() or [""])[0]
    for secret in filter(None, (config.access_token, get_token())):
        told = told.replace(secret, "***")
    return (
        f"Could not fetch {where} ({type(error).__name__}: {without_secrets(told)}); check the connection, HF_ENDPOINT "
        "and the disk, then run the same command again: it goes on where it stopped."
    )
