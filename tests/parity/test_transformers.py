"""Every family against transformers, in float32, by the checks of `make parity`; and real greedy text."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity_checks import CHECKS, CPU, Pair, build_pair
from parity_models import FAMILIES as TINY
from parity_models import VARIATIONS
from tiny_engine import ids_of

from litft.checkpoint.convert import from_hf
from litft.config.convert import FromHfConfig
from litft.families import FAMILIES
from litft.model.gpt import GPT
from litft.model.load import load_model


@pytest.fixture(scope="module", params=VARIATIONS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return build_pair(*request.param, tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("check", CHECKS)
def test_family(pair: Pair, check: str, tmp_path: Path) -> None:
    measure, allowed = CHECKS[check]
    assert measure(pair, tmp_path) <= allowed


def test_every_family_is_here() -> None:
    assert TINY.keys() == FAMILIES.keys()


# A variant and what is left of the model without it: the logits must tell the two apart.
WITHOUT: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "rope linear", {"rope_scaling": None}),
    ("llama", "rope llama3", {"rope_scaling": None}),
    ("llama", "rope yarn", {"rope_scaling": None}),
    ("llama", "rope dynamic", {"rope_scaling": None}),
    ("mistral", "short window", {"sliding_window": None}),
    ("mixtral", "2 of 4", {"n_expert_per_token": 1}),
    ("phi", "1.5", {"rotary_percentage": 1.0}),
    ("phi", "1.5", {"activation": "gelu"}),
    ("phi3", "longrope long", {"rope_scaling": None}),
    ("gemma", "7b", {"embedding_scale": None}),
    ("gemma2", "9b", {"attention_softcap": None}),
    ("gemma2", "9b", {"logit_softcap": None}),
    ("gemma2", "9b", {"attention_scale": None}),
    ("gemma2", "9b", {"full_attention_layers": ()}),
    ("gemma3", "1b", {"rope_local_base": None}),
    ("gemma3", "4b", {"rope_scaling": None}),
    ("qwen2", "window above", {"full_attention_layers": ()}),
    ("qwen3_moe", "normalized", {"normalize_expert_weights": False}),
    ("olmo", "clipped", {"qkv_clip": None}),
    ("mpt", "7b", {"alibi_bias_max": 4.0}),
]


@pytest.mark.parametrize(("family", "variation", "changes"), WITHOUT)
def test_the_checks_see_each_variant(family: str, variation: str, changes: dict[str, Any], tmp_path: Path) -> None:
    pair = build_pair(family, variation, tmp_path)
    weights = pair.ours.state_dict()
    other = GPT(dataclasses.replace(pair.ours.config, **changes))
    other.load_state_dict(weights)
    with torch.no_grad():
        difference = other.head(other(pair.ids())) - pair.ours.head(pair.ours(pair.ids()))
    assert difference.abs().max() > 5 * CHECKS["logits"][1]


@torch.no_grad()
@pytest.mark.parametrize(("family", "variation"), [("phi3", "longrope long"), ("llama", "rope dynamic")])
def test_a_rotation_that_depends_on_length_follows_each_text(family: str, variation: str, tmp_path: Path) -> None:
    """One model, asked long and short texts in turn; the first context is of 16 tokens."""
    pair = build_pair(family, variation, tmp_path)
    for length in (24, 10, 16, 17, 24):
        ids = pair.ids(length)
        wanted, got = pair.theirs(ids).logits, pair.ours.head(pair.ours(ids))
        assert (got - wanted).abs().max() <= CHECKS["logits"][1] * max(1.0, wanted.abs().max().item())


STORIES = Path(__file__).parents[2] / ".." / "shared" / "data" / "models" / "stories260K-hf"


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the real model beside the checkout")
def test_real_model_greedy_text_equals_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "stories260K-hf"
    shutil.copytree(STORIES, folder, copy_function=shutil.copyfile)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    from_hf(FromHfConfig(checkpoint_dir=folder))
    ours = load_model(folder, "32-true", CPU)
    prompt = [
        1,
        *transformers.AutoTokenizer.from_pretrained(folder).encode("Once upon a time", add_special_tokens=False),
    ]
    with torch.no_grad():
        wanted = theirs.generate(torch.tensor([prompt]), max_new_tokens=100, do_sample=False, eos_token_id=-1)[
            0, len(prompt) :
        ]
        got = ids_of(ours, prompt, 100)
    assert got == wanted.tolist()
