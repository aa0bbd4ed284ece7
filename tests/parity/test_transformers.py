"""The GPT against transformers, in float32: logits, gradients, cached decoding, and real greedy text."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litft.checkpoint.convert import from_hf
from litft.checkpoint.tensors import load_weights
from litft.config.convert import FromHfConfig
from litft.generate.sample import Sampling, iter_tokens
from litft.model.attention import KVCache
from litft.model.gpt import GPT
from litft.model.load import load_model

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = {**SIZES, "intermediate_size": 56, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE_LLAMA3 = {"rope_theta": 10000.0, **LLAMA3, "original_max_position_embeddings": 16}

# name -> (transformers' config class, its arguments)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-mha": ("LlamaConfig", LLAMA),
    "llama-gqa": ("LlamaConfig", {**LLAMA, "num_key_value_heads": 2}),
    "llama-mqa": ("LlamaConfig", {**LLAMA, "num_key_value_heads": 1}),
    "llama-tied": ("LlamaConfig", {**LLAMA, "tie_word_embeddings": True}),
    "llama-biased": ("LlamaConfig", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("LlamaConfig", {**LLAMA, "head_dim": 16}),
    "llama-linear-rope": (
        "LlamaConfig",
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "llama-llama3-rope": ("LlamaConfig", {**LLAMA, "rope_parameters": ROPE_LLAMA3}),
    "mistral": ("MistralConfig", {**LLAMA, "num_key_value_heads": 2, "sliding_window": None}),
    "mistral-short-window": ("MistralConfig", {**LLAMA, "num_key_value_heads": 2, "sliding_window": 5}),
    "mistral-long-window": ("MistralConfig", {**LLAMA, "num_key_value_heads": 2, "sliding_window": 50}),
    "falcon-7b-style": ("FalconConfig", {**SIZES, "multi_query": True, "parallel_attn": True, "alibi": False}),
    "falcon-40b-style": (
        "FalconConfig",
        {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
    ),
    "pythia": ("GPTNeoXConfig", {**SIZES, "intermediate_size": 128, "max_position_embeddings": 64}),
    "pythia-sequential": (
        "GPTNeoXConfig",
        {**SIZES, "intermediate_size": 128, "max_position_embeddings": 64, "use_parallel_residual": False},
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, GPT]:
    """A tiny random model of transformers, and ours converted from the folder it saved."""
    kind, arguments = MODELS[request.param]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, kind)(**arguments), attn_implementation="eager"
    ).eval()
    for name, parameter in theirs.named_parameters():
        # Zero biases and unit norms would hide a swapped or forgotten one.
        parameter.data += 0.1 * torch.randn_like(parameter) if parameter.ndim == 1 or "bias" in name else 0
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    from_hf(FromHfConfig(checkpoint_dir=folder))
    return theirs, load_model(folder, "32-true", CPU)


@pytest.fixture
def ids() -> Tensor:
    """(B, T) = (2, 24) token ids, longer than the short window and than the llama3 original context."""
    return torch.randint(0, 96, (2, 24), generator=torch.Generator().manual_seed(1))


def test_logits(pair: tuple[Any, GPT], ids: Tensor) -> None:
    theirs, ours = pair
    with torch.no_grad():
        wanted = theirs(ids).logits
        got = ours.head(ours(ids))
    assert (got - wanted).abs().max() < 1e-5


def test_gradients(pair: tuple[Any, GPT], ids: Tensor, tmp_path: Path) -> None:
    """Every weight's gradient; theirs are saved as weights would be, so that conversion lays them out as ours."""
    theirs, ours = pair
    targets = ids[:, 1:]
    F.cross_entropy(theirs(ids).logits[:, :-1].transpose(1, 2), targets).backward()
    F.cross_entropy(ours.head(ours(ids))[:, :-1].transpose(1, 2), targets).backward()
    gradients = copy.deepcopy(theirs)
    for copied, original in zip(gradients.parameters(), theirs.parameters(), strict=True):
        assert original.grad is not None
        copied.data = original.grad
    gradients.save_pretrained(tmp_path)
    from_hf(FromHfConfig(checkpoint_dir=tmp_path))
    wanted = load_weights(tmp_path / "lit_model.safetensors")
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        difference = (parameter.grad - wanted[name]).abs().max() / wanted[name].abs().max()
        assert difference < 1e-4, name


def test_cached_decoding_equals_the_full_forward(pair: tuple[Any, GPT], ids: Tensor) -> None:
    """At every length of the prefix: the prefix in one pass, then token by token, and in two passes."""
    _, ours = pair
    with torch.no_grad():
        full = ours.head(ours(ids))
        for prefix in range(1, ids.shape[1]):
            cache = KVCache(ours.config, 2, ids.shape[1], CPU, torch.float32)
            parts = [ours.head(ours(ids[:, :prefix], cache)), ours.head(ours(ids[:, prefix : prefix + 1], cache))]
            parts.append(ours.head(ours(ids[:, prefix + 1 :], cache)) if prefix + 1 < ids.shape[1] else parts[0][:, :0])
            assert torch.allclose(torch.cat(parts, dim=1), full, atol=1e-5), prefix


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
        got = list(iter_tokens(ours, prompt, 100, Sampling()))
    assert got == wanted.tolist()
