"""The sections of a finetuning run, one dataclass a method. Knows no torch.

A field is one line here; its flag (`--train.max_iters`), its YAML key, its help and its place in `run.yaml` follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed, section
from litft.config.loggers import LOGGERS, OWN, check_loggers
from litft.config.optim import OptimConfig
from litft.config.train import EvalConfig, FullTrainConfig, TrainConfig
from litft.errors import ConfigError

LORA_TARGETS = ("q", "k", "v", "proj", "mlp", "head")
NEEDS_WHOLE_WEIGHTS = ("muon", "adafactor", "adamw8bit")  # optimizers that look at more than one number at a time
Quantize = Literal["none", "bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.fp4-dq", "bnb.int8"]


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters. Source: arXiv 2106.09685; rsLoRA 2312.03732; DoRA 2402.09353; PiSSA 2404.02948."""

    r: int = leaf(8, "rank of each adapter")
    alpha: float = leaf(16, "the adapter's output is scaled by alpha / r")
    dropout: float = leaf(0.05, "dropout on the adapter's input")
    targets: tuple[str, ...] = leaf(("q", "v"), f"which weights get one, among {', '.join(LORA_TARGETS)}")
    scaling: Literal["standard", "rank_stabilised"] = leaf(
        "standard", "rank_stabilised scales by alpha / sqrt(r), so that high ranks learn too (rsLoRA)"
    )
    dora: bool = leaf(False, "also train how large each row of the weight is (DoRA)")
    init: Literal["random", "pissa", "pissa_fast"] = leaf(
        "random", "pissa: begin with the largest part of the weight itself; pissa_fast finds it nearly, in less time"
    )

    @property
    def scale(self) -> float:
        """What the adapter's output is multiplied by."""
        return self.alpha / (self.r if self.scaling == "standard" else math.sqrt(self.r))

    def __post_init__(self) -> None:
        """Refuses a rank, a share or a target that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("lora", self, {"r": 1})
        if self.alpha <= 0:
            raise ConfigError(f"lora.alpha is {self.alpha}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout is {self.dropout}; it must be from 0 to below 1.")
        for target in self.targets:
            if target not in LORA_TARGETS:
                raise ConfigError(f'lora.targets has "{target}"; the targets are {", ".join(LORA_TARGETS)}.')
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"lora.targets is {list(self.targets)}; name at least one, each once.")
        if self.init != "random" and self.dropout:
            raise ConfigError(
                f"lora.init is {self.init} and lora.dropout {self.dropout}, which would drop the largest part of the "
                "weight itself; set lora.dropout to 0."
            )


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Learned prompts inside attention. Source: LLaMA-Adapter, arXiv 2303.16199."""

    prompt_length: int = leaf(10, "learned vectors in each block")
    start_layer: int = leaf(2, "blocks below this one have none")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("adapter", self, {"prompt_length": 1, "start_layer": 0})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every finetuning run is told, whatever its method."""

    checkpoint_dir: Path = leaf(REQUIRED, "the converted base model")
    data_dir: Path = leaf(REQUIRED, "prepared data: train.pt and test.pt")
    out_dir: Path | None = leaf(None, "where the run is written (default out/METHOD/DATA)")
    precision: Literal["bf16-true", "bf16-mixed", "32-true"] = leaf(
        "bf16-true", "of the frozen weights and the computation; trained adapters are always float32"
    )
    quantize: Quantize = leaf(
        "none", "keep the frozen linear layers of the blocks in 4 or 8 bits (QLoRA); -dq quantises their scales too"
    )
    devices: int = leaf(1, "GPUs of a node to train on, one process to each; without a GPU, so many processes")
    num_nodes: int = leaf(1, "machines; start the command on each, by torchrun or srun")
    strategy: Literal["auto", "ddp", "fsdp", "hybrid"] = leaf(
        "auto",
        "of several processes: fsdp cuts the weights into a part for each, ddp gives each a copy, hybrid cuts within a "
        "node and copies between nodes; auto: fsdp",
    )
    cpu_offload: bool = leaf(False, "fsdp and hybrid keep their parts in the CPU's memory: slower, for want of room")
    resume: bool | str = leaf(False, "true or auto for the newest whole checkpoint in out_dir, or the path of one")
    overwrite: bool = leaf(False, "start afresh in an out_dir that holds a run; its files are deleted")
    dry_run: bool = leaf(False, "check everything, tell steps, memory and work, and stop: litft plan")
    measure: bool = leaf(False, "with dry_run: load the weights too and time a step")
    seed: int = leaf(1337, "of the order of examples, dropout and sampling")
    logger: tuple[str, ...] = leaf((OWN,), f"also tell the run to any of {', '.join(LOGGERS)}; {OWN} is always written")
    log_model: bool | Literal["auto"] = leaf(
        "auto", "send final/ to wandb and mlflow at the end; auto: where it is below 1 GiB"
    )
    sweep_jobs: int = leaf(
        1, "of a sweep (--sweep.LEAF A,B runs every combination): so many runs at a time, each on GPUs of its own"
    )
    train: TrainConfig = section(TrainConfig, "length and batches")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule")
    eval: EvalConfig = section(EvalConfig, "validation")

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.num_nodes

    def __post_init__(self) -> None:
        """Refuses a seed out of range, and processes that would have nothing to do or nothing to share.

        Raises:
            ConfigError: naming it.
        """
        require_seed(self.seed)
        check_loggers(self.logger)
        if self.train.micro_batch_size == "auto" and self.processes > 1:
            raise ConfigError(
                f"train.micro_batch_size is auto and devices x num_nodes is {self.processes}; ask litft plan, and "
                "write a number for several processes."
            )
        if self.measure and not self.dry_run:
            raise ConfigError("measure is true, which is for --dry_run true and litft plan; leave it out.")
        require_at_least("", self, dict.fromkeys(("devices", "num_nodes", "sweep_jobs"), 1))
        if self.processes > self.train.global_batch_size:
            raise ConfigError(
                f"devices x num_nodes is {self.processes} and train.global_batch_size is "
                f"{self.train.global_batch_size}; each process needs an example in every step."
            )
        if self.strategy == "hybrid" and self.num_nodes == 1:
            raise ConfigError("strategy is hybrid, which copies between nodes, and num_nodes is 1; fsdp is the same.")
        if self.cpu_offload and (self.strategy == "ddp" or self.processes == 1):
            raise ConfigError("cpu_offload is for the parts of fsdp and hybrid; set devices above 1, or leave it out.")
        if self.optim.in_backward:
            self._check_in_backward()

    def _check_in_backward(self) -> None:
        """Refuses what needs the gradient of a whole window at once.

        Raises:
            ConfigError: naming it.
        """
        if self.optim.clip_norm is not None:
            raise ConfigError(
                f"optim.in_backward never has the whole gradient, whose norm optim.clip_norm {self.optim.clip_norm} "
                "bounds; set optim.clip_norm to null."
            )
        if self.train.micro_batch_size != self.train.global_batch_size:
            raise ConfigError(
                "optim.in_backward steps in every backward pass, so train.micro_batch_size, "
                f"{self.train.micro_batch_size}, must be train.global_batch_size, {self.train.global_batch_size}."
            )
        if self.processes > 1:
            raise ConfigError(
                f"optim.in_backward steps before several processes ({self.processes}) could add up their gradients; "
                "leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class FullRun(RunConfig):
    """Every weight is trained, but for those that `train` freezes."""

    init: Literal["checkpoint", "random"] = leaf("checkpoint", "start from the weights, or from random ones")
    train: FullTrainConfig = section(FullTrainConfig, "length, batches, and what is frozen")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule", learning_rate=2e-5)

    def __post_init__(self) -> None:
        """Refuses a seed out of range, and weights that no step could move.

        Raises:
            ConfigError: naming it.
        """
        super().__post_init__()
        if self.processes > 1 and self.strategy != "ddp" and self.optim.name in NEEDS_WHOLE_WEIGHTS:
            raise ConfigError(
                f"optim.name is {self.optim.name}, which needs whole weights, and strategy {self.strategy} cuts them "
                "into parts; use adamw, or --strategy ddp."
            )
        if self.quantize != "none":
            raise ConfigError(
                f"quantize is {self.quantize}, but full trains every weight and a quantised one cannot be trained; "
                "leave it out, or use litft finetune lora."
            )


@dataclass(frozen=True, kw_only=True)
class LoRARun(RunConfig):
    """Low-rank adapters on chosen weights."""

    lora: LoRAConfig = section(LoRAConfig, "the adapters")


@dataclass(frozen=True, kw_only=True)
class AdapterRun(RunConfig):
    """Learned prompts in attention (v1), or these with a scale and bias on every linear layer (v2)."""

    adapter: AdapterConfig = section(AdapterConfig, "the learned prompts")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule", learning_rate=3e-3)
