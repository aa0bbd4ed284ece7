"""Answers that are learned end in a token at which generation stops."""

from __future__ import annotations

import torch
from torch import Tensor

from litft.check.bench import Bench
from litft.check.finding import CannotTellError, Check, NotSoError
from litft.data.store import PreparedData
from litft.text.encoding import stop_ids
from litft.train.state import trained_style

MOST_OPEN = 0.01  # share of answers
ANSWERS_ALONE = (None, "completions", "last")  # values of train_on with which each learned part is an answer


def run(bench: Bench) -> str:
    """Looks at the last token of each learned part of train.pt."""
    inputs, data = bench.inputs, bench.inputs.train
    ends = stop_ids(inputs.tokenizer, trained_style(inputs))
    if not ends:
        raise NotSoError("the tokenizer has no token that ends a text: generation never stops by itself")
    last = last_targets(data)
    if not len(last):
        raise CannotTellError("all rows are as long as they may be, so all answers may be cut")
    is_open = ~torch.isin(data.input_ids[last], torch.tensor(ends, dtype=data.input_ids.dtype))
    texts = ", ".join(inputs.tokenizer.token_text(number) for number in ends[:3])
    share = float(is_open.float().mean())
    text = f"{int(is_open.sum()):,} of {len(last):,} answers do not end in one of {texts}"
    if share > MOST_OPEN:
        raise NotSoError(f"{text}, so the model does not learn to stop")
    return f"{text}, at most {MOST_OPEN:.0%}"


def last_targets(data: PreparedData) -> Tensor:
    """Gives where learned answers end, (n,) int64; not of rows that are as long as they may be, which may be cut."""
    mask, stops = data.target_mask, data.offsets[1:]
    is_end = torch.zeros(len(mask) + 1, dtype=torch.bool)
    is_end[stops] = True
    ends = mask & ~(torch.cat((mask[1:], mask.new_zeros(1))) & ~is_end[1:])
    if data.meta.get("train_on") not in ANSWERS_ALONE:  # questions are learned too, and end otherwise
        ends &= is_end[1:]
    cut = stops[data.lengths >= data.meta.get("max_seq_length", torch.inf)] - 1
    ends[cut] = False
    return ends.nonzero().squeeze(-1)


CHECK = Check("stop tokens", "answers end in a token at which generation stops", run)
