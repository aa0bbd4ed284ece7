"""LoRA and adapters that Lit-GPT or litgpt trained do in litft what they did there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lit_folder import (
    CPU,
    FALCON,
    IDS,
    LLAMA,
    MODELS,
    PYTHIA,
    convert,
    lit_state,
    logits,
    random_state,
    source_rows,
    write_lit_folder,
)
from torch import Tensor

from litft import LLM
from litft.cli import main
from litft.config.answer import MergeConfig
from litft.config.io import dump_yaml
from litft.config.model import ModelConfig
from litft.errors import LitftError
from litft.export.merge import merge
from litft.methods.load import load_finetuned
from litft.model.attention import CausalSelfAttention


def placed(version: str, parts: str, model: ModelConfig) -> dict[str, list[int]]:
    """Gives the rows of the fused projection to which each release added the update of q, of k and of v."""
    ours = source_rows(model, old=version != "litgpt-0.5.5")
    sizes = dict(zip("qkv", model.qkv_sizes, strict=True))
    starts = {"q": 0, "k": sizes["q"], "v": sizes["q"] + sizes["k"]}
    wanted = {part: list(range(starts[part], starts[part] + sizes[part])) for part in parts}
    if version == "litgpt-0.5.5" or version == "lit-gpt-2023" or parts == "qkv":
        return wanted  # 2023, and all three before 0.5.5: as if the rows were [q; k; v]
    return {part: [ours.index(row) for row in rows] for part, rows in wanted.items()}


def random_lora(
    lit: dict[str, Tensor], model: ModelConfig, version: str, parts: str, others: tuple[str, ...], rank: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gives a LoRA file on these weights of Lit-GPT's, and the weights with it merged by hand, at alpha / r = 2."""
    torch.manual_seed(2)
    lora: dict[str, Tensor] = {}
    merged = dict(lit)
    rows = placed(version, parts, model)
    for name, weight in lit.items():
        module, is_fused = name.removesuffix(".weight"), name.endswith(("attn.attn.weight", "attn.qkv.weight"))
        if weight.dim() != 2 or not (is_fused or any(other in name for other in others)):
            continue
        places = list(rows.values()) if is_fused else [list(range(len(weight)))]
        a = [0.3 * torch.randn(rank, weight.shape[1]) for _ in places]
        b = [0.3 * torch.randn(len(place), rank) for place in places]
        lora |= {f"{module}.lora_A": torch.cat(a), f"{module}.lora_B": torch.cat(b)}
        merged[name] = weight.clone()
        for place, down, up in zip(places, a, b, strict=True):
            merged[name][place] += 2 * up @ down
    return lora, merged


LORAS = {
    "0.5.5 q,v": ("litgpt-0.5.5", "qv", (), "lit_model.pth.lora"),
    "0.5.5 all": ("litgpt-0.5.5", "qkv", ("attn.proj", "mlp", "lm_head"), "lit_model.pth.lora"),
    "0.2 q,v": ("litgpt-0.2", "qv", ("mlp",), "lit_model.pth.lora"),
    "0.2 all": ("litgpt-0.2", "qkv", ("attn.proj", "mlp", "lm_head"), "lit_model.pth.lora"),
    "2023 q,v": ("lit-gpt-2023", "qv", (), "lit_model_lora_finetuned.pth"),
    "2023 k": ("lit-gpt-2023", "k", ("attn.proj",), "lit_model_lora_finetuned.pth"),
}


@pytest.mark.parametrize("case", LORAS)
@pytest.mark.parametrize("kind", ["llama", "pythia", "falcon"])
def test_lora_is_the_sum_in_the_source_layout(tmp_path: Path, kind: str, case: str) -> None:
    version, parts, others, file = LORAS[case]
    if kind == "falcon":
        others = tuple(other for other in others if other != "lm_head")
    model, old = MODELS[kind], version != "litgpt-0.5.5"
    lit = lit_state(random_state(model), model, old)
    base = convert(write_lit_folder(tmp_path / "lit", kind, lit), tmp_path / "base")
    lora, merged = random_lora(lit, model, version, parts, others, rank=4)
    run = write_lit_folder(tmp_path / "run", kind, {"model": lora}, file=file)
    if version == "lit-gpt-2023":
        flags: dict[str, Any] = {"lora_alpha": 8, "lora_targets": tuple(parts)}
    else:
        flags = {}
        names = {"lora_query": "q" in parts, "lora_key": "k" in parts, "lora_value": "v" in parts}
        (run / "hyperparameters.yaml").write_text(dump_yaml({"lora_r": 4, "lora_alpha": 8, **names}))
    out = convert(run, tmp_path / "out" / "final", base_dir=base, **flags)
    by_hand = convert(write_lit_folder(tmp_path / "merged", kind, merged), tmp_path / "expected")
    assert (logits(by_hand) - logits(base)).abs().max() > 0.1
    torch.testing.assert_close(logits(out), logits(by_hand), atol=2e-5, rtol=1e-4)


