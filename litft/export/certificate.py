"""The proof of an export: what was written is loaded elsewhere, asked the same, and must answer the same.

Knows no format: it is given logits, and says whether two models are one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft import __version__
from litft.checkpoint.disk import sha256_of_files, write_json
from litft.checkpoint.hf_folder import REPORT_FILE
from litft.config.export import Certificate
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError
from litft.export.elsewhere import missing_libraries
from litft.generate.sample import evaluating
from litft.model.gpt import GPT
from litft.text.chat_template import tried_conversations
from litft.text.encoding import Style, encode_prompt
from litft.text.styles import ALPACA
from litft.text.tokenizer import Tokenizer

LARGEST_DIFFERENCE = 1e-3  # of two float32 computations, as a share of the largest logit
LARGEST_KL = 1e-6  # nats a position
LONGEST_PROMPT = 256  # tokens
SPREAD_PROMPT = 64  # of ids without a text
BYTES_A_PARAMETER = 9  # measured 8.3: float32 twice, as what one program frees the other cannot always take


@dataclass(frozen=True)
class Comparison:
    """How far two models are apart on the same prompts.

    Attributes:
        prompts, positions: how many were compared.
        max_difference: largest difference of two logits.
        relative_difference: the same as a share of the largest logit.
        kl: mean KL divergence over positions, in nats.
        argmax_agreement: share of positions with the same likeliest token; one within the tolerance counts as it.
    """

    prompts: int
    positions: int
    max_difference: float
    relative_difference: float
    kl: float
    argmax_agreement: float

    @property
    def agrees(self) -> bool:
        """Whether the two are one model, computed in float32 by two programs."""
        return self.relative_difference <= LARGEST_DIFFERENCE and self.kl <= LARGEST_KL and self.argmax_agreement == 1.0

    def describe(self) -> str:
        """Gives the numbers as a part of a sentence."""
        return (
            f"{self.positions} positions of {self.prompts} prompts, largest logit difference {self.max_difference:.1e} "
            f"({self.relative_difference:.1e} of the largest logit), KL {self.kl:.1e}, same likeliest token at "
            f"{self.argmax_agreement:.0%}"
        )


def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Comparison:
    """Compares logits (T, V) of the same prompts.

    Raises:
        CheckpointError: their shapes differ.
    """
    largest = max(1e-30, *(logits.abs().max().item() for logits in ours))
    difference, kl, agreeing = 0.0, 0.0, 0
    for first, second in zip(ours, theirs, strict=True):  # apart, for a large vocabulary's sake
        if first.shape != second.shape:
            raise CheckpointError(f"The export differs: logits are {list(second.shape)}, litft's {list(first.shape)}.")
        apart = torch.nan_to_num((first - second).abs(), nan=torch.inf)
        difference = max(difference, apart.max().item())
        log_p, log_q = first.double().log_softmax(-1), second.double().log_softmax(-1)
        kl += (log_p.exp() * (log_p - log_q)).sum().item()
        chosen = first.gather(-1, second.argmax(-1, keepdim=True))[:, 0]
        agreeing += int((chosen >= first.max(-1).values - 2 * LARGEST_DIFFERENCE * largest).sum())
    count = sum(map(len, ours))
    return Comparison(len(ours), count, difference, difference / largest, max(kl / count, 0.0), agreeing / count)


def require_agreement(found: Comparison, who: str, folder: Path) -> None:
    """Refuses an export that another program does not compute as litft does.

    Raises:
        CheckpointError: with the numbers.
    """
    if not found.agrees:
        raise CheckpointError(
            f"The export differs: {who} does not compute {folder} as litft does ({found.describe()}), so it was not "
            "kept; please report this with the model's config.json."
        )


def fixed_prompts(model: ModelConfig, tokenizer: Tokenizer | None, style: Style | None) -> list[list[int]]:
    """Gives the ids that both are asked: framed texts where there is a tokenizer, else numbers spread over all ids."""
    length = min(LONGEST_PROMPT, model.block_size)
    if tokenizer is not None and tokenizer.eos_id is not None:
        texts = [encode_prompt(tokenizer, style or ALPACA, each) for each in tried_conversations(style or ALPACA)]
        if max(map(max, texts)) < model.padded_vocab_size:
            return [ids[:length] for ids in texts]
    places = range(min(SPREAD_PROMPT, model.block_size))
    return [[(start + 7919 * place) % model.vocab_size for place in places] for start in (1, 2, 3)]


def our_logits(model: GPT, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Gives litft's logits (T, V) of each prompt, float32."""
    with evaluating(model):
        return [model.head(model(torch.tensor([list(prompt)])))[0].float() for prompt in prompts]


def reason_against(asked: Certificate, libraries: Sequence[str], parameters: int) -> str | None:
    """Says why logits are not to be compared; None where they are.

    Args:
        asked: what the user wants.
        libraries: which must be installed.
        parameters: of the model.

    Raises:
        ConfigError: the full certificate is asked for and a library is missing.
    """
    if asked == "tensors":
        return "--certificate tensors"
    if missing := missing_libraries(libraries):
        advice = f"{' and '.join(missing)} not installed; pip install 'litft[export]'"
        if asked == "full":
            raise ConfigError(f"certificate is full, but {advice}, or take --certificate tensors.")
        return advice
    needed_bytes, free_bytes = BYTES_A_PARAMETER * parameters, available_bytes()
    if asked == "auto" and free_bytes is not None and free_bytes < needed_bytes:
        return f"it needs {needed_bytes / 1e9:.0f} GB of memory and {free_bytes / 1e9:.0f} GB are free"
    return None


def available_bytes() -> int | None:
    """Gives the memory that this process may still take; None where the system does not say.

    Source: /proc/meminfo and the memory controller of cgroup 2 of Linux.
    """
    found = []
    meminfo, control = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.is_file():
        values = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines() if ":" in line)
        found.append(int(values["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    limits = [control / name for name in ("memory.max", "memory.current")]
    if all(path.is_file() for path in limits):
        most, used = (path.read_text(encoding="utf-8").strip() for path in limits)
        if most != "max":
            found.append(int(most) - int(used))
    return min(found, default=None)


def write_report(folder: Path, kind: str, made_of: dict[str, Any], certificate: dict[str, Any]) -> None:
    """Writes export_report.json: what was written of what, the sha256 of each file that is there, and its proof."""
    told = {"kind": kind, "litft": __version__, **made_of, "files": sha256_of_files(folder)}
    plain = {key: asdict(value) if isinstance(value, Comparison) else value for key, value in certificate.items()}
    write_json(folder / REPORT_FILE, {**told, "certificate": plain})
