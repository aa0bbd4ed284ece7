"""Whole models out: LoRA merged while it is written, shards, stop tokens, the chat template, and the certificate."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity_models import FAMILIES
from safetensors.torch import load_file, save_file
from tiny_export import CPU, EVERY_TARGET, add_tokenizer, write_base, write_final
from tiny_text import BOS, EOS, write_json

from litft.checkpoint.disk import sha256_file
from litft.checkpoint.files import load_model_config
from litft.checkpoint.hf_folder import write_generation_config, write_tokenizer_config
from litft.checkpoint.tensors import read_safetensors_header
from litft.config.answer import MergeConfig
from litft.config.convert import ToHfConfig
from litft.config.run import AdapterConfig, LoRAConfig
from litft.errors import CheckpointError
from litft.export.certificate import fixed_prompts
from litft.export.hf import certify_hf, sentence, to_hf
from litft.export.merge import certify_merged, merge
from litft.export.source import open_exportable
from litft.methods.adapter import Adapter, AdapterV2
from litft.methods.load import load_finetuned
from litft.methods.lora import LoRA, LoRALinear
from litft.methods.new_tokens import WithNewTokens
from litft.model.load import load_model
from litft.text.new_tokens import add_tokens
from litft.text.styles import ALPACA
from litft.text.tokenizer import Tokenizer

IDS = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a tokenizer and a LoRA run on it; tests that change files take `run`."""
    folder = tmp_path_factory.mktemp("m")
    sizes = {"vocab_size": 320, "max_position_embeddings": 512, "bos_token_id": BOS, "eos_token_id": EOS}
    base = add_tokenizer(write_base(folder / "base", "llama", "gqa", **sizes))
    write_final(folder / "final", base, lora())
    return folder


@pytest.fixture
def run(shared: Path, tmp_path: Path) -> Path:
    """The same, to be changed: gives the final folder; base and final are neighbours."""
    for name in ("base", "final"):
        shutil.copytree(shared / name, tmp_path / "run" / name)
    record = (tmp_path / "run" / "final" / "method.yaml").read_text().replace(str(shared), str(tmp_path / "run"))
    (tmp_path / "run" / "final" / "method.yaml").write_text(record)
    return tmp_path / "run" / "final"


def lora(*targets: str) -> LoRA:
    return LoRA(LoRAConfig(r=3, alpha=5, dropout=0.1, targets=targets or ("q", "v")))


