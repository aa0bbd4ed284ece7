"""`LLM.load`: a model comes laid out for decoding, alone or with a draft."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_hf

from litft import LLM
from litft.cli import main
from litft.model.packed import PackedLinear, can_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_hf.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=256)
    assert main(["convert", "from_hf", "--checkpoint_dir", str(folder)]) == 0
    return folder


def test_a_model_and_its_draft_are_laid_out_for_decoding(folder: Path) -> None:
    llm = LLM.load(folder, "32-true", "cpu", draft_dir=folder, draft_tokens=3)
    assert llm.draft is not None and llm.draft.tokens == 3
    if not can_pack(llm.model.lm_head.weight):
        pytest.skip("oneDNN lays nothing out here")
    for model in (llm.model, llm.draft.model):
        assert isinstance(model.lm_head, PackedLinear)
        assert isinstance(model.get_submodule("transformer.h.0.attn.qkv"), PackedLinear)


def test_a_draft_guesses_in_every_way_of_asking(folder: Path) -> None:
    plain, llm = LLM.load(folder), LLM.load(folder, draft_dir=folder)
    assert llm.draft is not None
    asked = [{"role": "user", "content": "Say red"}]
    for ask in (
        lambda llm: llm.generate("Say red", max_new_tokens=9),
        lambda llm: llm.generate_many(["Say red", "and"], max_new_tokens=9),
        lambda llm: llm.chat(asked, max_new_tokens=9),
    ):
        before = llm.draft.guessed
        assert ask(llm) == ask(plain)
        assert llm.draft.guessed > before and llm.draft.taken == llm.draft.guessed
    assert llm.context == 256
