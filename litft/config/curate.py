"""What `litft curate` is told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.answer import Precision
from litft.config.asking import AskedConfig, EndpointConfig
from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Prepared rows, and the checkpoint that scores them."""

    data_dir: Path = leaf(REQUIRED, "prepared data; it is only read")
    checkpoint_dir: Path = leaf(
        REQUIRED, "the model that scores: converted, merged or finetuned, with the tokenizer of the data"
    )
    destination_path: Path = leaf(REQUIRED, "where the rows go with their scores; a killed run goes on there")
    by: Literal["ifd", "loss"] = leaf(
        "ifd",
        "loss: mean nats a token of the answers; ifd: that, divided by the same of the answers without their questions "
        "(near 1 and above, the question does not help; low, the model can do it already)",
    )
    micro_batch_size: int = leaf(4, "rows computed at once; changes speed and memory, not the scores")
    precision: Precision | None = leaf(None, "default: that of the weights; the loss is float32 in both")
    overwrite: bool = leaf(False, "replace finished data, or the begun scores of another model, at destination_path")

    def __post_init__(self) -> None:
        """Refuses batches of nothing.

        Raises:
            ConfigError: naming the value.
        """
        require_at_least("", self, {"micro_batch_size": 1})


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(EndpointConfig):
    """Prepared rows, and the endpoint whose model scores them."""

    data_dir: Path = leaf(REQUIRED, "prepared data; it is only read")
    endpoint: str = leaf(REQUIRED, "address of an OpenAI-compatible server: http://localhost:8000/v1")
    model: str = leaf(REQUIRED, "the model, as the endpoint calls it")
    destination_path: Path = leaf(REQUIRED, "where the rows go with their scores; a killed run goes on there")
    prompt: Path | None = leaf(
        None,
        "a text file that asks for a score from 0 to 5 on the first line, with {conversation}, or {question} and "
        "{answer}, where the row is to stand (default: a prompt in the manner of AlpaGasus)",
    )
    max_new_tokens: int = leaf(256, "longest reply in tokens")
    held_out: bool = leaf(True, "judge the rows of test.pt too")
    checkpoint_dir: Path | None = leaf(
        None,
        "a model with the tokenizer of the data (default: the one beside the data, else its model in checkpoints/)",
    )
    overwrite: bool = leaf(False, "replace finished data at destination_path; replies that are there are still used")

    def __post_init__(self) -> None:
        """Refuses replies of nothing.

        Raises:
            ConfigError: naming the value; and as for every endpoint.
        """
        super().__post_init__()
        require_at_least("", self, {"max_new_tokens": 1})


@dataclass(frozen=True, kw_only=True)
class AskConfig(AskedConfig):
    """A model to be asked, and where its rows go."""

    out: Path = leaf(REQUIRED, "the JSON Lines to write; NAME.replies.jsonl beside it keeps every reply")
    overwrite: bool = leaf(False, "replace the file; replies that are there are still used")

    def __post_init__(self) -> None:
        """Refuses a name that is not one of JSON Lines.

        Raises:
            ConfigError: naming it; and as for every model that is asked.
        """
        super().__post_init__()
        if self.out.suffix != ".jsonl":
            raise ConfigError(
                f"out is {self.out}; its name must end in .jsonl, such as {self.out.with_suffix('.jsonl')}."
            )


@dataclass(frozen=True, kw_only=True)
class GrowConfig(AskConfig):
    """Self-Instruct: new tasks from seeds."""

    seeds: Path = leaf(
        REQUIRED, 'tasks to begin with, 8 or more, as JSON Lines of {"instruction", "instances": [{"input", "output"}]}'
    )
    count: int = leaf(REQUIRED, "new tasks to come to, each with up to five rows")
    max_similarity: float = leaf(0.7, "ROUGE-L to any other task from which on a new one is dropped")
    temperature: float = leaf(0.7, "for new instructions, higher for more variety; instances take the likeliest tokens")
    top_p: float = leaf(0.5, "for new instructions, of the likeliest tokens those that together reach this probability")
    max_new_tokens: int = leaf(1024, "longest reply in tokens")
    patience: int = leaf(20, "ends after so many requests in a row that gave no new task")
    seed: int = leaf(42, "draws the tasks that are shown")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range; and as for every model that is asked.
        """
        super().__post_init__()
        require_seed(self.seed)
        require_at_least("", self, {"count": 1, "max_new_tokens": 1, "patience": 1, "temperature": 0})
        for name in ("max_similarity", "top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class BacktranslateConfig(AskConfig):
    """Instruction backtranslation: instructions for texts that are there."""

    documents: Path = leaf(REQUIRED, 'texts, each to become an answer: JSON Lines of {"text"}, or plain text')
    score: bool = leaf(False, "have the same model rate each pair from 0 to 5, as litft curate judge asks for it")
    min_score: float | None = leaf(
        None, "lowest score of a pair that is kept, from 0 to 5; the paper keeps 4.5 and more"
    )
    temperature: float = leaf(0.0, "0 for the likeliest instruction; higher for more variety")
    max_new_tokens: int = leaf(256, "longest instruction in tokens")
    seed: int = leaf(42, "of the chance at a temperature above 0")

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and a lowest score of what is not rated.

        Raises:
            ConfigError: naming the field; and as for every model that is asked.
        """
        super().__post_init__()
        require_seed(self.seed)
        require_at_least("", self, {"max_new_tokens": 1, "temperature": 0, "min_score": 0})
        if self.min_score is not None and (not self.score or self.min_score > 5):
            raise ConfigError(f"min_score is {self.min_score}; it may be up to 5, and needs --score true.")
