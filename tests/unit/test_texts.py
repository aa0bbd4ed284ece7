"""What prepared rows say: questions and answers come back from ids, whatever the frame and the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn import NAMES, conversations, template_or_style, write_models
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from litft.data.encode import Encoding
from litft.data.store import PreparedData, save_prepared
from litft.data.texts import TextReader
from litft.text.conversation import Conversation, StyleError, dialogue
from litft.text.frames import Frames, Said
from litft.text.tokenizer import Tokenizer

TEXTS = ("Name a prime. </s>", "Two, or 漢字!", "Another?", "Three.")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Gives the checkpoint folder of each kind of tokenizer."""
    return write_models(tmp_path_factory.mktemp("models"))


def told(
    models: dict[str, Path], kind: str, name: str, talk: Conversation, train_on: str = "completions"
) -> list[Said]:
    """Gives what a row says that was made of a conversation."""
    tokenizer = Tokenizer(models[kind])
    style = template_or_style(name, tokenizer)
    example = Encoding(tokenizer, style, train_on).example(talk)
    return Frames(tokenizer, style).said(example.input_ids, example.mask)


@pytest.mark.parametrize("train_on", ["completions", "last", "all"])
@pytest.mark.parametrize("name", ["alpaca", "chatml", "llama3", "vicuna", "template-chatml", "template-gemma"])
@pytest.mark.parametrize("kind", ["byte", "demo"])
def test_what_people_wrote(models: dict[str, Path], kind: str, name: str, train_on: str) -> None:
    system = "" if name == "template-gemma" else "Be brief."  # Gemma has no place for it
    said = told(models, kind, name, dialogue(*TEXTS, system=system), train_on)
    first, *rest = TEXTS
    assert [turn.text for turn in said] == [f"{system}\n\n{first}".strip(), *rest]
    assert [turn.is_answer for turn in said] == [False, True, False, True]


def test_the_answer_of_any_row(models: dict[str, Path]) -> None:
    """Of one turn all comes back, however odd its text."""

    @settings(max_examples=60, derandomize=True)
    @given(conversations(), st.sampled_from(NAMES))
    def check(talk: Conversation, name: str) -> None:
        talk = Conversation(talk.messages[-2:])
        assume(all(message.text.strip() == message.text and not message.input for message in talk.messages))
        # Characters that stand for special tokens while frames are looked for; nobody writes them.
        assume(not any(0xF0000 <= ord(letter) <= 0xFFFFD for message in talk.messages for letter in message.text))
        # A template takes thoughts away, and a frame in an answer cannot be told from the frame.
        assume(name != "template-thinking" and talk.messages[0].text not in ("", "s", "user"))
        try:
            said = told(models, "byte", name, talk)
        except StyleError:
            assume(False)
        assert said[-1].is_answer and talk.messages[-1].text in said[-1].text

    check()


def test_rows_without_a_style(models: dict[str, Path], tmp_path: Path) -> None:
    """What is learned is the answer then."""
    tokenizer = Tokenizer(models["byte"])
    [asked, answered] = tokenizer.encode_batch(["What is it?", " It is new."])
    ids = torch.tensor([tokenizer.bos_id, *asked, *answered, tokenizer.eos_id])
    mask = torch.arange(len(ids)) > len(asked)
    offsets = torch.tensor([0, len(ids)])
    save_prepared(
        tmp_path / "train.pt",
        input_ids=ids,
        target_mask=mask,
        offsets=offsets,
        source=torch.zeros(1),
        meta={"tokenizer": {"hash": tokenizer.hash}},
    )
    text = TextReader(PreparedData.load(tmp_path / "train.pt"), tokenizer).read(0)
    assert (text.asked, text.answered, text.whole) == ("What is it?", "It is new.", "What is it?\n\nIt is new.")
