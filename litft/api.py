"""litft from Python: `LLM.load`, then generate, chat or logits. Knows nothing of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.files import resolve_checkpoint_dir
from litft.checkpoint.tensors import read_safetensors_header
from litft.config.answer import GenerateConfig
from litft.errors import GenerationError
from litft.generate.answer import iter_text
from litft.generate.sample import Sampling, evaluating
from litft.methods.load import load_finetuned, quantized_in_training, weights_files
from litft.model.gpt import GPT
from litft.text.conversation import ASSISTANT, ROLES, USER, Conversation, Message
from litft.text.encoding import Style, encode_prompt, stop_ids
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer


class LLM:
    """A model with its tokenizer and prompt style.

    Attributes:
        model: the GPT, in evaluation mode.
        tokenizer: the checkpoint's own.
        style: the prompt style saved with the checkpoint, else its chat template, else Alpaca's.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, style: Style) -> None:
        self.model, self.tokenizer, self.style = model, tokenizer, style

    @classmethod
    def load(
        cls,
        checkpoint_dir: str | Path,
        precision: str | None = None,
        device: str | None = None,
        quantize: str = "none",
    ) -> LLM:
        """Opens a converted, merged or finetuned checkpoint.

        Args:
            checkpoint_dir: a folder, or ORG/NAME under checkpoints/.
            precision: `32-true` or `bf16-true`; None takes float32 where the weights are, bfloat16 otherwise.
            device: such as `cuda:0`; None takes the GPU where there is one.
            quantize: keeps the blocks in fewer bits: `bnb.nf4`, `bnb.nf4-dq`, `bnb.fp4`, `bnb.fp4-dq` or `bnb.int8`. A
                run that was trained so is asked so only where this says it.

        Raises:
            CheckpointError, TokenizerError, ConfigError: it cannot be opened, with the reason.
        """
        folder = resolve_checkpoint_dir(Path(checkpoint_dir))
        tokenizer, style = Tokenizer(folder), load_style(folder)
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(load_finetuned(folder, precision or own_precision(folder), where, quantize), tokenizer, style)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> str:
        """Continues a text, fed as it is (with BOS where the model was trained with one).

        Args:
            prompt: the text.
            max_new_tokens: longest continuation in tokens.
            temperature: 0 for the likeliest token every time.
            top_k: choose among the k likeliest tokens.
            top_p: choose among the likeliest tokens that together reach this probability.
            stop: texts at which the answer ends; they are left out.
            seed: the same seed gives the same text on the same machine.

        Returns:
            What follows the prompt, with the space between them if there is one.

        Raises:
            GenerationError: a prompt or number that cannot be used.
        """
        sampling = Sampling(temperature, top_k, top_p)
        ids = self.tokenizer.encode(prompt)
        return "".join(
            iter_text(
                self.model,
                self.tokenizer,
                ids,
                max_new_tokens,
                sampling,
                self.tokenizer.stop_ids,
                stop or (),
                seed,
                continues=True,
            )
        )

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> str:
        """Answers the last message of a conversation, through the prompt style saved with the checkpoint.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": text}`, the last one a user's.
            max_new_tokens, temperature, top_k, top_p, stop, seed: as in `generate`.

        Returns:
            The answer.

        Raises:
            GenerationError: roles in an order that cannot be answered.
        """
        sampling = Sampling(temperature, top_k, top_p)
        return "".join(self.iter_answer(conversation_of(messages), max_new_tokens, sampling, stop or (), seed))

    def iter_answer(
        self,
        conversation: Conversation,
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Gives the answer to the last turn, piece by piece; the ids fed are those that training would have fed."""
        ids = encode_prompt(self.tokenizer, self.style, conversation)
        stops = (*self.style.stop, *stop)
        ends = stop_ids(self.tokenizer, self.style)
        return iter_text(self.model, self.tokenizer, ids, max_new_tokens, sampling, ends, stops, seed)

    def logits(self, token_ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Gives the scores of the next token at every position.

        Args:
            token_ids: (B, T), a tensor or lists of equal length, such as `[llm.tokenizer.encode("Hello")]`.

        Returns:
            (B, T, V) float32; V is `padded_vocab_size`.
        """
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            return self.model.head(self.model(torch.as_tensor(token_ids).to(device))).float()


def conversation_of(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Turns role messages into a conversation whose last answer is to be given.

    Raises:
        GenerationError: a message is none, its role is unknown, or nothing is to be answered.
    """
    if not all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in messages):
        raise GenerationError('Each message must be a mapping such as {"role": "user", "content": "Hi"}.')
    roles = [message["role"] for message in messages]
    if not roles or roles[-1] == ASSISTANT or not set(roles) <= set(ROLES):
        raise GenerationError(
            f"The messages have the roles {roles}; they must be of {', '.join(ROLES)}, and the last must not be the "
            "assistant's."
        )
    told = (
        Message(
            message["role"],
            message["content"] or "",
            fields={key: value for key, value in message.items() if key not in ("role", "content")},
        )
        for message in messages
    )
    return Conversation(tuple(told))


def own_precision(checkpoint_dir: Path) -> str:
    """Gives `32-true` where a checkpoint's base weights are float32, else `bf16-true`."""
    specs = read_safetensors_header(weights_files(checkpoint_dir)[0])
    return "32-true" if all(spec.dtype == torch.float32 for spec in specs.values()) else "bf16-true"


def generate(config: GenerateConfig, report: Callable[[str], None] = lambda message: None) -> Iterator[str]:
    """`litft generate`: gives the answer piece by piece and reports the speed.

    Args:
        config: the checkpoint, the request and the sampling.
        report: told how long it took.
    """
    llm = LLM.load(config.checkpoint_dir, config.precision, quantize=config.quantize)
    trained = quantized_in_training(resolve_checkpoint_dir(config.checkpoint_dir))
    if trained not in ("none", config.quantize):
        report(f"This run was trained on a base in {trained}; --quantize {trained} answers with that one.")
    sampling = Sampling(config.temperature, config.top_k, config.top_p)
    if config.prompt is not None:
        ids = llm.tokenizer.encode(config.prompt)
        rest = (config.max_new_tokens, sampling, llm.tokenizer.stop_ids, config.stop, config.seed)
        pieces = iter_text(llm.model, llm.tokenizer, ids, *rest, continues=True)
    else:
        question = Conversation((Message(USER, config.instruction or "", config.input),))
        pieces = llm.iter_answer(question, config.max_new_tokens, sampling, config.stop, config.seed)
    started, count = time.perf_counter(), 0
    for piece in pieces:  # one a token, empty where the text is not certain yet
        count += 1
        yield piece
    yield "\n"
    seconds = time.perf_counter() - started
    report(f"{count} tokens in {seconds:.1f} s, {count / seconds:.1f} tokens/s, {own_device(llm)}")


def own_device(llm: LLM) -> str:
    """Gives where a model computes."""
    return str(next(llm.model.parameters()).device)
