"""torch's kernels for packed documents on a GPU: which of them can compute a model's attention, and whether it does.

A kernel is built for each packed row and window and shared by the blocks. Where none will do, documents of like length
are attended to as padded batches (`attention.py`), as they always are on a CPU. Knows sizes and documents, no modules.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from litft.config.model import ModelConfig
from litft.model.attention import alibi_slopes
from litft.model.documents import Documents

GROUPED = "grouped"  # no kernel of these: documents of like length, side by side
SIXTEEN_BITS = (torch.bfloat16, torch.float16)
BLOCK = 128  # tokens of a block of flex_attention's masks; its own default
TRIAL_LENGTHS = (1, 37, 16, 131, 55)  # of the documents of the check: over the edges of blocks, and 240 in all
TRIAL_WINDOW = 24  # in the place of a model's own, which is longer than these documents
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # by the norm; a wrong mask is over 0.1


class Kernel(Protocol):
    """Attention of one packed row: q (1, H, T, D), k and v (1, G, T, D) -> (1, H, T, D)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Computes it."""


@dataclass(frozen=True)
class Varlen:
    """torch's flash kernel for texts that stand end to end.

    Attributes:
        starts: (documents + 1,) int32, where each begins, and the end.
        longest: tokens of the longest document.
        window: how many tokens one sees, itself included; None for all.
        scale: of the scores; None for 1 / sqrt(D).
    """

    starts: Tensor
    longest: int
    window: int | None
    scale: float | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Computes it; to the kernel (-1, 0) is plain causality, and a window is what lies before a token."""
        from torch.nn.attention.varlen import varlen_attn

        back = -1 if self.window is None else self.window - 1
        more: dict[str, Any] = {"scale": self.scale, "window_size": (back, 0), **_groups_allowed()}
        tokens = [x[0].transpose(0, 1) for x in (q, k, v)]  # (T, H, D), (T, G, D)
        places = self.starts, self.starts, self.longest, self.longest
        y = cast(Tensor, varlen_attn(tokens[0], tokens[1], tokens[2], *places, **more))
        return y.transpose(0, 1)[None]


@dataclass(frozen=True)
class Flex:
    """torch's flex_attention: a compiled kernel for any mask and any change of the scores.

    Attributes:
        mask: which blocks of tokens see which.
        change: of each score; None for none.
        scale: of the scores before that; None for 1 / sqrt(D).
    """

    mask: Any
    change: Callable[..., Tensor] | None
    scale: float | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Computes it; uncompiled on a CPU, where it has no backward pass and serves tests."""
        from torch.nn.attention.flex_attention import flex_attention

        function = flex_attention if q.device.type == "cpu" else _compiled_flex()
        how = {"score_mod": self.change, "block_mask": self.mask, "scale": self.scale}
        return cast(Tensor, function(q, k, v, **how, enable_gqa=q.shape[1] != k.shape[1]))


@dataclass(frozen=True)
class Backend:
    """A row of the table below.

    Attributes:
        lacks: (sizes of a model, dtype of its queries) -> why it cannot compute that, or None.
        build: (sizes, window, documents) -> the kernel of these documents.
    """

    lacks: Callable[[ModelConfig, torch.dtype], str | None]
    build: Callable[[ModelConfig, int | None, Documents], Kernel]


def _varlen_lacks(config: ModelConfig, dtype: torch.dtype) -> str | None:
    """Says what of this model varlen_attn has no way to compute."""
    if not _varlen_is_there():
        return f"torch {torch.__version__} has no such kernel"
    if config.attention_softcap is not None or config.positions == "alibi":
        return "it knows no soft caps and no ALiBi"
    if dtype not in SIXTEEN_BITS:
        return f"it computes in 16 bits, not in {dtype}"
    if config.head_size % 8 or config.head_size > 256:
        return f"its heads have a multiple of 8 numbers, at most 256, not {config.head_size}"
    return None


def _varlen(config: ModelConfig, window: int | None, documents: Documents) -> Kernel:
    """Builds it."""
    return Varlen(documents.starts, max(documents.lengths), window, config.attention_scale)


def _flex_lacks(config: ModelConfig, dtype: torch.dtype) -> str | None:
    """Nothing that is known before it is tried."""
    return None


def _flex(config: ModelConfig, window: int | None, documents: Documents) -> Kernel:
    """Builds it; from here on a mask is a few numbers for each block of tokens."""
    return Flex(block_mask(documents, window), _score_change(config, documents.starts.device), config.attention_scale)


BACKENDS: dict[str, Backend] = {
    "varlen": Backend(_varlen_lacks, _varlen),
    "flex": Backend(_flex_lacks, _flex),
}  # in the order in which they are tried


def choose_attention(
    config: ModelConfig, wanted: str, device: torch.device, dtype: torch.dtype, report: Callable[[str], None]
) -> str:
    """Gives the name of the backend for a model: what was wanted, or the first that can, if it passes its check.

    Args:
        config: the model's sizes.
        wanted: `auto`, `grouped` or a row of BACKENDS.
        device: where it runs; `auto` is `grouped` on all but a GPU.
        dtype: of queries, keys and values; `auto` is `grouped` but in 16 bits.
        report: told why a kernel is not used.
    """
    if wanted == "auto":
        if device.type != "cuda" or dtype not in SIXTEEN_BITS:
            return GROUPED
        wanted = next(name for name, backend in BACKENDS.items() if backend.lacks(config, dtype) is None)
    if wanted == GROUPED:
        return GROUPED
    backend = BACKENDS[wanted]
    fault = backend.lacks(config, dtype) or find_fault(backend, config, device, dtype)
    if fault:
        report(f"Attention runs on groups of documents of like length, not by {wanted}: {fault}.")
    return GROUPED if fault else wanted


def find_fault(backend: Backend, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> str | None:
    """Compares a kernel with attention written out, forward and gradients, on a few small documents.

    Args:
        backend: makes the kernel.
        config: heads, scale, soft cap, ALiBi and windows are the model's.
        device, dtype: of the run.

    Returns:
        What is wrong; None where nothing is.
    """
    documents = Documents([(length, -1) for length in TRIAL_LENGTHS], device)
    total, heads, groups = sum(TRIAL_LENGTHS), config.n_head, config.n_query_groups
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, count, total, config.head_size) for count in (heads, groups, groups, heads)]
    drawn = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    for window in {None if each is None else TRIAL_WINDOW for each in map(config.window_of, range(config.n_layer))}:
        try:
            found = _results(backend.build(config, window, documents), *drawn)
        except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ImportError) as error:
            return f"it does not run here ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
        exact = _results(Plain(config, window, documents), *(x.float() for x in drawn))
        for name, value, right in zip(
            ("result", "gradient of q", "gradient of k", "gradient of v"), found, exact, strict=True
        ):
            error_share = float((value.float() - right).norm() / right.norm())
            if not error_share <= TOLERANCE[dtype]:  # a NaN is wrong too
                return f"on a trial its {name} is off by {error_share:.2g} of its size"
    return None


def _results(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, gradient: Tensor) -> list[Tensor]:
    """Gives what a kernel computes, and the gradients of q, k and v."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        y = kernel(*inputs)
        return [y.detach(), *torch.autograd.grad(y, inputs, gradient)]


