"""Finding a dataset's files: those the user names, or those on the Hugging Face hub. Knows no formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils import logging

# The base of every error of the HTTP library beneath, which is requests, httpx or httpx2 by the client's version.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # isort: skip

from litft.data.reading.local import incomplete, local_files
from litft.data.reading.parquet import SUFFIX, require_pyarrow
from litft.data.reading.rows import Source
from litft.errors import DataError


def find_files(source: Source, data_file: Path | None, revision: str | None) -> list[Path]:
    """Gives the local paths of a dataset's files, at least one, in the order to read them.

    Args:
        source: the dataset.
        data_file: the user's own file, or a folder where the dataset is several; None to fetch the published ones (or
            find them in the cache).
        revision: branch, tag or commit on the hub; None for the default branch.

    Raises:
        DataError: there is no such file, it cannot be fetched, or could not be read then.
    """
    if data_file is not None:
        return local_files(source, data_file.expanduser())
    if source.repo_id is None or not source.files:
        raise DataError(f"{source.name} is a file of your own; name it with --data_file FILE.")
    if any(name.endswith(SUFFIX) for name in source.files):
        require_pyarrow(f"The published file of {source.name}")
    return [path for name in source.files for path in _fetch(source.repo_id, name, revision)]


def file_labels(paths: Sequence[Path]) -> list[str]:
    """Gives each file a name to be told from the others by: its path under the folder that they share.

    Args:
        paths: at least one.
    """
    if len(paths) == 1:
        return [paths[0].name]
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(shared).as_posix() for path in paths]


def _fetch(repo_id: str, name: str, revision: str | None) -> list[Path]:
    """Downloads a file, or all that a name with `*` means, or finds them in the cache.

    The access token is the hub library's affair and is never shown.
    """
    # One sentence of ours says what its retries would say eleven times.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    where = f"{name} of the dataset {repo_id}" + (f" at revision {revision}" if revision else "")
    try:
        if "*" in name:
            return _fetch_matching(repo_id, name, revision, where)
        return [Path(huggingface_hub.hf_hub_download(repo_id, name, repo_type="dataset", revision=revision))]
    except errors.GatedRepoError as error:
        raise DataError(
            f"The dataset {repo_id} is gated: accept its licence at https://huggingface.co/datasets/{repo_id} and set "
            "HF_TOKEN, or name a local file with --data_file."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"The dataset {repo_id} has no revision {revision}; name another with --revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"The hub has no dataset {repo_id}, or HF_TOKEN may not see it; name a local file with --data_file."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"{where} is not in the cache and the hub cannot be reached (no network, or HF_HUB_OFFLINE is set); "
            "name a local file with --data_file."
        ) from error
    except errors.EntryNotFoundError as error:
        raise DataError(f"The hub has no {where}; name a local file with --data_file.") from error
    except (HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
        raise DataError(
            f"{where} could not be fetched ({status}); try again, or name a local file with --data_file."
        ) from error


def _fetch_matching(repo_id: str, pattern: str, revision: str | None, where: str) -> list[Path]:
    """Gives all files whose names a pattern means, ordered by name."""
    folder = Path(
        huggingface_hub.snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=pattern)
    )
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"The hub has no {where}; name a local file with --data_file.")
    # Without a network an older client gives whatever the cache holds, and half a dataset would go unnoticed.
    for _, there, wanted in incomplete(found):
        raise DataError(
            f"The cache has {there} of the {wanted} files {where}; fetch the others with a network, or name local "
            "files with --data_file."
        )
    return found