def test_a_converted_run_is_used_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lit = lit_state(random_state(LLAMA), LLAMA, True)
    source = write_lit_folder(tmp_path / "lit", "llama", lit, protocol=5)
    lora, _ = random_lora(lit, LLAMA, "lit-gpt-2023", "qv", (), rank=2)
    torch.save(lora, source / "lit_model_lora_finetuned.pth")
    base, out = tmp_path / "base", tmp_path / "run" / "final"
    assert main(["convert", "from_litgpt", "--checkpoint_dir", str(source), "--out_dir", str(base)]) == 0
    words = ["--base_dir", str(base), "--lora_alpha", "4", "--lora_targets", "q,v"]
    assert main(["convert", "from_litgpt", "--checkpoint_dir", str(source), "--out_dir", str(out), *words]) == 0
    assert "taken as trained by Lit-GPT before February 2024" in capsys.readouterr().err
    assert isinstance(LLM.load(out).generate("a", max_new_tokens=3, seed=0), str)
    merged = merge(MergeConfig(checkpoint_dir=out))
    torch.testing.assert_close(logits(merged), logits(out), atol=1e-4, rtol=1e-4)


class ReferenceAttention(CausalSelfAttention):
    """Attention with a prompt, its keys and values taken head by head from Lit-GPT's own fused weight."""

    def with_prompt(self, weight: Tensor, bias: Tensor | None, prompt: Tensor, gate: Tensor) -> None:
        model = self.config
        heads = F.linear(prompt, weight, bias).view(len(prompt), model.n_query_groups, -1, model.head_size)
        self.prompt_k, self.prompt_v, self.gate = heads[:, :, -2], heads[:, :, -1], gate.flatten()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        y = super().attend(q, k, v, mask).clone()
        for head in range(self.config.n_head):
            group = head * self.config.n_query_groups // self.config.n_head
            scores = q[:, head] @ self.prompt_k[:, group].T / self.config.head_size**0.5
            y[:, head] += self.gate[head] * scores.softmax(-1) @ self.prompt_v[:, group]
        return y


def random_adapter(lit: dict[str, Tensor], second: bool, gate_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Gives an adapter file on these weights, prompts from block 1 on; of v2, the head has no bias."""
    torch.manual_seed(3)
    adapter = {
        "transformer.h.1.attn.adapter_wte.weight": torch.randn(5, 32),
        "transformer.h.1.attn.gating_factor": torch.randn(gate_shape),
    }
    for name, tensor in lit.items() if second else ():
        if "norm_" in name or "ln_f" in name:
            adapter[name] = tensor + 0.2 * torch.randn_like(tensor)
        elif name.endswith(".weight") and "wte" not in name:
            module, size = name.removesuffix(".weight"), len(tensor)
            adapter[f"{module}.adapter_scale"] = 1 + 0.2 * torch.randn(size)
            adapter[f"{module}.adapter_bias"] = 0.2 * torch.randn(size) * (module != "lm_head")
    return adapter


def folded(lit: dict[str, Tensor], adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """Puts what v2 adds to layers into their weights: scale (W x + b + bias)."""
    state = dict(lit) | {name: tensor for name, tensor in adapter.items() if name in lit}
    for name in adapter:
        module, _, kind = name.rpartition(".")
        if kind == "adapter_scale":
            scale = adapter[name]
            state[f"{module}.weight"] = scale[:, None] * lit[f"{module}.weight"]
            if f"{module}.bias" in lit:
                state[f"{module}.bias"] = scale * (lit[f"{module}.bias"] + adapter[f"{module}.adapter_bias"])
    return state


@pytest.mark.parametrize(("kind", "second"), [("llama", False), ("pythia", False), ("pythia", True)])
def test_adapters(tmp_path: Path, kind: str, second: bool) -> None:
    model = MODELS[kind]
    lit = lit_state(random_state(model), model, True)
    adapter = random_adapter(lit, second, gate_shape=(1, 4, 1, 1) if second else (1, 1, 4, 1))
    source = write_lit_folder(tmp_path / "lit", kind, lit)
    base = convert(source, tmp_path / "base")
    torch.save({"model": adapter}, source / "lit_model_adapter_finetuned.pth")
    out = convert(source, tmp_path / "out", base_dir=base)

    state = folded(lit, adapter)
    gpt = load_finetuned(convert(write_lit_folder(tmp_path / "fold", kind, state), tmp_path / "folded"), "32-true", CPU)
    attention = gpt.get_submodule("transformer.h.1.attn")
    attention.__class__ = ReferenceAttention
    fused = "transformer.h.1.attn.attn"
    prompt, gate = (adapter[f"transformer.h.1.attn.{name}"] for name in ("adapter_wte.weight", "gating_factor"))
    with torch.no_grad():
        attention.with_prompt(state[f"{fused}.weight"], state.get(f"{fused}.bias"), prompt, gate)  # type: ignore[operator]
        expected = gpt.head(gpt(IDS))
    assert (expected - logits(base)).abs().max() > 0.01
    torch.testing.assert_close(logits(out), expected, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a converted base and its source."""
    folder = tmp_path_factory.mktemp("world")
    convert(write_lit_folder(folder / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, True)), folder / "base")
    return folder


