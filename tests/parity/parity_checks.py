"""What litft promises of every family, measured: each check gives the largest difference to transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from parity_models import FAMILIES
from safetensors.torch import load_file
from torch import Tensor

from litft.checkpoint.convert import from_hf
from litft.checkpoint.tensors import load_weights
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.export.hf import to_hf
from litft.model.attention import KVCache
from litft.model.gpt import GPT
from litft.model.load import load_model

CPU = torch.device("cpu")


@dataclass
class Pair:
    """A random model of transformers, its folder, and ours converted from it."""

    theirs: Any
    ours: GPT
    folder: Path

    def ids(self, length: int = 24) -> Tensor:
        """(B, T) = (2, length) token ids, longer than the short windows and than the first contexts."""
        return torch.randint(3, 96, (2, length), generator=torch.Generator().manual_seed(1))


def build_pair(family: str, variation: str, folder: Path) -> Pair:
    """Makes the pair."""
    kind, arguments = FAMILIES[family][variation]
    theirs = build_theirs(getattr(transformers, kind)(**arguments))
    theirs.save_pretrained(folder)
    from_hf(FromHfConfig(checkpoint_dir=folder))
    return Pair(theirs, load_model(folder, "32-true", CPU), folder)


def build_theirs(config: Any) -> Any:
    """Gives a random model; unit norms and zero biases would hide a swapped or forgotten one, so all are moved."""
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1 or "bias" in name:
                parameter += 0.1 * torch.randn_like(parameter)
            elif "embed" not in name:
                parameter *= 3  # so that scores and routers have something to say
    return theirs


def logits(pair: Pair, scratch: Path) -> float:
    """Largest difference of the logits, relative to the largest logit where that is above 1."""
    with torch.no_grad():
        wanted, got = pair.theirs(pair.ids()).logits, pair.ours.head(pair.ours(pair.ids()))
    return float((got - wanted).abs().max() / max(1.0, wanted.abs().max().item()))


def gradients(pair: Pair, scratch: Path) -> float:
    """Largest difference of a gradient, relative to that weight's largest.

    Theirs are saved as weights would be, so that conversion lays them out as ours.
    """
    ids = pair.ids()
    F.cross_entropy(pair.theirs(ids).logits[:, :-1].transpose(1, 2), ids[:, 1:]).backward()
    F.cross_entropy(pair.ours.head(pair.ours(ids))[:, :-1].transpose(1, 2), ids[:, 1:]).backward()
    copied = copy.deepcopy(pair.theirs)
    for parameter, original in zip(copied.parameters(), pair.theirs.parameters(), strict=True):
        parameter.data = torch.zeros_like(parameter) if original.grad is None else original.grad
    copied.save_pretrained(scratch)
    from_hf(FromHfConfig(checkpoint_dir=scratch))
    wanted = load_weights(scratch / "lit_model.safetensors")
    worst = 0.0
    for name, parameter in pair.ours.named_parameters():
        got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        largest = max(wanted[name].abs().max().item(), 1e-6)
        worst = max(worst, (got - wanted[name]).abs().max().item() / largest)
    return worst


def decode(pair: Pair, scratch: Path) -> float:
    """Largest difference between cached decoding and one pass over the text, at every length of the prefix."""
    ids, worst = pair.ids(), 0.0
    with torch.no_grad():
        full = pair.ours.head(pair.ours(ids))
        for prefix in range(1, ids.shape[1]):
            cache = KVCache(pair.ours.config, 2, ids.shape[1], CPU, torch.float32)
            pieces = [part for part in torch.split(ids, [prefix, 1, ids.shape[1] - prefix - 1], dim=1) if part.numel()]
            parts = [pair.ours.head(pair.ours(piece, cache)) for piece in pieces]
            worst = max(worst, (torch.cat(parts, dim=1) - full).abs().max().item())
    return worst / max(1.0, full.abs().max().item())


def round_trip(pair: Pair, scratch: Path) -> float:
    """Number of tensors that come back with another name, dtype or bit."""
    before = load_file(pair.folder / "model.safetensors")
    after = load_file(to_hf(ToHfConfig(checkpoint_dir=pair.folder, out_dir=scratch / "hf")) / "model.safetensors")
    both = before.keys() & after.keys()
    changed = [
        name for name in both if before[name].dtype != after[name].dtype or not torch.equal(before[name], after[name])
    ]
    return float(len(changed) + len(before.keys() ^ after.keys()))


def reload(pair: Pair, scratch: Path) -> float:
    """Largest difference of the logits of transformers' model, loaded from our export; infinite if a key is amiss."""
    folder = to_hf(ToHfConfig(checkpoint_dir=pair.folder, out_dir=scratch / "reload"))
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        return float("inf")
    with torch.no_grad():
        return float((model.eval()(pair.ids()).logits - pair.theirs(pair.ids()).logits).abs().max())


def bfloat16(pair: Pair, scratch: Path) -> float:
    """Mean error of our logits in bf16-true against float32, as a multiple of transformers' own in bfloat16.

    It shows norms, routers and rotations that cast at another place than the model was trained with.
    """
    narrow, ids = load_model(pair.folder, "bf16-true", CPU), pair.ids()
    with torch.no_grad():
        exact = pair.theirs(ids).logits
        theirs = copy.deepcopy(pair.theirs).to(torch.bfloat16)(ids).logits
        ours = narrow.head(narrow(ids))
    return float((ours - exact).abs().mean() / (theirs - exact).abs().mean())


# name -> (the check, the largest difference allowed)
CHECKS: dict[str, tuple[Callable[[Pair, Path], float], float]] = {
    "logits": (logits, 1e-5),
    "gradients": (gradients, 1e-4),
    "decode": (decode, 1e-5),
    "round trip": (round_trip, 0.0),
    "reload": (reload, 0.0),
    "bf16 error": (bfloat16, 1.25),
}