def export(final: Path, out_dir: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Exports and gives export_report.json and what was reported."""
    said: list[str] = []
    to_hf(ToHfConfig(checkpoint_dir=final, out_dir=out_dir, **options), said.append)
    return json.loads((out_dir / "export_report.json").read_text()), said


def their_logits(folder: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def our_logits(final: Path) -> torch.Tensor:
    model = load_finetuned(final, "32-true", CPU)
    with torch.no_grad():
        return model.head(model(IDS))


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_is_merged_while_it_is_written(family: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", family, next(iter(FAMILIES[family])))
    tied = load_model_config(base).tie_embeddings
    final = write_final(tmp_path / "final", base, lora(*(EVERY_TARGET[:-1] if tied else EVERY_TARGET)))
    export(final, tmp_path / "hf", certificate="tensors")
    wanted = our_logits(final)
    assert (their_logits(tmp_path / "hf") - wanted).abs().max() < 1e-5 * max(1.0, wanted.abs().max().item())
    assert (their_logits(base) - wanted).abs().max() > 1e-3


def test_the_export_of_a_run_is_that_of_its_merge(run: Path, tmp_path: Path) -> None:
    merge(MergeConfig(checkpoint_dir=run))
    export(run, tmp_path / "one")
    export(run.parent / "merged", tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_dtype_is_that_of_the_base(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "pythia", "parallel", torch.bfloat16)
    final = write_final(tmp_path / "final", base, lora(*EVERY_TARGET))
    report, said = export(final, tmp_path / "hf", certificate="full")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "hf"))
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        name for name in before if "dense" not in name and "query_key_value.w" not in name and "embed_out" not in name
    } | {name for name in before if name.endswith("bias")}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"
    proof = report["certificate"]
    assert proof["logits"]["relative_difference"] < 1e-5  # the rounded weights, computed twice in float32
    assert proof["merging"]["relative_difference"] > 1e-4  # what rounding cost, which is told
    assert "merging moved logits by" in said[-1]


def test_shards_and_their_index(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "hf", max_shard_size="20KB")
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in (tmp_path / "hf").glob("*.safetensors"))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    sizes = {}
    for shard in shards:
        for name, spec in read_safetensors_header(tmp_path / "hf" / shard).items():
            assert index["weight_map"].pop(name) == shard
            sizes.setdefault(shard, []).append(spec.n_bytes)
    assert not index["weight_map"]
    assert all(sum(parts) <= 20_000 or len(parts) == 1 for parts in sizes.values())
    assert index["metadata"]["total_size"] == sum(map(sum, sizes.values()))


def test_a_folder_says_how_it_was_made_and_proved(run: Path, tmp_path: Path) -> None:
    report, said = export(run, tmp_path / "hf", certificate="full")
    assert (report["kind"], report["checkpoint_dir"], report["base"]) == ("hf", str(run), str(run.parent / "base"))
    proof = report["certificate"]
    assert proof["tensors_equal"] == 30 and proof["skipped"] is None
    assert proof["logits"]["argmax_agreement"] == 1.0 and proof["logits"]["kl"] < 1e-9
    assert proof["logits"]["relative_difference"] < 1e-5
    assert proof["chat"] == {"conversations": 4, "equal_ids": 4}
    assert proof["stop_ids"] == [EOS]
    assert len(said) == 2 and "agrees at" in said[1] and "trained ids in 4 of 4" in said[1] and "stops at 1" in said[1]


def test_the_exported_folder_answers_as_litft_does(run: Path, tmp_path: Path) -> None:
    """With nothing of litft's: the chat template, greedy decoding and the stop tokens of the folder."""
    export(run, tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    messages = [{"role": "user", "content": "Say red."}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == "<s>" + ALPACA.first.replace("{instruction}", "Say red.")
    wanted = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=0)[0, len(ids) :]
    from litft import LLM

    llm = LLM.load(run)
    found = llm.chat(messages, max_new_tokens=20)
    assert found == llm.tokenizer.decode([number for number in wanted.tolist() if number != EOS])


def test_generation_config_names_every_stop_token_and_keeps_the_rest(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    write_json(tmp_path / "config.json", {"eos_token_id": [1, 2], "bos_token_id": 0, "pad_token_id": 2})
    tokenizer = Tokenizer(tmp_path)
    write_generation_config(tmp_path, tokenizer, None)
    path = tmp_path / "generation_config.json"
    assert json.loads(path.read_text()) == {"bos_token_id": 0, "pad_token_id": 2, "eos_token_id": [1, 2]}
    text = '{"temperature": 0.6, "eos_token_id": 1,\n "bos_token_id": 0,}'  # as some published files are
    path.write_text(text)
    write_generation_config(tmp_path, tokenizer, None)
    kept = {"temperature": 0.6, "bos_token_id": 0, "pad_token_id": 2}
    assert json.loads(path.read_text()) == {**kept, "eos_token_id": [1, 2]}
    whole = path.read_bytes()
    write_generation_config(tmp_path, tokenizer, None)
    assert path.read_bytes() == whole


def test_a_tokenizer_that_nothing_describes_is_read_as_it_stands(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer(tmp_path)
    write_tokenizer_config(tmp_path, tokenizer)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert Tokenizer(tmp_path).hash == tokenizer.hash
    (tmp_path / "tokenizer_config.json").write_text("{}")
    write_tokenizer_config(tmp_path, tokenizer)
    assert (tmp_path / "tokenizer_config.json").read_text() == "{}"


def test_a_base_keeps_its_own_chat_template(run: Path, tmp_path: Path) -> None:
    base = run.parent / "base"
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    report, _ = export(base, tmp_path / "hf", certificate="full")
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    assert "chat" not in report["certificate"]


def test_new_tokens_have_their_rows(run: Path, tmp_path: Path) -> None:
    base = run.parent / "base"
    new = add_tokens(shutil.copytree(base, tmp_path / "grown"), ["<call>"])
    for targets in (("q", "v"), ("q", "head")):
        name = "".join(targets)
        final = write_final(tmp_path / name, base, WithNewTokens(lora(*targets), new))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tmp_path / "grown" / file, final / file)
        report, _ = export(final, tmp_path / f"{name}-hf", certificate="full")
        assert report["certificate"]["logits"]["relative_difference"] < 1e-5
        ids = torch.tensor([[5, new.first_id, 7]])
        model = load_finetuned(final, "32-true", CPU)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-hf").eval()
        with torch.no_grad():
            wanted = model.head(model(ids))
            torch.testing.assert_close(theirs(ids).logits, wanted, atol=1e-5, rtol=1e-5)
        merge(MergeConfig(checkpoint_dir=final, out_dir=tmp_path / f"{name}-merged"))
        merged = load_model(tmp_path / f"{name}-merged", "32-true", CPU)
        with torch.no_grad():
            torch.testing.assert_close(merged.head(merged(ids)), wanted, atol=1e-5, rtol=1e-5)


def test_a_bias_of_the_head_grows_with_its_rows(tmp_path: Path) -> None:
    """Phi's; the first new token takes a row that the model has to spare, with a bias of its own before."""
    base = add_tokenizer(write_base(tmp_path / "base", "phi", "2", vocab_size=260))
    new = add_tokens(shutil.copytree(base, tmp_path / "grown"), ["<call>", "<end>"])
    assert new.first_id < 260 < new.vocab_size
    final = write_final(tmp_path / "final", base, WithNewTokens(lora("q", "v"), new))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tmp_path / "grown" / file, final / file)
    described = json.loads((final / "config.json").read_text())
    write_json(final / "config.json", {**described, "vocab_size": new.vocab_size})
    report, _ = export(final, tmp_path / "hf", certificate="full")
    assert report["certificate"]["logits"]["relative_difference"] < 1e-5
    bias = load_file(tmp_path / "hf" / "model.safetensors")["lm_head.bias"]
    assert bias[: new.first_id].all() and not bias[new.first_id :].any()


# --- refusals ---


def refused(final: Path, message: str, **options: Any) -> None:
    """Export and merge must fail with this sentence and leave nothing."""
    out_dir = final.parent / "out"
    for command in (
        lambda: to_hf(ToHfConfig(checkpoint_dir=final, out_dir=out_dir, **options)),
        lambda: merge(MergeConfig(checkpoint_dir=final, out_dir=out_dir, **options)),
    ):
        with pytest.raises(CheckpointError, match=message):
            command()
        assert not out_dir.exists() and not list(final.parent.glob(".out*"))


def test_lora_that_was_not_trained(run: Path) -> None:
    tensors = load_file(run / "lora.safetensors")
    save_file({name: tensor * (".lora_A" in name) for name, tensor in tensors.items()}, run / "lora.safetensors")
    refused(run, "change nothing: all of B is zero")


def test_lora_that_rounding_loses(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama", "gqa", torch.bfloat16)
    final = write_final(tmp_path / "final", base, lora())
    tensors = load_file(final / "lora.safetensors")
    save_file({name: tensor * 1e-6 for name, tensor in tensors.items()}, final / "lora.safetensors")
    refused(final, "change nothing: each sum is rounded back to its base in bfloat16")


def test_another_base(run: Path) -> None:
    path = run.parent / "base" / "lit_model.safetensors"
    weights = path.read_bytes()
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)  # the change is meant
    refused(run, "is not the base that .* was trained on: its sha256 differs .*; put the model of that run back")


def test_a_base_that_is_gone_is_called_the_base_of_the_run(run: Path) -> None:
    (run.parent / "base").rename(run.parent / "bases")
    method_file = re.escape(str(run / "method.yaml"))
    refused(
        run, f'No checkpoint folder ".*base", which {method_file} names as the base of the run; put that model back'
    )


def test_merging_what_has_no_adapters_says_what_has(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"base holds no adapters \(method\.yaml\); a base"):
        merge(MergeConfig(checkpoint_dir=run.parent / "base"))


@pytest.mark.parametrize("method", [Adapter, AdapterV2])
def test_adapters_are_no_weights(shared: Path, method: type[Adapter], tmp_path: Path) -> None:
    adapter = method(AdapterConfig(prompt_length=2, start_layer=1))
    final = write_final(tmp_path / "final", shared / "base", adapter)
    refused(final, f"run of {adapter.name}, whose prompts are no weights and cannot be merged")


def test_a_full_run_that_is_its_base_again(run: Path, tmp_path: Path) -> None:
    base = run.parent / "base"
    write_json(base / "provenance.json", {"sha256": {"base": sha256_file(base / "lit_model.safetensors")}})
    with pytest.raises(CheckpointError, match="are those of its base, bit for bit: the run changed nothing"):
        export(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_json(base / "provenance.json", {"sha256": {"base": "0" * 64}})
    export(base, tmp_path / "out")


@pytest.mark.parametrize("asked", ["tensors", "full"])
def test_a_written_tensor_that_differs(run: Path, tmp_path: Path, asked: Any) -> None:
    export(run, tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.2.self_attn.q_proj.weight"
    tensors[name][3, 4] += 1e-3
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"differs from what was to be written: {name}"):
        certify_hf(open_exportable(run), tmp_path / "hf", asked)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=name):
        certify_hf(open_exportable(run), tmp_path / "hf", asked)


def test_a_merged_tensor_that_differs(run: Path, tmp_path: Path) -> None:
    merge(MergeConfig(checkpoint_dir=run, out_dir=tmp_path / "merged"))
    path = tmp_path / "merged" / "lit_model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"The merge differs .*: lm_head\.weight"):
        certify_merged(open_exportable(run), tmp_path / "merged", "tensors")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("rope_parameters", {"rope_type": "default", "rope_theta": 10010.0}, "rope_base"),
        ("max_position_embeddings", 1024, "block_size"),
        ("tie_word_embeddings", True, "tie_embeddings"),
        ("dtype", "bfloat16", "the part or the dtype"),
    ],
)
def test_a_written_description_that_differs(run: Path, tmp_path: Path, field: str, value: Any, named: str) -> None:
    """Every tensor is right, the model is not, and prompts of 256 tokens may not show it."""
    export(run, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=f"differs from what was to be written: {named} in .*config.json"):
        certify_hf(open_exportable(run), tmp_path / "hf", "tensors")