def lora_file(parts: str = "qv", others: tuple[str, ...] = (), model: ModelConfig = LLAMA) -> dict[str, Tensor]:
    return random_lora(lit_state(random_state(model), model, True), model, "litgpt-0.2", parts, others, rank=2)[0]


TRAINED_REFUSALS: dict[str, tuple[dict[str, Tensor], dict[str, Any], str]] = {
    "alpha": (lora_file(), {}, "says alpha.*--lora_alpha"),
    "targets": (lora_file(), {"lora_alpha": 4}, "on q and k or q and v; add --lora_targets"),
    "wrong targets": (lora_file(), {"lora_alpha": 4, "lora_targets": ("q",)}, "are no LoRA on q of tiny-llama"),
    "one block": (
        {name: tensor for name, tensor in lora_file("qkv").items() if ".h.0." in name},
        {"lora_alpha": 4}, "not in transformer.h.1.attn.qkv; litft adapts all blocks",
    ),
    "another model": (lora_file("qkv", (), PYTHIA), {"lora_alpha": 4}, "not of tiny-llama"),
    "beside": ({**lora_file(), "lm_head.bias": torch.zeros(3)}, {"lora_alpha": 4}, "holds lm_head.bias beside"),
    "embedding": (
        {"transformer.wte.lora_A": torch.ones(2, 2), "transformer.wte.lora_B": torch.ones(2, 2)},
        {"lora_alpha": 4}, "adapts transformer.wte, for which",
    ),
    "no B": ({"lm_head.lora_A": torch.ones(2, 32)}, {"lora_alpha": 4}, "but not lm_head.lora_B"),
    "misread prompts": (
        random_adapter({}, False, (1, 1, 4, 1)), {"version": "litgpt-0.5.5"}, "since 0.5.5 .* --version litgpt-0.2",
    ),
    "gate": (random_adapter({}, False, (1, 1, 8, 1)), {"version": "litgpt-0.2"}, "gating_factor .* has shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAINED_REFUSALS)
def test_what_cannot_be_taken_over(tmp_path: Path, world: Path, case: str) -> None:
    state, flags, message = TRAINED_REFUSALS[case]
    run = write_lit_folder(tmp_path / "run", "llama", state, file="lit_model.pth.lora")
    with pytest.raises(LitftError, match=message):
        convert(run, tmp_path / "out", base_dir=world / "base", **flags)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_tied_head_is_not_adapted(tmp_path: Path) -> None:
    lit = lit_state(random_state(FALCON), FALCON, True)
    source = write_lit_folder(tmp_path / "lit", "falcon", lit)
    base = convert(source, tmp_path / "base")
    lora = {"lm_head.lora_A": torch.ones(2, 32), "lm_head.lora_B": torch.ones(320, 2)}
    torch.save(lora, source / "lit_model.pth.lora")
    with pytest.raises(LitftError, match=r'also the embedding.*"tie_word_embeddings": false'):
        convert(source, tmp_path / "out", base_dir=base, lora_alpha=4)


def test_which_file_is_meant(tmp_path: Path, world: Path) -> None:
    run = write_lit_folder(tmp_path / "run", "llama", lora_file("qkv"), file="lit_model.pth.lora")
    with pytest.raises(LitftError, match=r"lit_model.pth.lora, which needs its base"):
        convert(run, tmp_path / "out")
    with pytest.raises(LitftError, match="holds adapters only"):
        convert(run, tmp_path / "out", checkpoint_file="lit_model.pth.lora")
    with pytest.raises(LitftError, match=r"There is no .*iter-9.pth"):
        convert(run, tmp_path / "out", checkpoint_file="iter-9.pth")
    with pytest.raises(LitftError, match="a whole model; leave out --base_dir"):
        convert(world / "lit", tmp_path / "out", base_dir=world / "base")
    with pytest.raises(LitftError, match="which this command reads"):
        convert(world / "lit", world / "lit", overwrite=True)
    with pytest.raises(LitftError, match=r"holds no lit_model.pth"):
        convert(world / "base", tmp_path / "out")
