"""How likely a model holds texts to be, each behind its context: what multiple choice is scored by.

Texts are packed end to end, the longest first. A context that several texts stand behind is computed once, and texts of
one token need nothing more. Knows ids, no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from litft.data.batches import MULTIPLE, pack
from litft.errors import GenerationError
from litft.generate.sample import evaluating
from litft.model.gpt import GPT
from litft.train.loss import chunk_tokens

Ids = tuple[int, ...]

# Where angles depend on how long the whole text is, a beginning is not the same behind two texts.
BY_LENGTH = ("longrope", "dynamic")


class Pair(NamedTuple):
    """A text and what stands before it; each has at least one token."""

    context: Ids
    text: Ids


class Likelihood(NamedTuple):
    """What a model makes of a text.

    Attributes:
        logprob: natural, summed over its tokens.
        is_greedy: whether each of them was the likeliest.
    """

    logprob: float
    is_greedy: bool


class _Bundle(NamedTuple):
    """Pairs that are computed together.

    Attributes:
        beginning: what they share.
        bodies: what else of each text is read, and the pairs that end in it; one that is empty reads nothing more.
    """

    beginning: Ids
    bodies: dict[Ids, list[int]]

    @property
    def tokens(self) -> int:
        """How many are read."""
        return len(self.beginning) + sum(map(len, self.bodies))


class _Wanted(NamedTuple):
    """A token whose likelihood is wanted: the position that foresees it, itself, and of which pair it is."""

    position: int
    token: int
    pair: int


def likelihoods(model: GPT, pairs: Sequence[Pair], at_once: int) -> Iterator[tuple[int, Likelihood]]:
    """Gives the likelihood of each text, with the number of its pair, as they are done.

    A context is cut from the left where it and its text are longer than the model can read.

    Args:
        model: in any mode.
        pairs: in any order.
        at_once: of the longest, how many are computed at once.

    Raises:
        GenerationError: a text alone is longer than the context of the model, or empty.
    """
    fitted = [_fitted(pair, model.config.block_size) for pair in pairs]
    scaling = model.config.rope_scaling
    bundles = _bundles(fitted, shares=scaling is None or scaling.kind not in BY_LENGTH)
    bundles.sort(key=lambda bundle: -bundle.tokens)
    room = at_once * max((bundle.tokens for bundle in bundles), default=0)
    for chosen in pack([bundle.tokens for bundle in bundles], room):
        yield from _score(model, [bundles[place] for place in chosen], fitted)


def _fitted(pair: Pair, most: int) -> Pair:
    """Cuts a context from the left. The last token is foreseen, not read."""
    if not pair.context or not 0 < len(pair.text) <= most:
        raise GenerationError(
            f"A text of {len(pair.text)} tokens behind {len(pair.context)} cannot be scored; each side needs at least "
            f"one, and the model reads at most {most}."
        )
    return Pair(pair.context[-(most + 1 - len(pair.text)) :], pair.text)


def _bundles(pairs: Sequence[Pair], shares: bool) -> list[_Bundle]:
    """Puts together what is read together."""
    behind: dict[Ids, dict[Ids, list[int]]] = {}
    for number, (context, text) in enumerate(pairs):
        behind.setdefault(context, {}).setdefault(text[:-1], []).append(number)
    made = []
    for context, bodies in behind.items():
        if shares and len(bodies) > 1:
            made.append(_Bundle(context, dict(sorted(bodies.items(), key=lambda body: -len(body[0])))))
        else:
            made += [_Bundle(context + body, {(): numbers}) for body, numbers in bodies.items()]
    return made


def _score(model: GPT, bundles: Sequence[_Bundle], pairs: Sequence[Pair]) -> Iterator[tuple[int, Likelihood]]:
    """Computes some bundles in one forward pass."""
    ids, documents, wanted = _packed(bundles, pairs)
    device = next(model.parameters()).device
    with evaluating(model):
        hidden = model(torch.tensor([ids], device=device), documents=documents)[0]  # (T, C)
        logprobs, likeliest = _of_tokens(model, hidden, wanted)
    sums: dict[int, tuple[float, bool]] = {}
    for each, logprob, is_likeliest in zip(wanted, logprobs.tolist(), likeliest.tolist(), strict=True):
        total, is_greedy = sums.get(each.pair, (0.0, True))
        sums[each.pair] = (total + logprob, is_greedy and is_likeliest)
    yield from ((pair, Likelihood(*found)) for pair, found in sums.items())


def _packed(
    bundles: Sequence[_Bundle], pairs: Sequence[Pair]
) -> tuple[list[int], tuple[tuple[int, int], ...], list[_Wanted]]:
    """Puts beginnings end to end, and behind them what goes on from each.

    Returns:
        The ids; the documents as the model asks for them; and what is wanted, by its position.
    """
    ids: list[int] = []
    documents: list[tuple[int, int]] = []
    wanted: list[_Wanted] = []
    ends = []
    for bundle in bundles:
        ids += bundle.beginning
        documents.append((len(bundle.beginning), -1))
        ends.append(len(ids))
    for number, bundle in enumerate(bundles):
        for body, members in bundle.bodies.items():
            if body:
                places = [ends[number] - 1, *range(len(ids), len(ids) + len(body))]
                ids += body
                documents.append((len(body), number))
            for pair in members:
                text = pairs[pair].text
                own = places if body else range(ends[number] - len(text), ends[number])
                wanted += [_Wanted(place, token, pair) for place, token in zip(own, text, strict=True)]
    if padding := -len(ids) % MULTIPLE:  # a document of its own: how long one is may decide its angles
        documents.append((padding, -1))
    return [*ids, *[0] * padding], tuple(documents), sorted(wanted)


def _of_tokens(model: GPT, hidden: Tensor, wanted: Sequence[_Wanted]) -> tuple[Tensor, Tensor]:
    """Gives for each token wanted its log-probability, (n,) float32, and whether it is the likeliest, (n,) bool.

    Logits of a position are computed once, however many tokens are wanted there, and of no others.
    """
    all_positions = torch.tensor([each.position for each in wanted])
    positions, inverse = torch.unique(all_positions, return_inverse=True)
    tokens = torch.tensor([each.token for each in wanted]).to(hidden.device)
    positions, inverse = positions.to(hidden.device), inverse.to(hidden.device)
    logprobs = torch.empty(len(wanted), device=hidden.device)
    likeliest = torch.empty(len(wanted), dtype=torch.bool, device=hidden.device)
    chunk = chunk_tokens(model.config.padded_vocab_size, hidden.device)
    for start in range(0, len(positions), chunk):
        found = model.head(hidden[positions[start : start + chunk]]).float().log_softmax(dim=-1)  # (N, V)
        here = (inverse >= start) & (inverse < start + chunk)
        rows = inverse[here] - start
        logprobs[here] = found[rows, tokens[here]]
        likeliest[here] = found.argmax(dim=-1)[rows] == tokens[here]
    return logprobs, likeliest
