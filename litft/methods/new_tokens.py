"""New rows of the embedding and of the head, for tokens that a model has not met; trained beside any method.

A new row begins as the mean of the rows of the pieces that its token was written with before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.errors import ConfigError
from litft.methods.base import Full, Method, swap_module
from litft.model.gpt import GPT
from litft.text.new_tokens import NewTokens

EMBEDDING, HEAD = "transformer.wte", "lm_head"


def with_new_tokens(method: Method, values: Mapping[str, Any]) -> Method:
    """Gives the method as it is, or with the tokens that `new_tokens` among these values describes."""
    new = values.get("new_tokens")
    return WithNewTokens(method, NewTokens.from_dict(new)) if new else method


def grown_config(config: ModelConfig, new: NewTokens) -> ModelConfig:
    """Gives the sizes with the new tokens; rows that the model has to spare are used first."""
    rows = max(config.padded_vocab_size, new.vocab_size)
    return dataclasses.replace(config, vocab_size=new.vocab_size, padded_vocab_size=rows)


def first_rows(weight: Tensor, new: NewTokens) -> Tensor:
    """Gives what the new rows begin as: (V, C) -> (n, C) float32."""
    return torch.stack([weight[list(numbers)].float().mean(0) for numbers in new.pieces])


def with_rows(weight: Tensor, rows: Tensor, first_id: int) -> Tensor:
    """Puts rows in place: (V, ...) and (n, ...) -> (max(V, first_id + n), ...) in the weight's dtype."""
    return torch.cat((weight[:first_id], rows.to(weight.dtype), weight[first_id + len(rows) :]))


class EmbeddingWithNewRows(nn.Module):
    """A frozen embedding, and float32 rows of its own for the new ids."""

    def __init__(self, base: nn.Embedding, new: NewTokens) -> None:
        super().__init__()
        self.base, self.first_id = base, new.first_id
        self.new_rows = nn.Parameter(first_rows(base.weight.detach(), new))

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        place = input_ids - self.first_id
        is_new = (place >= 0) & (place < len(self.new_rows))
        known: Tensor = self.base(input_ids.masked_fill(is_new, 0))
        rows = F.embedding(place.clamp(0, len(self.new_rows) - 1), self.new_rows.to(known.dtype))
        return torch.where(is_new[..., None], rows, known)


class HeadWithNewRows(nn.Module):
    """A head whose logits of the new ids come from rows of their own."""

    def __init__(self, base: nn.Module, new_rows: nn.Parameter, first_id: int) -> None:
        super().__init__()
        self.base, self.first_id = base, first_id
        self.new_rows = new_rows

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)."""
        known = self.base(hidden)
        new = F.linear(hidden, self.new_rows.to(hidden.dtype))
        return torch.cat((known[..., : self.first_id], new, known[..., self.first_id + new.shape[-1] :]), dim=-1)


class WithNewTokens:
    """A method, and new rows of embedding and head trained beside what it trains."""

    def __init__(self, method: Method, new: NewTokens) -> None:
        self.method, self.new = method, new
        self.name, self.weights_file = method.name, method.weights_file

    def apply(self, model: GPT) -> None:
        """Applies the method, then grows embedding and head: whole where all is trained, else by rows beside them."""
        head = model.lm_head.weight.detach()
        self.method.apply(model)
        if isinstance(self.method, Full):
            self._grow(model)
        else:
            self._add(model, head)
        model.config = grown_config(model.config, self.new)

    def _grow(self, model: GPT) -> None:
        """Replaces both matrices by larger ones.

        Raises:
            ConfigError: one of them is frozen.
        """
        if not all(self.method.is_trainable(f"{path}.weight") for path in (EMBEDDING, HEAD)):
            raise ConfigError(
                "The data has new tokens, whose rows of the embedding and of the head must be trained; leave out "
                "train.freeze_embed and train.freeze_head."
            )
        for path in (EMBEDDING, HEAD):
            module = cast(nn.Linear, model.get_submodule(path))
            rows = first_rows(module.weight.detach(), self.new)
            module.weight = nn.Parameter(with_rows(module.weight.detach(), rows, self.new.first_id))
            if path == HEAD and module.bias is not None:
                zeros = torch.zeros(len(rows), device=rows.device)
                module.bias = nn.Parameter(with_rows(module.bias.detach(), zeros, self.new.first_id))
        model.tie_weights()

    def _add(self, model: GPT, head: Tensor) -> None:
        """Wraps both; a tied head shares the rows of the embedding."""
        embedding = EmbeddingWithNewRows(cast(nn.Embedding, model.get_submodule(EMBEDDING)), self.new)
        tied = model.config.tie_embeddings
        rows = embedding.new_rows if tied else nn.Parameter(first_rows(head, self.new))
        swap_module(model, EMBEDDING, embedding)
        swap_module(model, HEAD, HeadWithNewRows(model.get_submodule(HEAD), rows, self.new.first_id))

    def is_trainable(self, name: str) -> bool:
        """True for what the method trains and for the new rows."""
        return name.endswith(".new_rows") or self.method.is_trainable(name)

    def settings(self) -> dict[str, Any]:
        """Gives the method's settings and the new tokens."""
        return {**self.method.settings(), "new_tokens": self.new.to_dict()}
