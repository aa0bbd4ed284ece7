"""How long a run is, how its examples are batched, and how it is validated. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from litft.config.fields import leaf, require_at_least, require_interval
from litft.errors import ConfigError


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
    compile: Literal["auto", "none", "block"] = leaf(
        "auto",
        "block: torch.compile compiles each block, which takes a minute at the start; auto: on a GPU, but where the "
        "weights are cut over several; quantised ones never are",
    )
    attention: Literal["auto", "grouped", "varlen", "flex"] = leaf(
        "auto",
        "of packed rows. grouped: rows of like length side by side; varlen, flex: torch's kernels for GPUs; auto: on a "
        "GPU in 16 bits the first of these that can compute the model, after a trial",
    )
    offload_activations: bool = leaf(False, "keep activations in the CPU's memory until the backward pass: slower")
    epochs: int | None = leaf(1, "passes over the training rows")
    max_iters: int | None = leaf(None, "at most this many times micro_batch_size examples")
    max_steps: int | None = leaf(None, "at most this many optimizer steps")
    max_time: str | None = leaf(None, "at most this long: 24:00:00, 24h, 90m or seconds")
    max_gpu_hours: float | None = leaf(None, "at most so many hours of all processes together: 8 GPUs have 1/8 each")
    shuffle: bool = leaf(True, "a new order in each epoch; false keeps that of train.pt")
    max_seq_length: int | None = leaf(None, "leave out rows over this many tokens (default: as the data was prepared)")
    save_interval: float = leaf(0.25, "write a checkpoint every so many steps, or every fraction of the run below 1")
    save_async: bool = leaf(
        True, "write checkpoints beside the next steps, from a copy, where that has room; false: the steps wait"
    )
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
        if self.max_gpu_hours is not None and self.max_gpu_hours <= 0:
            raise ConfigError(f"train.max_gpu_hours is {self.max_gpu_hours}; it must be above 0.")
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

    def time_limit(self, processes: int) -> tuple[str, float] | None:
        """Gives the bound of a run's time that comes first, and its seconds; None without one.

        Args:
            processes: that train together.
        """
        limits = {"max_time": parse_duration(self.max_time)}
        limits["max_gpu_hours"] = self.max_gpu_hours and self.max_gpu_hours * 3600 / processes
        found = {name: seconds for name, seconds in limits.items() if seconds is not None}
        return min(found.items(), key=lambda item: item[1], default=None)

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
class EvalConfig:
    """Validation over the whole held-out split, with sampled answers."""

    interval: float | Literal["epoch"] = leaf(0.1, "validate every so many steps, fraction of the run, or `epoch`")
    max_new_tokens: int = leaf(100, "longest sampled answer in tokens")
    prompts: int = leaf(1, "how many rows, the first of test.pt, are answered at each validation")
    patience: int | None = leaf(None, "end the run after so many validations in a row that did not improve the loss")
    min_delta: float = leaf(0.0, "a smaller improvement of the held-out loss, in nats, is none to eval.patience")
    use_best: bool | None = leaf(
        None, "final/ holds the weights of the lowest held-out loss, not the last ones (default: with eval.patience)"
    )

    @property
    def keeps_best(self) -> bool:
        """Whether `final/` is to hold the best weights."""
        return self.patience is not None if self.use_best is None else self.use_best

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("eval", self, {"max_new_tokens": 1, "prompts": 0, "patience": 1, "min_delta": 0})
        if self.interval != "epoch":
            require_interval("eval.interval", self.interval)


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
