"""The name and shape of every tensor that a litft model of given sizes holds. Knows no torch and no Hugging Face."""

from __future__ import annotations

from litft.config.model import ModelConfig

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


def state_shapes(config: ModelConfig) -> Shapes:
    """Gives the name and shape of every tensor of a litft model of these sizes."""
    width, rows = config.n_embd, config.padded_vocab_size
    shapes: Shapes = {"transformer.wte.weight": (rows, width)}
    if config.positions == "learned":
        shapes["transformer.wpe.weight"] = (config.block_size + config.position_offset, width)
    for index in range(config.n_layer):
        prefix = f"transformer.h.{index}"
        shapes |= {f"{prefix}.{name}": shape for name, shape in _block_shapes(config).items()}
    shapes |= _norm("transformer.ln_f", config)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (rows, width)
    return {**shapes, "lm_head.bias": (rows,)} if config.lm_head_bias else shapes


def _block_shapes(config: ModelConfig) -> Shapes:
    """Gives the tensors of one block, named from the block on."""
    width = config.n_embd
    shapes = {name: shape for norm in config.block_norms for name, shape in _norm(norm, config).items()}
    shapes |= _linear("attn.qkv", sum(config.qkv_sizes), width, config.qkv_bias)
    shapes |= _qk_norm_shapes(config)
    shapes |= _linear("attn.proj", width, config.n_head * config.head_size, config.proj_bias)
    if not config.n_expert:
        return shapes | _mlp_shapes("mlp", config)
    shapes |= _linear("mlp.router", config.n_expert, width, False)
    for expert in range(config.n_expert):
        shapes |= _mlp_shapes(f"mlp.experts.{expert}", config)
    return shapes


def _mlp_shapes(name: str, config: ModelConfig) -> Shapes:
    """Gives the tensors of one MLP."""
    width, inner, bias = config.n_embd, config.intermediate_size, config.mlp_bias
    gate = _linear(f"{name}.gate", inner, width, bias) if config.mlp == "gated" else {}
    return gate | _linear(f"{name}.up", inner, width, bias) | _linear(f"{name}.down", width, inner, bias)


def _qk_norm_shapes(config: ModelConfig) -> Shapes:
    """Gives the norms of queries and keys."""
    rows_q, rows_k, _ = config.qkv_sizes
    size = config.head_size
    by_kind: dict[str | None, Shapes] = {
        None: {},
        "head": {"attn.norm_q.weight": (size,), "attn.norm_k.weight": (size,)},
        "each_head": {
            "attn.norm_q.weight": (config.n_head, size),
            "attn.norm_k.weight": (config.n_query_groups, size),
        },
        "all_heads": {"attn.norm_q.weight": (rows_q,), "attn.norm_k.weight": (rows_k,)},
    }
    return by_kind[config.qk_norm]


def _linear(name: str, rows: int, columns: int, bias: bool) -> Shapes:
    """Gives the weight of a linear layer and, if it has one, its bias."""
    shapes: Shapes = {f"{name}.weight": (rows, columns)}
    return {**shapes, f"{name}.bias": (rows,)} if bias else shapes


def _norm(name: str, config: ModelConfig) -> Shapes:
    """Gives the tensors of a norm over n_embd; none for one without parameters."""
    return {f"{name}.{kind}": (config.n_embd,) for kind in config.norm_tensors}
