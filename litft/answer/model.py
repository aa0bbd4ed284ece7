"""Opens the model that a command is to ask, and gives how it chooses tokens."""

from __future__ import annotations

from collections.abc import Callable

from litft.api import LLM
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.answer import AnsweringConfig
from litft.generate.sample import Sampling
from litft.methods.load import quantized_in_training

Report = Callable[[str], None]


def open_llm(config: AnsweringConfig, report: Report) -> LLM:
    """Opens the checkpoint and its draft, and says so where it was trained in fewer bits than it now has.

    Raises:
        CheckpointError, TokenizerError, ConfigError: it cannot be opened, with the reason.
    """
    llm = LLM.load(
        config.checkpoint_dir,
        config.precision,
        quantize=config.quantize,
        draft_dir=config.draft_dir,
        draft_tokens=config.draft_tokens,
    )
    trained = quantized_in_training(resolve_checkpoint_dir(config.checkpoint_dir))
    if trained not in ("none", config.quantize):
        report(f"This run was trained on a base in {trained}; --quantize {trained} answers with that one.")
    return llm


def report_draft(llm: LLM, report: Report) -> None:
    """Says how well the draft has guessed, if there is one."""
    if llm.draft and llm.draft.guessed:
        guessed, taken = llm.draft.guessed, llm.draft.taken
        report(f"The draft guessed {guessed:,} tokens; {taken:,} of them were taken ({taken / guessed:.0%}).")


def sampling_of(config: AnsweringConfig) -> Sampling:
    """Gives how each token is chosen."""
    return Sampling(config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty)
