"""What `litft evaluate` and `litft judge` are told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.answer import Precision
from litft.config.asking import AskedConfig, PatienceConfig
from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed
from litft.config.run import Quantize
from litft.errors import ConfigError

RESULTS_DIR = Path("out/evaluate")
JUDGEMENTS_DIR = Path("out/judge")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """A checkpoint, and what it is measured with: prepared rows, published tasks, or both."""

    checkpoint_dir: Path = leaf(REQUIRED, "a converted, merged or finetuned checkpoint")
    beside: Path | None = leaf(None, "another checkpoint to measure in the same way, such as the base")
    data_dir: Path | None = leaf(None, "prepared data: loss, perplexity and accuracy of its rows, by source")
    split: Literal["train", "test"] = leaf("test", "which file of data_dir")
    generate: int = leaf(0, "also answer so many rows greedily, and compare with the answers of the data")
    max_new_tokens: int = leaf(256, "longest of these answers in tokens")
    tasks: tuple[str, ...] = leaf((), "tasks of lm-evaluation-harness: mmlu,truthfulqa_mc2 (needs litft[eval])")
    tasks_dir: Path | None = leaf(None, "a folder with YAML files of further tasks, in the harness's form")
    num_fewshot: int | None = leaf(None, "solved examples before each question of a task (default: as the task says)")
    limit: int | None = leaf(None, "only the first so many questions of each task, for a trial")
    apply_chat_template: bool = leaf(False, "ask the tasks through the prompt style saved with the checkpoint")
    micro_batch_size: int = leaf(4, "rows computed at once; changes speed and memory, not what is measured")
    slots: int = leaf(16, "answers that are written at once")
    precision: Precision | None = leaf(None, "default: that of the weights")
    quantize: Quantize = leaf("none", "keep the linear layers of the blocks in 4 or 8 bits, as in litft finetune")
    seed: int = leaf(1234, "of the tasks' chance: which solved examples stand before a question")
    out_dir: Path | None = leaf(
        None, f"where the numbers and the page go (default: a folder of {RESULTS_DIR} named after the checkpoint)"
    )

    def __post_init__(self) -> None:
        """Refuses nothing to measure, flags without their partner, and numbers out of range.

        Raises:
            ConfigError: saying which to give, or naming the field, its value and its range.
        """
        if self.data_dir is None and not self.tasks:
            raise ConfigError("Give --data_dir (prepared rows) or --tasks (of lm-evaluation-harness), or both.")
        if self.generate and self.data_dir is None:
            raise ConfigError("--generate answers rows of prepared data; name them with --data_dir.")
        for name in ("tasks_dir", "num_fewshot", "limit", "apply_chat_template"):
            if getattr(self, name) not in (None, False) and not self.tasks:
                raise ConfigError(f"--{name} goes with --tasks.")
        least = dict.fromkeys(("max_new_tokens", "limit", "micro_batch_size", "slots"), 1)
        require_at_least("", self, {**least, "generate": 0, "num_fewshot": 0})
        require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class PairwiseConfig(PatienceConfig):
    """Two models that answer the same prompts, and one that says whose answers are better."""

    a: Path = leaf(REQUIRED, 'a checkpoint, or answers that are there: JSON Lines of {"prompt", "answer"}')
    b: Path = leaf(REQUIRED, "the other one")
    judge: str = leaf(
        REQUIRED,
        "who judges: http://localhost:8000/v1 (with --model), or a checkpoint of this machine; it must follow orders: "
        'each reply is to be JSON with "reason" and "better": "1", "2" or "tie"',
    )
    model: str | None = leaf(None, "the model that judges behind an address, as the server calls it")
    data_dir: Path | None = leaf(None, "ask the questions of the held-out rows of prepared data")
    prompt_file: Path | None = leaf(None, 'ask these: JSON Lines of {"prompt"}, or plain text with one a line')
    count: int | None = leaf(None, "only the first so many prompts")
    max_new_tokens: int = leaf(512, "longest answer of a and b in tokens")
    judge_tokens: int = leaf(256, "longest reply of the judge in tokens")
    slots: int = leaf(16, "answers of a checkpoint that are written at once")
    precision: Precision | None = leaf(None, "of the checkpoints (default: that of their weights)")
    seed: int = leaf(42, "sent with each request to the judge, which may draw its reply by chance")
    out_dir: Path | None = leaf(
        None, f"where answers, verdicts and the page go (default: a folder of {JUDGEMENTS_DIR} named after a and b)"
    )

    def __post_init__(self) -> None:
        """Refuses prompts from nowhere or from two places, and numbers out of range.

        Raises:
            ConfigError: saying which to give, or naming the field, its value and its range; and as for every endpoint.
        """
        super().__post_init__()
        if self.is_remote != (self.model is not None):
            missing = "give it too" if self.is_remote else "leave it away for a checkpoint"
            raise ConfigError(f"--model goes with --judge ADDRESS: the model, as the server calls it; {missing}.")
        self.judging()
        given = [name for name in ("data_dir", "prompt_file") if getattr(self, name) is not None]
        if len(given) == 2:
            raise ConfigError("Give --data_dir (held-out rows) or --prompt_file, not both.")
        are_files = self.a.suffix == ".jsonl" or self.b.suffix == ".jsonl"
        if not given and not are_files:
            raise ConfigError("Give the prompts: --data_dir (held-out rows) or --prompt_file.")
        require_at_least("", self, dict.fromkeys(("count", "max_new_tokens", "judge_tokens", "slots"), 1))
        require_seed(self.seed)

    @property
    def is_remote(self) -> bool:
        """Whether the judge is behind an address."""
        return re.match(r"[a-z]+://", self.judge, re.IGNORECASE) is not None

    def judging(self) -> AskedConfig:
        """Gives the model that judges, as one to be asked.

        Raises:
            ConfigError: the address cannot be used; and as for every endpoint.
        """
        if not self.is_remote:
            return AskedConfig(checkpoint_dir=Path(self.judge), precision=self.precision)
        return AskedConfig(
            endpoint=self.judge,
            model=self.model,
            api_key_env=self.api_key_env,
            requests_at_once=self.requests_at_once,
            retries=self.retries,
            timeout_seconds=self.timeout_seconds,
        )
