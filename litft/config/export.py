"""What `litft export peft` is told, and how an export is proved. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf

Certificate = Literal["auto", "full", "tensors"]
CERTIFICATE_HELP = (
    "proof of what was written: full loads it elsewhere and compares logits, tensors reads it again, auto is full "
    "where the libraries and the memory are there"
)


@dataclass(frozen=True, kw_only=True)
class ExportPeftConfig:
    """What a run trained, as an adapter folder that PEFT and vLLM load."""

    checkpoint_dir: Path = leaf(REQUIRED, "the final folder of a LoRA run, or of an adapter's where PEFT has its like")
    out_dir: Path = leaf(REQUIRED, "where the adapter folder goes")
    base_model_name_or_path: str | None = leaf(
        None, "what the folder calls its base, such as ORG/NAME on the hub (default: from where the base lies)"
    )
    certificate: Certificate = leaf("auto", CERTIFICATE_HELP)
    overwrite: bool = leaf(False, "replace an export written there before")
