"""What `litft verify`, `litft repeat` and `litft check` are told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from litft.config.fields import REQUIRED, leaf
from litft.config.run import AdapterRun, FullRun, LoRARun
from litft.errors import ConfigError

RECIPE_HELP = "the recipe, if it is a file of your own: its token_loss is what is tried"


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What is compared with what was written down when it was made."""

    folder: Path = leaf(
        REQUIRED,
        "a run, its final/, what litft merge or export wrote, prepared data, or a converted model; may stand first, "
        "without --folder",
    )
    base: Path | None = leaf(None, "where the base lies now (default: where the run read it)")
    data_dir: Path | None = leaf(None, "where the data lies now (default: where the run read it)")
    recipe: Path | None = leaf(None, "where the recipe lies now (default: where it was run)")


@dataclass(frozen=True, kw_only=True)
class RepeatConfig:
    """Which run, and where it is run again."""

    run: Path = leaf(REQUIRED, "the folder of a run that has ended; may stand first, without --run")
    out_dir: Path | None = leaf(None, "where the repeat is written (default: RUN-again)")
    recipe: Path | None = leaf(None, "where the recipe lies now, if it is a file of your own")
    allow_changes: bool = leaf(False, "run it though base, tokenizer, data or recipe are no longer what they were")
    overwrite: bool = leaf(False, "replace a run in out_dir")

    def __post_init__(self) -> None:
        """Refuses to repeat a run over itself.

        Raises:
            ConfigError: out_dir is the run.
        """
        if self.out_dir is not None and self.out_dir.resolve() == self.run.resolve():
            raise ConfigError(f"out_dir {self.out_dir} is the run itself; name another folder.")


@dataclass(frozen=True, kw_only=True)
class CheckFull(FullRun):
    """A run of litft finetune full, and how it is tried."""

    recipe: Path | None = leaf(None, RECIPE_HELP)


@dataclass(frozen=True, kw_only=True)
class CheckLoRA(LoRARun):
    """A run of litft finetune lora, and how it is tried."""

    recipe: Path | None = leaf(None, RECIPE_HELP)


@dataclass(frozen=True, kw_only=True)
class CheckAdapter(AdapterRun):
    """A run of litft finetune adapter or adapter_v2, and how it is tried."""

    recipe: Path | None = leaf(None, RECIPE_HELP)
