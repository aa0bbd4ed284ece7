"""Validation: loss and accuracy over the whole held-out split, and answers to its first rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from litft.data.batches import Batching
from litft.data.store import PreparedData
from litft.generate.engine import Engine
from litft.generate.request import Request
from litft.generate.sample import Sampling, evaluating
from litft.text.encoding import stop_ids
from litft.train.loss import TokenLoss, chunk_tokens, sum_loss_and_correct
from litft.train.parallel import Share, add_up, is_cut, own_share
from litft.train.state import Run, trained_style


@dataclass(frozen=True)
class Validation:
    """Loss in nats per target token and the share of targets that were the likeliest token.

    Attributes:
        loss, accuracy: over all rows.
        by_source, accuracy_by_source: of each source of the data, in their order; empty where there is one.
    """

    loss: float
    accuracy: float
    by_source: dict[str, float]
    accuracy_by_source: dict[str, float]

    def __str__(self) -> str:
        """Gives it to be read."""
        found = zip(self.by_source.items(), self.accuracy_by_source.values(), strict=True)
        sources = ", ".join(f"{name} {loss:.4f} {accuracy:.1%}" for (name, loss), accuracy in found)
        return f"{self.loss:.4f}, accuracy {self.accuracy:.1%}{f' ({sources})' if sources else ''}"


def validate(
    fabric: Fabric, model: Any, data: PreparedData, rows: Sequence[int], batching: Batching, token_loss: TokenLoss
) -> Validation:
    """Gives loss and accuracy over these rows, all of them, in a fixed order, source by source.

    Args:
        fabric: for autocast.
        model: a GPT, or Fabric's wrapper of one.
        data: the held-out split.
        rows: which of its rows.
        batching: rows computed at once.
        token_loss: the recipe's.
    """
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(data.source[row]), []).append(row)
    sums = {}
    with evaluating(model), fabric.autocast():
        for source, group in sorted(groups.items()):
            sums[source] = _sums(fabric, model, own_share(fabric, data, group, batching), token_loss)
    loss, correct, count = (sum(parts) for parts in zip(*sums.values(), strict=True))
    names, several = data.meta.get("source_names", []), sums if len(sums) > 1 else {}
    losses = {names[source]: part / tokens for source, (part, _, tokens) in several.items()}
    accuracies = {names[source]: likeliest / tokens for source, (_, likeliest, tokens) in several.items()}
    return Validation(loss / count, correct / count, losses, accuracies)


def _sums(fabric: Fabric, model: Any, share: Share, token_loss: TokenLoss) -> tuple[float, float, int]:
    """Gives the sum of losses, how many targets were likeliest, and how many targets there are, over all processes."""
    loss, correct = torch.zeros((), device=fabric.device), torch.zeros((), device=fabric.device)
    for batch in share.micro_batches:
        batch = batch.to(fabric.device)
        hidden = model(batch.input_ids, documents=batch.documents)
        chunk = chunk_tokens(model.config.padded_vocab_size, hidden.device)
        where = batch.targets, token_loss, chunk, batch.target_places
        batch_loss, batch_correct = sum_loss_and_correct(model.head, hidden, *where)
        loss, correct = loss + batch_loss, correct + batch_correct
    for batch in share.idle:
        model(batch.input_ids.to(fabric.device), documents=batch.documents)
    total, likeliest = add_up(fabric, loss.item(), correct.item())
    return total, likeliest, share.target_tokens


def sample_answers(run: Run, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Answers the prompts of these rows greedily.

    Args:
        run: its bare model is asked, in its precision.
        rows: of the held-out split; a prompt is the tokens before a row's first target.

    Returns:
        For each row: its number, prompt, answer and the expected answer.
    """
    inputs, answers = run.inputs, []
    ends = stop_ids(inputs.tokenizer, trained_style(inputs))
    with evaluating(run.gpt), run.fabric.autocast():
        for row in rows:
            ids, mask = inputs.test.row(row)
            first = int(mask.int().argmax())
            prompt = ids[: max(first, 1)].tolist()
            count = min(inputs.config.eval.max_new_tokens, run.gpt.config.block_size - len(prompt))
            tokens = _answer(run, prompt, count, frozenset(ends)) if count > 0 else []
            expected = ids[first:][mask[first:]].tolist()
            texts = (inputs.tokenizer.decode(part) for part in (prompt, tokens, expected))
            answers.append({"row": int(row), **dict(zip(("prompt", "answer", "expected"), texts, strict=True))})
    return answers


def _answer(run: Run, prompt: list[int], count: int, ends: frozenset[int]) -> list[int]:
    """Gives the likeliest tokens after a prompt, up to one of `ends`.

    Where the weights are cut all processes compute the same answer, and to its full length: two GPUs that disagree on a
    token must not disagree on the number of passes.
    """
    stop_ids = frozenset() if is_cut(run.fabric) else ends
    engine = Engine(run.gpt, run.inputs.tokenizer, slots=1, room=len(prompt) + count)
    [answer] = engine.run([Request(tuple(prompt), count, Sampling(), stop_ids)])
    return list(itertools.takewhile(lambda number: number not in ends, (token.id for token in answer.tokens)))