def test_a_field_that_transformers_does_not_compute_with_is_refused(tmp_path: Path) -> None:
    """MPT's slopes: every tensor and field is right, and only computing shows that the two are not one model."""
    base = write_base(tmp_path / "base", "mpt", "7b", attn_config={"alibi_bias_max": 3})
    with pytest.raises(CheckpointError, match=r"transformers does not compute .* as litft does \(.*KL"):
        export(base, tmp_path / "hf", certificate="full")
    assert not (tmp_path / "hf").exists()
    assert export(base, tmp_path / "hf", certificate="tensors")[0]["certificate"]["tensors_equal"] == 20


def test_a_folder_that_transformers_cannot_load_is_refused(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bos_token_id": "one"}))
    with pytest.raises(CheckpointError, match=r"transformers cannot load .*'bos_token_id'\), so it was not kept"):
        certify_hf(open_exportable(run), tmp_path / "hf", "full")
    assert certify_hf(open_exportable(run), tmp_path / "hf", "tensors")["tensors_equal"] == 30


@pytest.mark.parametrize("found", [[7], [1, 7]])
def test_other_stop_tokens_are_refused(run: Path, tmp_path: Path, found: list[int]) -> None:
    """Too many would cut answers short."""
    export(run, tmp_path / "hf")
    write_json(tmp_path / "hf" / "generation_config.json", {"eos_token_id": found})
    with pytest.raises(CheckpointError, match=rf"transformers stops at \{found} in .*, litft at \[1\]"):
        certify_hf(open_exportable(run), tmp_path / "hf", "full")


def test_a_template_without_the_end_token_is_refused(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "hf")
    template = (tmp_path / "hf" / "chat_template.jinja").read_text()
    (tmp_path / "hf" / "chat_template.jinja").write_text(template.replace("</s>", ""))
    with pytest.raises(CheckpointError, match=r'goes on with "###Instr.*" where the model was trained on "</s>'):
        certify_hf(open_exportable(run), tmp_path / "hf", "full")


def test_a_template_whose_text_is_encoded_otherwise_is_told(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "hf")
    template = (tmp_path / "hf" / "chat_template.jinja").read_text()
    (tmp_path / "hf" / "chat_template.jinja").write_text(template.replace("### Instruction", "###  Instruction"))
    assert certify_hf(open_exportable(run), tmp_path / "hf", "full")["chat"] == {"conversations": 4, "equal_ids": 0}


def test_a_tokenizer_that_transformers_cannot_load_is_told(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text("[]")
    proof = certify_hf(open_exportable(run), tmp_path / "hf", "full")
    assert proof["chat"]["equal_ids"] is None and "not kept" not in proof["chat"]["not_checked"]
    assert "the chat template was not tried, transformers cannot load the tokenizer" in sentence(proof)


@pytest.mark.parametrize("share", [-1.0, 1.05])
def test_a_wrong_merge_is_refused_in_bfloat16_too(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding moves logits as well, so the sum is proved before it is rounded."""
    sizes = {"vocab_size": 320, "max_position_embeddings": 512}
    base = add_tokenizer(write_base(tmp_path / "base", "llama", "gqa", torch.bfloat16, **sizes))
    final = write_final(tmp_path / "final", base, lora())
    delta = LoRALinear.delta
    monkeypatch.setattr(LoRALinear, "delta", lambda layer: share * delta(layer))
    refused(final, "the merged model does not compute .* as litft does", certificate="full")


def test_a_merged_description_that_differs(run: Path, tmp_path: Path) -> None:
    merge(MergeConfig(checkpoint_dir=run, out_dir=tmp_path / "merged"))
    path = tmp_path / "merged" / "model_config.yaml"
    path.write_text(path.read_text().replace("sliding_window: null", "sliding_window: 300"))
    with pytest.raises(CheckpointError, match=r"The merge differs .* describes another model"):
        certify_merged(open_exportable(run), tmp_path / "merged", "tensors")


def test_prompts_need_no_tokenizer_and_fit_the_model(shared: Path) -> None:
    config = load_model_config(shared / "base")
    for prompts in (fixed_prompts(config, None, None), fixed_prompts(config, Tokenizer(shared / "base"), ALPACA)):
        assert len(prompts) >= 3 and len(set(map(tuple, prompts))) == len(prompts)
        assert all(0 < len(ids) <= 256 and max(ids) < 320 for ids in prompts)


def test_a_tokenizer_is_no_condition(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama", "gqa")
    report, _ = export(write_final(tmp_path / "final", base, lora(), style=None), tmp_path / "hf", certificate="full")
    assert "chat" not in report["certificate"] and report["certificate"]["logits"]["prompts"] == 3
