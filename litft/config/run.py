"""The sections of a finetuning run, one dataclass a method. Knows no torch.

A field is one line here; its flag (`--train.max_iters`), its YAML key, its help and its place in `run.yaml` follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_seed, section
from litft.errors import ConfigError

LORA_TARGETS = ("q", "k", "v", "proj", "mlp", "head")
NEEDS_WHOLE_WEIGHTS = ("muon", "adafactor", "adamw8bit")  # optimizers that look at more than one number at a time
Quantize = Literal["none", "bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.fp4-dq", "bnb.int8"]


def require_at_least(section_name: str, config: object, least: dict[str, float]) -> None:
    """Refuses numbers below their least sensible value; None passes.

    Raises:
        ConfigError: naming the field, its value and the least.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ConfigError(f"{section_name}.{name} is {value}; it must be at least {bound}.")


def require_interval(name: str, value: float) -> None:
    """Refuses an interval that is neither a fraction of the run below 1 nor a whole number of steps.

    Raises:
        ConfigError: naming the field and its value.
    """
    if value <= 0:
        raise ConfigError(f"{name} is {value}; it must be above 0.")
    if value > 1 and value != int(value):
        raise ConfigError(f"{name} is {value}; write a fraction of the run below 1, or a whole number of steps.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long a run is and how its examples are batched. The run ends at the first bound it meets."""

    global_batch_size: int = leaf(16, "examples in one optimizer step")
    micro_batch_size: int | Literal["auto"] = leaf(
        1,
        "examples computed at once; lower it when memory runs out, results stay the same; auto: as many as the memory "
        "that is free has room for",
    )
    pack: Literal["auto", "packed", "padded", "shared_prefix"] = leaf(
        "auto",
        "packed: rows end to end, in micro-batches of micro_batch_size x max_seq_length tokens, without seeing each "
        "other; shared_prefix: packed, and what rows of one template begin with is computed once; padded: one below "
        "the other; auto: packed. The gradient is the same",
    )
    checkpoint: Literal["none", "mlp", "block"] = leaf(
        "none",
        "compute activations again in the backward pass instead of keeping them: those of each MLP (half the memory, a "
        "sixth more work), or of each block (a third more)",
    )
    offload_activations: bool = leaf(False, "keep activations in the CPU's memory until the backward pass: slower")
    epochs: int | None = leaf(1, "passes over the training rows")
    max_iters: int | None = leaf(None, "at most this many times micro_batch_size examples")
    max_steps: int | None = leaf(None, "at most this many optimizer steps")
    max_time: str | None = leaf(None, "at most this long: 24:00:00, 24h, 90m or seconds")
    shuffle: bool = leaf(True, "a new order in each epoch; false keeps that of train.pt")
    max_seq_length: int | None = leaf(None, "leave out rows over this many tokens (default: as the data was prepared)")
    save_interval: float = leaf(0.25, "write a checkpoint every so many steps, or every fraction of the run below 1")
    export_interval: float | None = leaf(
        None, "write a Hugging Face folder every so many steps, or every fraction of the run below 1 (default: never)"
    )
    keep: int = leaf(2, "how many of the newest step checkpoints stay; the best one stays too")
    log_interval: int = leaf(1, "write a line of metrics every so many steps")
    neftune_alpha: float = leaf(0.0, "NEFTune: noise on the embeddings of training rows, such as 5; 0 for none")
    label_smoothing: float = leaf(0.0, "of the training loss, below 1; held-out losses are without it")

    def __post_init__(self) -> None:
        """Refuses a run without an end and numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        least = dict.fromkeys(("global_batch_size", "epochs", "max_iters", "max_steps"), 1)
        if self.micro_batch_size != "auto":
            least["micro_batch_size"] = 1
        require_at_least("train", self, {**least, "keep": 1, "log_interval": 1, "max_seq_length": 2})
        require_at_least("train", self, {"neftune_alpha": 0, "label_smoothing": 0})
        if self.neftune_alpha and self.pack == "shared_prefix":
            raise ConfigError(
                f"train.neftune_alpha is {self.neftune_alpha}, noise of each row's own, and train.pack is "
                "shared_prefix; leave one out."
            )
        if self.label_smoothing >= 1:
            raise ConfigError(f"train.label_smoothing is {self.label_smoothing}; it must be from 0 to below 1.")
        require_interval("train.save_interval", self.save_interval)
        if self.export_interval is not None:
            require_interval("train.export_interval", self.export_interval)
        if self.global_batch_size % self.micro_batch_rows:
            raise ConfigError(
                f"train.global_batch_size is {self.global_batch_size} and train.micro_batch_size is "
                f"{self.micro_batch_size}; the first must be a multiple of the second."
            )
        if self.max_iters and self.micro_batch_size == "auto":
            raise ConfigError(
                "train.max_iters counts micro-batches and train.micro_batch_size is auto, so their size is not known "
                "yet; set train.max_steps or train.epochs."
            )
        if not (self.epochs or self.max_iters or self.max_steps):
            raise ConfigError("The run has no end; set train.epochs, train.max_iters or train.max_steps.")
        parse_duration(self.max_time)

    @property
    def micro_batch_rows(self) -> int:
        """micro_batch_size as a number: 1 as long as `auto` has not been turned into one."""
        return 1 if isinstance(self.micro_batch_size, str) else self.micro_batch_size


@dataclass(frozen=True, kw_only=True)
class FullTrainConfig(TrainConfig):
    """The same, and which weights stay as they are."""

    n_freeze: int = leaf(0, "the first so many blocks are not trained")
    freeze_embed: bool = leaf(False, "the embedding is not trained; blocks frozen above it then keep no activations")
    freeze_head: bool = leaf(False, "the head is not trained")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        super().__post_init__()
        require_at_least("train", self, {"n_freeze": 0})


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw", "adamw8bit", "adafactor", "muon", "sgd"] = leaf(
        "adamw", "the optimizer; muon moves matrices, and embeddings, the head and vectors as adamw does"
    )
    learning_rate: float = leaf(3e-4, "highest learning rate, reached after the warmup")
    betas: tuple[float, float] = leaf(
        (0.9, 0.95), "decay of AdamW's two moments; muon and sgd take the first for their momentum"
    )
    eps: float = leaf(1e-8, "AdamW's epsilon")
    weight_decay: float = leaf(0.01, "decoupled weight decay; norms and biases are never decayed")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = leaf(
        "cosine", "shape of the learning rate after the warmup; wsd: constant, then linear decay at the end"
    )
    lr_warmup_steps: float = leaf(0.05, "steps of linear warmup, or a fraction of the run below 1")
    decay_steps: int | None = leaf(None, "steps after which the minimum is reached (default: the whole run)")
    decay_fraction: float = leaf(0.1, "share of the run, its last, in which wsd decays")
    min_learning_rate: float = leaf(0.0, "learning rate of the last step")
    lora_plus_ratio: float = leaf(1.0, "LoRA+: rate of the matrices B, as a multiple of that of A")
    in_backward: bool = leaf(
        False, "step each weight as soon as its gradient is there and let that go: gradients take almost no memory"
    )
    clip_norm: float | None = leaf(1.0, "largest gradient norm; null for no clipping")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least(
            "optim", self, {"weight_decay": 0, "lr_warmup_steps": 0, "decay_steps": 1, "min_learning_rate": 0}
        )
        if self.lr_warmup_steps:
            require_interval("optim.lr_warmup_steps", self.lr_warmup_steps)
        for name in ("learning_rate", "eps", "clip_norm", "lora_plus_ratio"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"optim.{name} is {value}; it must be above 0.")
        if not 0 < self.decay_fraction <= 1:
            raise ConfigError(f"optim.decay_fraction is {self.decay_fraction}; it must be above 0 and at most 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {list(self.betas)}; each must be from 0 to below 1.")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"optim.min_learning_rate is {self.min_learning_rate}, above optim.learning_rate {self.learning_rate}."
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Validation over the whole held-out split, with sampled answers."""

    interval: float | Literal["epoch"] = leaf(0.1, "validate every so many steps, fraction of the run, or `epoch`")
    max_new_tokens: int = leaf(100, "longest sampled answer in tokens")
    prompts: int = leaf(1, "how many rows, the first of test.pt, are answered at each validation")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("eval", self, {"max_new_tokens": 1, "prompts": 0})
        if self.interval != "epoch":
            require_interval("eval.interval", self.interval)


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters. Source: arXiv 2106.09685."""

    r: int = leaf(8, "rank of each adapter")
    alpha: float = leaf(16, "the adapter's output is scaled by alpha / r")
    dropout: float = leaf(0.05, "dropout on the adapter's input")
    targets: tuple[str, ...] = leaf(("q", "v"), f"which weights get one, among {', '.join(LORA_TARGETS)}")

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
        if self.train.micro_batch_size == "auto" and self.processes > 1:
            raise ConfigError(
                f"train.micro_batch_size is auto and devices x num_nodes is {self.processes}; ask litft plan, and "
                "write a number for several processes."
            )
        if self.measure and not self.dry_run:
            raise ConfigError("measure is true, which is for --dry_run true and litft plan; leave it out.")
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
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


def parse_duration(text: str | None) -> float | None:
    """Turns `24:00:00`, `24h`, `90m`, `30s` or plain seconds into seconds.

    Raises:
        ConfigError: the text is none of these.
    """
    if text is None:
        return None
    if clock := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return float(hours * 3600 + minutes * 60 + seconds)
    if unit := re.fullmatch(r"(\d+(?:\.\d+)?)([dhms]?)", text):
        return float(unit[1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}[unit[2]]
    raise ConfigError(f'train.max_time is "{text}"; write 24:00:00, 24h, 90m or a number of seconds.')
