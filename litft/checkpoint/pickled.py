"""Files of `torch.save`, opened without running code from them; their tensors stay on disk until they are used.

Knows no names and no layout.
"""

from __future__ import annotations

import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import torch

from litft.errors import CheckpointError

# All that a map of tensors is made of; storages torch reads itself.
_HARMLESS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}


def load_pickled(path: Path, advice: str) -> object:
    """Gives what a file of `torch.save` holds, its tensors mapped into memory.

    Args:
        path: must stay as it is while the tensors live.
        advice: what to do when it cannot be used, for the message.

    Raises:
        CheckpointError: it holds something else than tensors and plain values, or is damaged or of an old form.
    """
    try:
        refuse_packed(path)
        if _protocol(path) <= 2:
            return with_own_numbers(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
        # torch's own safe reader stops at protocol 2, in which `torch.save` writes.
        harmless = types.SimpleNamespace(__name__="pickle", Unpickler=_HarmlessUnpickler)
        return with_own_numbers(
            torch.load(path, map_location="cpu", mmap=True, weights_only=False, pickle_module=harmless)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds something else than tensors, which could run code, and was not loaded; {advice}."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read (cut short, or saved before PyTorch 1.6); {advice}.") from error


def refuse_packed(path: Path) -> None:
    """Refuses an archive that is larger unpacked: torch packs nothing, and zeros become a thousandth.

    Raises:
        BadZipFile: naming what is packed.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise zipfile.BadZipFile(f"{packed[0]} is packed")


def with_own_numbers(loaded: object) -> object:
    """Gives what a file holds, if each tensor has all of its numbers there.

    A file may say that a tensor's rows are all the same bytes: a few bytes then are as many numbers as it likes.

    Raises:
        ValueError: a tensor has more than the file.
    """
    waiting: list[Any] = [loaded]
    seen = set[int]()  # a list may stand in another many times, or in itself
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, torch.Tensor):
            if part.numel() * part.element_size() > part.untyped_storage().nbytes():
                raise ValueError("a tensor has more numbers than the file")
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
    return loaded


class _HarmlessUnpickler(pickle.Unpickler):
    """Rebuilds tensors, dicts and plain values; anything else that a file names is refused before it is called.

    Lit-GPT and litgpt before 0.5.5 wrote their converted weights with pickle's protocol 5.
    Source: `IncrementalPyTorchPickler` of their `utils.py`.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def _protocol(path: Path) -> int:
    """Gives the protocol of the pickle inside; 0 where that is not to be found, which torch's reader then refuses."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return 0  # TorchScript: torch would hand it to another reader
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        start = archive.open(names[0]).read(2) if len(names) == 1 else b""
    return start[1] if len(start) == 2 and start[:1] == pickle.PROTO else 0
