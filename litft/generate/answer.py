"""From a prompt's ids to text, piece by piece: sampling, decoding and stop strings together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from litft.generate.sample import Sampling, iter_tokens
from litft.model.gpt import GPT
from litft.text.stream import StreamDecoder
from litft.text.tokenizer import Tokenizer


def iter_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt_ids: list[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Collection[int],
    stop: Sequence[str] = (),
    seed: int | None = None,
    continues: bool = False,
) -> Iterator[str]:
    """Generates text until a stop token, a stop string, `max_new_tokens` or the end of the context.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        prompt_ids: what the model reads first.
        max_new_tokens: longest answer in tokens.
        sampling: how each token is chosen.
        stop_ids: tokens at which the answer ends.
        stop: texts at which the answer ends; they are never given.
        seed: the same seed gives the same text on the same machine.
        continues: the text goes on from the prompt's, so that a first space is kept.

    Yields:
        Pieces that joined are the whole answer.
    """
    decoder = StreamDecoder(tokenizer, stop, prompt_ids if continues else ())
    for token in iter_tokens(model, prompt_ids, max_new_tokens, sampling, stop_ids, seed):
        yield decoder.push(token)
        if decoder.stopped:
            return
    if rest := decoder.finish():
        yield rest
