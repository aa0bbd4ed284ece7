"""litft from Python: `LLM.load`, then generate, chat or logits. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.files import resolve_checkpoint_dir
from litft.checkpoint.tensors import read_safetensors_header
from litft.errors import ConfigError, GenerationError
from litft.generate.draft import Draft
from litft.generate.engine import Engine
from litft.generate.request import Answer, Request, Token, to_answer, to_continue
from litft.generate.sample import Sampling, evaluating
from litft.methods.load import load_finetuned, weights_files
from litft.model.gpt import GPT
from litft.model.packed import prepare_for_decoding
from litft.text.conversation import ASSISTANT, ROLES, Conversation, Message
from litft.text.encoding import Style
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer


class LLM:
    """A model with its tokenizer and prompt style.

    Attributes:
        model: the GPT, in evaluation mode; on a CPU a weight is without memory once it was laid out for decoding.
        tokenizer: the checkpoint's own.
        style: the prompt style saved with the checkpoint, else its chat template, else Alpaca's.
        draft: a smaller model that guesses ahead, if any, and how well it did.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, style: Style, draft: Draft | None = None) -> None:
        self.model, self.tokenizer, self.style, self.draft = model, tokenizer, style, draft

    @classmethod
    def load(
        cls,
        checkpoint_dir: str | Path,
        precision: str | None = None,
        device: str | None = None,
        quantize: str = "none",
        draft_dir: str | Path | None = None,
        draft_tokens: int = 4,
    ) -> LLM:
        """Opens a converted, merged or finetuned checkpoint.

        Args:
            checkpoint_dir: a folder, or ORG/NAME under checkpoints/.
            precision: `32-true` or `bf16-true`; None takes float32 where the weights are, bfloat16 otherwise.
            device: such as `cuda:0`; None takes the GPU where there is one.
            quantize: keeps the blocks in fewer bits: `bnb.nf4`, `bnb.nf4-dq`, `bnb.fp4`, `bnb.fp4-dq` or `bnb.int8`. A
                run that was trained so is asked so only where this says it.
            draft_dir: a smaller checkpoint with the same tokenizer that guesses ahead; answers stay the model's.
            draft_tokens: how many tokens it guesses at a time.

        Raises:
            CheckpointError, TokenizerError, ConfigError: it cannot be opened, with the reason.
        """
        folder = resolve_checkpoint_dir(Path(checkpoint_dir))
        tokenizer, style = Tokenizer(folder), load_style(folder)
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        draft_folder = None if draft_dir is None else draft_folder_of(Path(draft_dir), folder, tokenizer)
        model = load_for_decoding(folder, precision, where, quantize)
        draft = Draft(load_for_decoding(draft_folder, precision, where), draft_tokens) if draft_folder else None
        return cls(model, tokenizer, style, draft)

    @property
    def context(self) -> int:
        """How many tokens a prompt and its answer may have together: the model's context, or the draft's if shorter."""
        models = [self.model, *([self.draft.model] if self.draft else [])]
        return min(model.config.block_size for model in models)

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
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
            min_p: choose among tokens with at least this share of the likeliest one's probability.
            repetition_penalty: above 1 makes tokens that were said before less likely.

        Returns:
            What follows the prompt, with the space between them if there is one.

        Raises:
            GenerationError: a prompt or number that cannot be used.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        return self.answer(self.to_continue(prompt, max_new_tokens, sampling, stop or (), seed)).text

    def generate_many(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 50,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        at_once: int = 16,
    ) -> list[str]:
        """Continues many texts, several at once, each as `generate` does alone.

        Args:
            prompts: the texts.
            max_new_tokens, temperature, top_k, top_p, stop, seed, min_p, repetition_penalty: as in `generate`.
            at_once: how many; each takes memory for the longest of them.

        Returns:
            What follows each prompt.

        Raises:
            GenerationError: a prompt or number that cannot be used.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        requests = [self.to_continue(prompt, max_new_tokens, sampling, stop or (), seed) for prompt in prompts]
        return [answer.text for answer in self.run(requests, at_once)]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_new_tokens: int = 200,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
    ) -> str:
        """Answers the last message of a conversation, through the prompt style saved with the checkpoint.

        Args:
            messages: `{"role": "system" | "user" | "assistant", "content": text}`, the last one a user's.
            max_new_tokens, temperature, top_k, top_p, stop, seed, min_p, repetition_penalty: as in `generate`.

        Returns:
            The answer.

        Raises:
            GenerationError: roles in an order that cannot be answered.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        return self.answer(self.to_answer(conversation_of(messages), max_new_tokens, sampling, stop or (), seed)).text

    def iter_answer(
        self,
        conversation: Conversation,
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Gives the answer to the last turn, piece by piece; the ids fed are those that training would have fed."""
        request = self.to_answer(conversation, max_new_tokens, sampling, stop, seed)
        return (token.text for token in self.iter_tokens(request))

    def to_continue(
        self, prompt: str, max_new_tokens: int, sampling: Sampling, stop: Sequence[str] = (), seed: int | None = None
    ) -> Request:
        """Gives the request to go on from a text, fed as it is."""
        return to_continue(self.tokenizer, prompt, max_new_tokens, sampling, stop, seed)

    def to_answer(
        self,
        conversation: Conversation,
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Request:
        """Gives the request to answer the last turn, through the prompt style."""
        return to_answer(self.tokenizer, self.style, conversation, max_new_tokens, sampling, stop, seed)

    def answer(self, request: Request) -> Answer:
        """Answers one request."""
        return next(self.run([request]))

    def run(self, requests: Sequence[Request], at_once: int = 16) -> Iterator[Answer]:
        """Answers requests, several at once, and gives the answers in their order.

        Args:
            requests: to be answered; the cache has room for the longest of them.
            at_once: how many.

        Raises:
            GenerationError: one can never be answered.
        """
        return self.engine_for(requests, at_once).run(requests)

    def iter_tokens(self, request: Request) -> Iterator[Token]:
        """Answers one request, token by token; the texts joined are the answer.

        Raises:
            GenerationError: it can never be answered.
        """
        return self.engine_for([request]).iter_tokens(request)

    def engine_for(self, requests: Sequence[Request], at_once: int = 16) -> Engine:
        """Gives an engine that has room for each of these requests, as far as the context goes."""
        room = max((len(request.prompt_ids) + request.max_new_tokens for request in requests), default=1)
        return Engine(self.model, self.tokenizer, max(1, min(at_once, len(requests))), max(1, room), self.draft)

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
    if not all(message["content"] is None or isinstance(message["content"], str) for message in messages):
        raise GenerationError("Each message's content must be text.")
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


def draft_folder_of(draft_dir: Path, checkpoint_dir: Path, tokenizer: Tokenizer) -> Path:
    """Gives the folder of a draft.

    Args:
        draft_dir: as it was typed.
        checkpoint_dir, tokenizer: of the model that it is to guess for.

    Raises:
        ConfigError: its ids are other tokens.
        CheckpointError, TokenizerError: it cannot be opened, with the reason.
    """
    folder = resolve_checkpoint_dir(draft_dir)
    if Tokenizer(folder).hash != tokenizer.hash:
        raise ConfigError(
            f"draft_dir {draft_dir} has another tokenizer than {checkpoint_dir}; give a smaller model of the same "
            "family as the draft."
        )
    return folder


def load_for_decoding(folder: Path, precision: str | None, device: torch.device, quantize: str = "none") -> GPT:
    """Gives the model of a folder, laid out for answers; in the precision of its weights where none is given."""
    model = load_finetuned(folder, precision or own_precision(folder), device, quantize)
    prepare_for_decoding(model)
    return model


def own_precision(checkpoint_dir: Path) -> str:
    """Gives `32-true` where a checkpoint's base weights are float32, else `bf16-true`."""
    specs = read_safetensors_header(weights_files(checkpoint_dir)[0])
    return "32-true" if all(spec.dtype == torch.float32 for spec in specs.values()) else "bf16-true"


def own_device(llm: LLM) -> str:
    """Gives where a model computes."""
    return str(next(llm.model.parameters()).device)