@dataclass(frozen=True)
class Plain:
    """The same, written out in full: all T x T scores are held."""

    config: ModelConfig
    window: int | None
    documents: Documents

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Computes it."""
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        places = torch.arange(q.shape[2], device=q.device)
        distance = places[:, None] - places
        scores = q @ k.mT * (self.config.attention_scale or q.shape[-1] ** -0.5)
        if change := _score_change(self.config, q.device):
            heads = torch.arange(q.shape[1], device=q.device)[:, None, None]
            scores = change(scores, None, heads, places[:, None], places)
        begin = (places - self.documents.positions)[:, None]  # of the document of each query
        seen = (distance >= 0) & (places >= begin) & (distance < (self.window or q.shape[2]))
        return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


def block_mask(documents: Documents, window: int | None) -> Any:
    """Gives flex_attention's mask of documents that stand end to end: which blocks of tokens see which, and how far.

    Args:
        documents: none goes on from another.
        window: how many tokens one sees, itself included; None for all.

    Returns:
        A BlockMask, (1, 1, T, T).
    """
    from torch.nn.attention.flex_attention import BlockMask

    device, total = documents.positions.device, len(documents.positions)
    within = window or total
    begins = torch.arange(total, device=device) - documents.positions  # (T,), of each token's document

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= begins[query]) & (query - key < within)

    first = torch.arange(0, total, BLOCK, device=device)
    last = (first + BLOCK).clamp(max=total) - 1
    earliest = torch.maximum(begins[first], first - within + 1)  # key that any query of a block sees
    some = (last >= earliest[:, None]) & (first <= last[:, None])
    whole = (last <= first[:, None]) & (first >= begins[last][:, None]) & (last[:, None] - first < within)
    parts = [_in_order(some & ~whole), _in_order(whole)]
    (counts, keys), (full_counts, full_keys) = parts
    return BlockMask.from_kv_blocks(
        counts, keys, full_counts, full_keys, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(total, total)
    )


def _in_order(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) bool -> how many keys are chosen of each row, (1, 1, N), and which, those first, (1, 1, N, N); int32."""
    order = chosen.int().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]


def _score_change(config: ModelConfig, device: torch.device) -> Callable[..., Tensor] | None:
    """Gives what a model does to its scores: (score, batch, head, query, key) -> score, as flex_attention wants it."""
    if (cap := config.attention_softcap) is not None:
        return lambda score, batch, head, query, key: cap * torch.tanh(score / cap)
    if config.positions != "alibi":
        return None
    slopes = alibi_slopes(config.n_head, config.alibi_bias_max).to(device)
    return lambda score, batch, head, query, key: score - slopes[head] * (query - key)


@cache
def _compiled_flex() -> Any:
    """Gives flex_attention compiled, once."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@cache
def _varlen_is_there() -> bool:
    """Says whether this torch has varlen_attn with windows, by which it is told what is causal."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "window_size" in inspect.signature(varlen_attn).parameters


@cache
def _groups_allowed() -> dict[str, bool]:
    """Gives the flag without which torch 2.12 and later refuse fewer keys than queries; 2.11 knows none."""
    from torch.nn.attention.varlen import varlen_attn

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
