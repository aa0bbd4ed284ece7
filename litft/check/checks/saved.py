"""What final/ holds answers as the model did when it was written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from litft.check.bench import Bench
from litft.check.finding import Check, NotSoError, within
from litft.generate.sample import evaluating
from litft.methods.load import load_finetuned
from litft.model.gpt import GPT
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer
from litft.train.state import trained_style

TOLERANCE = 1e-4


def run(bench: Bench) -> str:
    """Compares logits of the rows, the prompt style and the tokenizer."""
    trained, final = bench.finished
    if load_style(final).to_dict() != trained_style(bench.inputs).to_dict():
        raise NotSoError(f"final/ would be asked in another prompt style, {load_style(final).name}")
    if Tokenizer(final).hash != bench.inputs.tokenizer.hash:
        raise NotSoError("final/ has another tokenizer than the rows")
    loaded = load_finetuned(final, "32-true", trained.fabric.device, bench.config.quantize)
    gap = logits_gap(trained.gpt, loaded, prompts_of(bench))
    return within({"logits": gap}, TOLERANCE, "of the largest: float32; DoRA and PiSSA are written in another form")


def prompts_of(bench: Bench) -> list[Tensor]:
    """Gives the ids of a few rows, each (T,)."""
    return [bench.inputs.train.row(row)[0].long() for row in bench.rows[:4]]


def logits_gap(first: GPT, second: GPT, prompts: Sequence[Tensor]) -> float:
    """Gives the largest difference of two models' logits, as a share of the largest logit."""
    largest = apart = 0.0
    for ids in prompts:
        mine, other = (logits(model, ids) for model in (first, second))
        largest = max(largest, float(mine.abs().max()))
        apart = max(apart, float(torch.nan_to_num((mine - other).abs(), nan=torch.inf).max()))
    return apart / max(largest, 1e-30)


def logits(model: GPT, ids: Tensor) -> Tensor:
    """(T,) -> (T, V) float32, on the CPU."""
    device = next(model.parameters()).device
    with evaluating(model):
        return model.head(model(ids[None].to(device)))[0].float().cpu()


CHECK = Check("saved", "final/, loaded again, answers as the model that was trained", run)
