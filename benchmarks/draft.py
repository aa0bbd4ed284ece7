"""What a draft is worth on a CPU: a model of TinyLlama's shape in bfloat16, and a draft of its first layers.

Weights are random, so no draft would guess what the model says. Two ends are measured instead. In one the upper layers
of the model add nothing, so that the draft, which is the rest, guesses everything; they are computed all the same. In
the other the draft has other weights and guesses nothing. What lies between follows from the two, for guesses that are
each taken with the same chance a: (1 - a^(N + 1)) / (1 - a) tokens a round of N guesses. Prints JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from ours.shapes import llama
from prepare import machine

CHANCES = (0.5, 0.6, 0.7, 0.8, 0.9)
SHAPE = llama(2048, 22, 32, 5632, num_key_value_heads=4)  # Source: config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0
TINY = llama(64, 4, 4, 128, vocab_size=512, num_key_value_heads=2)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured, in turn")
    parser.add_argument("--tokens", type=int, default=48, help="of the answer")
    parser.add_argument("--layers", type=int, default=2, help="of the draft")
    parser.add_argument("--draft_tokens", type=int, nargs="+", default=[2, 4, 7], help="guesses of a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tiny", action="store_true", help="try it with a very small model")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    shape = TINY if given.tiny else SHAPE
    result = {
        "machine": machine(),
        "threads": given.threads,
        "rounds": given.rounds,
        "layers": shape["num_hidden_layers"],
    }
    result |= {"draft_layers": given.layers, **measure(shape, given)}
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


def measure(shape: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Gives tokens a second without a draft, and of each number of guesses."""
    from litft.generate.draft import Draft

    model, good, bad = make_models(shape, given.layers)
    rates: dict[Any, list[float]] = {}
    for number in range(given.rounds + 1):
        for key in [None, *((name, count) for count in given.draft_tokens for name in ("good", "bad"))]:
            draft = Draft(good if key[0] == "good" else bad, key[1]) if key else None
            rate = rate_of(model, draft, given.tokens)
            if number:  # the first round lays the weights out
                rates.setdefault(key, []).append(rate)
            if draft and key[0] == "good":
                assert draft.taken > 0.9 * draft.guessed, (draft.taken, draft.guessed)
    plain = statistics.median(rates[None])
    return {"tokens_per_second": round(plain, 1)} | {
        f"draft_tokens {count}": summarize(
            plain, *(statistics.median(rates[name, count]) for name in ("good", "bad")), count
        )
        for count in given.draft_tokens
    }


def summarize(plain: float, good: float, bad: float, count: int) -> dict[str, Any]:
    """Gives the rates of both ends, and how much faster answers come for chances between them.

    Args:
        plain: tokens a second without a draft.
        good, bad: where all guesses are taken, and none.
        count: guesses of a round.
    """
    rounds = statistics.mean((good / (count + 1), bad))  # a second
    faster = {str(chance): round(rounds * (1 - chance ** (count + 1)) / (1 - chance) / plain, 2) for chance in CHANCES}
    return {
        "all_taken_tokens_per_second": round(good, 1),
        "none_taken_tokens_per_second": round(bad, 1),
        "all_taken_faster": round(good / plain, 2),
        "none_taken_faster": round(bad / plain, 2),
        "faster_by_chance_of_a_guess": faster,
    }


def make_models(shape: dict[str, Any], layers: int) -> tuple[Any, Any, Any]:
    """Gives a model whose layers behind the first ones add nothing, a draft of those first ones, and another draft."""
    import torch

    from litft.families import model_config_from_hf
    from litft.model.gpt import GPT
    from litft.model.load import build_random
    from litft.model.packed import prepare_for_decoding

    config, where = model_config_from_hf(shape, "tiny-llama-1.1b"), torch.device("cpu")
    model = build_random(config, "bf16-true", where, seed=0)
    small = dataclasses.replace(config, n_layer=layers)
    bad: GPT = build_random(small, "bf16-true", where, seed=1)
    good: GPT = build_random(small, "bf16-true", where, seed=1)
    with torch.no_grad():
        for name, parameter in good.named_parameters():
            parameter.copy_(model.get_parameter(name))
        for block in list(model.transformer["h"])[layers:]:
            block.attn.proj.weight.zero_()
            block.mlp.down.weight.zero_()
    for each in (model, good, bad):
        prepare_for_decoding(each.eval())
    return model, good, bad


def rate_of(model: Any, draft: Any, tokens: int) -> float:
    """Gives tokens a second behind the first one."""
    import torch

    import litft.demo
    from litft.generate.engine import Engine
    from litft.generate.request import Request
    from litft.generate.sample import Sampling
    from litft.text.tokenizer import Tokenizer

    ids = torch.randint(3, 500, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    tokenizer = Tokenizer(Path(litft.demo.__file__).parent / "model")
    engine = Engine(model, tokenizer, slots=1, room=len(ids) + tokens, draft=draft)
    answer = engine.add(Request(tuple(ids), tokens, Sampling()))
    engine.step()
    start, first = time.perf_counter(), len(answer.tokens)
    while not engine.is_idle:
        engine.step()
    return (len(answer.tokens) - first) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
