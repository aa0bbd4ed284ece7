"""Which kernel attends to packed documents: what each can compute, and what happens to one that computes it wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_configs import CONFIGS
from tiny_run import make_config, make_world, open_run
from torch import Tensor

from litft.config.model import ModelConfig
from litft.config.run import LoRAConfig
from litft.methods.base import Full
from litft.methods.lora import LoRA
from litft.model.documents import Documents
from litft.model.gpt import GPT
from litft.model.kernels import (
    BACKENDS,
    BLOCK,
    Backend,
    Kernel,
    Plain,
    Varlen,
    block_mask,
    choose_attention,
    find_fault,
)
from litft.model.load import build_random
from litft.train.kernels import choose_kernels
from litft.train.loop import train_step

CPU = torch.device("cpu")
LENGTHS = [(150, -1), (1, -1), (40, -1), (129, -1), (64, -1)]  # over the edges of blocks, and no multiple of one
LLAMA = CONFIGS["llama"]
WIDE = dataclasses.replace(LLAMA, head_size=8)


def hidden(model: GPT, backend: str) -> Tensor:
    model.attend_by(backend)
    ids = torch.arange(sum(length for length, _ in LENGTHS))[None] % model.config.vocab_size
    with torch.no_grad():
        return model(ids, documents=LENGTHS)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "mpt"])
def test_flex_attention_sees_what_groups_see(family: str) -> None:
    config = dataclasses.replace(CONFIGS[family], block_size=512)
    model = build_random(config, "32-true", CPU, 0)
    assert torch.allclose(hidden(model, "flex"), hidden(model, "grouped"), atol=2e-5)


@pytest.mark.parametrize("window", [None, 24, 140])
def test_a_mask_of_blocks_says_of_each_block_what_its_pairs_are(window: int | None) -> None:
    documents = Documents(LENGTHS, CPU)
    total = sum(documents.lengths)
    mask = block_mask(documents, window)
    owner = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(documents.lengths))
    places = torch.arange(total)
    distance = places[:, None] - places
    seen = (owner[:, None] == owner) & (distance >= 0) & (distance < (window or total))
    assert torch.equal(mask.mask_mod(None, None, places[:, None], places), seen)
    for query in range(-(-total // BLOCK)):
        some = set(mask.kv_indices[0, 0, query, : mask.kv_num_blocks[0, 0, query]].tolist())
        whole = set(mask.full_kv_indices[0, 0, query, : mask.full_kv_num_blocks[0, 0, query]].tolist())
        assert not some & whole
        for key in range(-(-total // BLOCK)):
            block = seen[query * BLOCK : (query + 1) * BLOCK, key * BLOCK : (key + 1) * BLOCK]
            assert bool(block.any()) == (key in some | whole)
            assert key not in whole or bool(block.all())


@pytest.mark.parametrize("family", ["llama", "gemma2", "mpt"])
def test_what_kernels_are_compared_with_is_what_groups_compute(family: str) -> None:
    config = CONFIGS[family]
    model = build_random(dataclasses.replace(config, block_size=512), "32-true", CPU, 0)
    attention = model.get_submodule("transformer.h.0.attn")
    documents, window = Documents(LENGTHS, CPU), config.window_of(0)
    heads = (config.n_head, config.n_query_groups, config.n_query_groups)
    shapes = [(1, count, len(documents.positions), config.head_size) for count in heads]
    q, k, v = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes)
    context = model.context(window, documents.positions, torch.float32, None, documents)
    assert torch.allclose(Plain(config, window, documents)(q, k, v), attention.attend(q, k, v, context), atol=1e-5)


def exact(config: ModelConfig, window: int | None, documents: Documents) -> Plain:
    return Plain(config, window, documents)


def blind(config: ModelConfig, window: int | None, documents: Documents) -> Plain:
    """Sees over the edges of documents, as a wrong mask does."""
    return Plain(config, window, Documents([(len(documents.positions), -1)], CPU))


def one_too_far(config: ModelConfig, window: int | None, documents: Documents) -> Plain:
    return Plain(config, None if window is None else window + 1, documents)


def unlike_backwards(config: ModelConfig, window: int | None, documents: Documents) -> Kernel:
    right = Plain(config, window, documents)
    return lambda q, k, v: right(q, k.detach() + (k - k.detach()) * 1.1, v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_kernel_that_is_right_passes(dtype: torch.dtype) -> None:
    assert find_fault(Backend(lambda *_: None, exact), LLAMA, CPU, dtype) is None


@pytest.mark.parametrize(
    ("build", "family", "said"),
    [(blind, "llama", "result"), (one_too_far, "mistral", "result"), (unlike_backwards, "llama", "gradient of k")],
)
def test_a_kernel_that_is_wrong_is_found_out(build: Any, family: str, said: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        fault = find_fault(Backend(lambda *_: None, build), CONFIGS[family], CPU, dtype)
        assert fault and f"its {said} is off" in fault, fault


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_kernel_that_does_not_run_is_left_with_a_sentence() -> None:
    said: list[str] = []
    assert choose_attention(LLAMA, "flex", CPU, torch.bfloat16, said.append) == "grouped"
    assert len(said) == 1 and "not by flex: it does not run here (" in said[0]


def test_what_a_kernel_cannot_compute_is_known_before_it_is_tried() -> None:
    said: list[str] = []
    for config, dtype in ((CONFIGS["gemma2"], torch.bfloat16), (WIDE, torch.float32), (LLAMA, torch.bfloat16)):
        assert choose_attention(config, "varlen", CPU, dtype, said.append) == "grouped"
    whys = ("soft caps", "16 bits", "multiple of 8")
    assert [why in sentence for why, sentence in zip(whys, said, strict=True)] == [True] * 3, said


def test_without_a_gpu_nothing_is_tried_or_said() -> None:
    said: list[str] = []
    assert choose_attention(WIDE, "auto", CPU, torch.bfloat16, said.append) == "grouped"
    assert said == []


def test_documents_that_go_on_from_others_stay_in_groups() -> None:
    model = build_random(LLAMA, "32-true", CPU, 0)
    model.attend_by("varlen")
    assert model.kernel(None, Documents([(8, -1), (8, 0)], CPU)) is None
    assert isinstance(model.kernel(None, Documents([(8, -1), (8, -1)], CPU)), Varlen)


@pytest.mark.skipif(BACKENDS["varlen"].lacks(WIDE, torch.bfloat16) is not None, reason="this torch has no varlen_attn")
@pytest.mark.parametrize("window", [None, 24])
def test_varlen_attention_takes_what_it_is_given(window: int | None) -> None:
    """Its signature changed between versions of torch; without a GPU only shapes come back."""
    meta = torch.device("meta")
    kernel = BACKENDS["varlen"].build(WIDE, window, Documents(LENGTHS, meta))
    shapes = [(1, count, 384, WIDE.head_size) for count in (WIDE.n_head, WIDE.n_query_groups, WIDE.n_query_groups)]
    inputs = [torch.empty(shape, dtype=torch.bfloat16, device=meta, requires_grad=True) for shape in shapes]
    y = kernel(*inputs)
    assert y.shape == shapes[0] and y.dtype == torch.bfloat16
    assert [each.shape for each in torch.autograd.grad(y.sum(), inputs)] == [torch.Size(shape) for shape in shapes]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_run_goes_on_without_a_kernel_that_does_not_run_here(tmp_path: Path) -> None:
    run = open_run(make_config(make_world(tmp_path), train__attention="flex"), Full())
    said: list[str] = []
    choose_kernels(run.gpt, run.inputs.config, run.fabric, said.append)
    assert run.gpt.backend == "grouped" and ["not by flex" in sentence for sentence in said] == [True]
    assert train_step(run, [0, 1], 1e-3, lambda logits, ids: F.cross_entropy(logits, ids, reduction="none")).loss > 0


def test_quantised_blocks_are_not_compiled_and_it_is_said(tmp_path: Path) -> None:
    config = make_config(make_world(tmp_path), train__compile="block", quantize="bnb.int8")
    run = open_run(config, LoRA(LoRAConfig()))
    said: list[str] = []
    choose_kernels(run.gpt, config, run.fabric, said.append)
    assert said == ["The blocks are not compiled: they are quantised (bnb.int8)."]
    assert "forward" not in vars(run.gpt.get_submodule("transformer.h.0"))
