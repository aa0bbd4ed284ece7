"""Finding a dataset's file: the one the user names, or the one on the Hugging Face hub. Knows no formats."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils import logging

# The base of every error of the HTTP library beneath, which is requests, httpx or httpx2 by the client's version.
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # isort: skip

from litft.data.paths import path_hint
from litft.data.reading.rows import Source
from litft.errors import DataError


def find_file(source: Source, data_file: Path | None, revision: str | None) -> Path:
    """Gives the local path of a dataset's file.

    Args:
        source: the dataset.
        data_file: the user's own file; None to fetch the published one (or find it in the cache).
        revision: branch, tag or commit on the hub; None for the default branch.

    Raises:
        DataError: there is no such file, or it cannot be fetched.
    """
    if data_file is not None:
        return _local_file(data_file.expanduser())
    if source.repo_id is None or source.file is None:
        raise DataError(f"{source.name} is a file of your own; name it with --data_file FILE.")
    return _fetch(source.repo_id, source.file, revision)


def _local_file(path: Path) -> Path:
    """Refuses what is not a file, with the nearest that is."""
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.is_file())[:5]
        holds = f"it holds {', '.join(inside)}" if inside else "it holds no files"
        raise DataError(f"data_file {path} is a folder, not a file; {holds}.")
    if not path.is_file():
        raise DataError(f"There is no data_file {path}.{path_hint(path)}")
    return path


def _fetch(repo_id: str, file: str, revision: str | None) -> Path:
    """Downloads a file, or finds it in the cache. The access token is the hub library's affair and is never shown."""
    # One sentence of ours says what its retries would say eleven times.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    where = f"{file} of the dataset {repo_id}" + (f" at revision {revision}" if revision else "")
    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, file, repo_type="dataset", revision=revision))
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
