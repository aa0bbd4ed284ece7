"""What `litft export peft` and `litft export data` are told, and how an export is proved. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf
from litft.errors import ConfigError

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


@dataclass(frozen=True, kw_only=True)
class ExportDataConfig:
    """Prepared rows for other programs."""

    data_dir: Path = leaf(REQUIRED, "prepared data: train.pt, test.pt and manifest.yaml")
    out_dir: Path = leaf(REQUIRED, "where the rows go")
    form: Literal["jsonl", "datasets"] = leaf(
        "jsonl", "JSON Lines, or a folder for `datasets.load_from_disk` (needs litft[datasets])"
    )
    checkpoint_dir: Path | None = leaf(
        None, "a model with the tokenizer of the data, for the texts (default: found as `litft inspect` finds it)"
    )
    push: str | None = leaf(
        None, "also upload the folder to this data set of the hub: ORG/NAME, by HF_TOKEN or `hf auth login`"
    )
    private: bool = leaf(True, "whether a data set that --push makes is private; mind the licences of your sources")
    artifact: str | None = leaf(None, "also log the folder to Weights & Biases: PROJECT/NAME (needs litft[wandb])")
    overwrite: bool = leaf(False, "replace an export written there before")

    def __post_init__(self) -> None:
        """Refuses names that cannot be meant.

        Raises:
            ConfigError: naming the flag and its value.
        """
        for name in ("push", "artifact"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
                form = "ORG/NAME" if name == "push" else "PROJECT/NAME"
                raise ConfigError(f'{name} is "{value}"; it must be {form}.')
