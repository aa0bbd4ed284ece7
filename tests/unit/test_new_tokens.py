"""New tokens: one id each, rows that begin as the mean of their pieces, trained by every method, kept on load."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_engine import ids_of
from tiny_hf import write_hf_folder
from tiny_run import SIZES, methods
from tiny_text import SHARED, write_checkpoint
from torch import Tensor

from litft import LLM
from litft.checkpoint.convert import from_hf
from litft.config.convert import FromHfConfig
from litft.config.model import ModelConfig
from litft.config.plan import build_plan
from litft.config.prepare import PrepareCsvConfig
from litft.config.run import RunConfig
from litft.config.train import EvalConfig, TrainConfig
from litft.data.prepare import prepare
from litft.data.store import PreparedData
from litft.errors import TokenizerError
from litft.methods.base import freeze, trainable_state
from litft.methods.new_tokens import WithNewTokens
from litft.model.gpt import GPT
from litft.model.load import load_model
from litft.text.new_tokens import NewTokens, add_tokens
from litft.text.tokenizer import Tokenizer
from litft.train.fabric import build_fabric
from litft.train.finish import finish
from litft.train.loop import build_run, fit
from litft.train.optim import build_optimizer
from litft.train.parts import Parts
from litft.train.setup import open_inputs, start_out_dir

NEW = NewTokens(first_id=61, texts=("<a>", "<b>", "<c>"), pieces=((1, 2), (3,), (4, 5, 6)))
TIED = [False, True]
CONFIG = ModelConfig(name="l", family="llama", head_size=4, vocab_size=60, padded_vocab_size=62, **SIZES)


def build(tied: bool, head_bias: bool = False) -> GPT:
    model = GPT(dataclasses.replace(CONFIG, tie_embeddings=tied, lm_head_bias=head_bias))
    model.init_weights(seed=0)
    return model.eval()


def logits(model: GPT, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.head(model(ids))


def method_named(name: str, tied: bool) -> WithNewTokens:
    found = methods()[name]
    if name == "lora" and tied:
        config = dataclasses.replace(found.config, targets=("q", "v"))  # type: ignore[attr-defined]
        found = type(found)(config)  # type: ignore[call-arg]
    return WithNewTokens(found, NEW)


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("name", methods())
def test_old_tokens_keep_their_logits_and_new_ones_begin_as_their_pieces(name: str, tied: bool) -> None:
    model, ids = build(tied), torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    before, rows = logits(model, ids), model.lm_head.weight.detach().clone()
    method_named(name, tied).apply(model)
    after = logits(model.eval(), ids)
    assert after.shape[-1] == model.config.padded_vocab_size == 64
    assert model.config.vocab_size == 64
    assert torch.allclose(after[..., :61], before[..., :61], atol=1e-6)
    hidden = torch.linalg.lstsq(rows, before.flatten(0, 1).T).solution.T  # (B T, C): what gave these logits
    wanted = torch.stack([hidden @ rows[list(pieces)].mean(0) for pieces in NEW.pieces], dim=-1)
    assert torch.allclose(after.flatten(0, 1)[:, 61:], wanted, atol=1e-4)


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("name", methods())
def test_new_rows_are_trained_by_every_method(name: str, tied: bool) -> None:
    model, method = build(tied), method_named(name, tied)
    method.apply(model)
    freeze(model, method)
    ids = torch.tensor([[7, 61, 8, 62, 9, 63, 10]])
    torch.nn.functional.cross_entropy(model.head(model(ids))[0, :-1], ids[0, 1:]).backward()
    trained = trainable_state(model, method)
    names = [name for name in trained if "wte" in name or "lm_head" in name]
    rows = {name for name in names if name.endswith("new_rows")} or {
        name for name in names if name.endswith((".wte.weight", "lm_head.weight"))
    }
    assert len(rows) == (1 if tied else 2)
    for name in rows:
        gradient = model.get_parameter(name).grad
        assert gradient is not None and gradient[-3:].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("name", methods())
def test_a_bfloat16_model_with_new_rows_answers(name: str) -> None:
    """The rows of new tokens come first among the parameters, and are float32 beside frozen matrices."""
    model = build(tied=False).to(torch.bfloat16)
    method_named(name, tied=False).apply(model)
    assert len(ids_of(model.eval(), [1, 61, 2], 4)) == 4


def test_a_bias_of_the_head_grows_by_zeros() -> None:
    model = build(tied=False, head_bias=True)
    method_named("full", False).apply(model)
    assert model.lm_head.bias.shape == (64,) and not model.lm_head.bias[-3:].any()


def test_rows_to_spare_are_used_before_the_embedding_grows() -> None:
    model = build(tied=False)
    new = dataclasses.replace(NEW, first_id=50)
    WithNewTokens(methods()["full"], new).apply(model)
    assert (model.config.vocab_size, model.config.padded_vocab_size) == (53, 62)


def test_added_texts_become_one_id_each(tmp_path: Path) -> None:
    before = Tokenizer(write_checkpoint(tmp_path))
    new = add_tokens(tmp_path, ["<tool>", "</tool> end"])
    after = Tokenizer(tmp_path)
    assert new.first_id == before.vocab_size and after.vocab_size == new.vocab_size == before.vocab_size + 2
    assert after.encode_batch(["a<tool>b</tool> end"])[0].count(new.first_id) == 1
    assert after.decode(after.encode_batch(["a<tool>b</tool> end"])[0]) == "a<tool>b</tool> end"
    assert list(new.pieces[0]) == before.encode_batch(["<tool>"])[0]
    assert after.hash != before.hash


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["<a>", "<a>"], "twice"), ([" "], "empty"), (["</s>"], "knows already as"), (["x"], "knows already as")],
)
def test_texts_that_cannot_be_tokens(texts: list[str], message: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(TokenizerError, match=message):
        add_tokens(tmp_path, texts)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize("name", ["full", "lora", "adapter"])
def test_from_rows_to_a_model_that_writes_the_new_token(name: str, tmp_path: Path) -> None:
    """`red`, asked for in every row, is one new token; the trained model says it and the folder keeps it."""
    folder, data = write_hf_folder(tmp_path / "model", vocab_size=259), tmp_path / "data"
    from_hf(FromHfConfig(checkpoint_dir=folder))
    rows = "instruction,output\n" + "".join(f"Box {number}?,red green\n" for number in range(40))
    (tmp_path / "rows.csv").write_text(rows)
    config = PrepareCsvConfig(
        checkpoint_dir=folder, data_file=tmp_path / "rows.csv", destination_path=data, add_tokens=("red", "green")
    )
    prepare("csv", config)
    train = PreparedData.load(data / "train.pt")
    assert int(train.input_ids.max()) == 260
    run_config = RunConfig(
        checkpoint_dir=folder,
        data_dir=data,
        out_dir=tmp_path / "out",
        precision="32-true",
        train=TrainConfig(global_batch_size=4, micro_batch_size=4, epochs=1),
        eval=EvalConfig(prompts=0),
    )
    inputs = open_inputs(run_config, methods()[name], lambda message: None)
    start_out_dir(inputs)
    fabric = build_fabric(run_config)
    model = load_model(folder, "32-true", fabric.device)
    inputs.method.apply(model)
    freeze(model, inputs.method)
    plan = build_plan(len(inputs.train_rows), run_config.train, run_config.optim, run_config.eval)
    optimizer = build_optimizer(model.named_parameters(), run_config.optim)
    run = build_run(inputs, fabric, plan, Parts(model, fabric), optimizer)
    finish(run, fit(run, lambda found, wanted: torch.nn.functional.cross_entropy(found, wanted, reduction="none")))
    llm = LLM.load(tmp_path / "out" / "final", precision="32-true")
    ids = llm.tokenizer.encode_batch(["red green"])[0]
    assert (ids[0], ids[-1]) == (259, 260)
    tokens = torch.tensor([[5, *ids]])
    with torch.no_grad():
        wanted = model.eval().head(model(tokens))
    found = llm.logits(tokens)  # by weights laid out for decoding: the same but for rounding
    assert torch.allclose(found, wanted[..., : found.shape[-1]], atol=1e-6)
    assert json.loads((tmp_path / "out" / "final" / "config.json").read_text())["vocab_size"] == 261


@pytest.mark.skipif(not (SHARED / "tokenizers" / "llama2").is_dir(), reason="shared data is absent")
def test_transformers_reads_new_tokens_as_litft_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for path in (SHARED / "tokenizers" / "llama2").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    plain = Tokenizer(tmp_path).encode("a b")
    add_tokens(tmp_path, ["<call>", "</call>"])
    ours, theirs = Tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a <call>x</call> b", "<call> x", "a b"):
        assert theirs(text)["input_ids"] == ours.encode(text)
    assert ours.encode("a b") == plain
