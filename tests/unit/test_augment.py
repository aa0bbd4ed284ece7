"""Options in other orders and questions in other words: the right answer stays right, and what is not sure stays."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litft.data.augment import in_other_orders, in_other_words, read_paraphrases
from litft.errors import DataError
from litft.text.conversation import Conversation, completion, dialogue

WORDS = st.lists(st.sampled_from(["oak", "ash", "elm", "fir", "yew", "box"]), min_size=2, max_size=6, unique=True)
WRITTEN = {"({}) ": "AB", "{}. ": "AB", "{}) ": "ab", "{}: ": "AB"}


@given(WORDS, st.data(), st.sampled_from(sorted(WRITTEN)), st.integers(1, 9), st.booleans())
def test_letters_go_with_their_options(
    words: list[str], data: st.DataObject, form: str, copies: int, is_input: bool
) -> None:
    right = data.draw(st.sampled_from(words))
    letters = "ABCDEF" if WRITTEN[form] == "AB" else "abcdef"
    listed = "\n".join(form.format(letter) + word for letter, word in zip(letters, words, strict=False))
    letter = letters[words.index(right)]
    answer = data.draw(st.sampled_from([letter, f"{letter}.", f"({letter})", f"{letter}) {right}.", right]))
    asked = ("Which tree?", listed) if is_input else (f"Which tree?\n{listed}\nAnswer:", "")
    made = in_other_orders(completion(asked[0], answer, asked[1]), copies, seed=1)
    assert len(made) == min(copies, math.factorial(len(words)) - 1)
    seen = {listed}
    for question, said in (each.messages for each in made):
        lines = [line for line in f"{question.text}\n{question.input}".split("\n") if line.endswith(tuple(words))]
        texts = [line.rsplit(" ", 1)[1] for line in lines]
        assert sorted(texts) == sorted(words) and lines[0].startswith(form.format(letters[0]))
        if answer == right:
            assert said.text == answer
        else:
            label = re.search(r"[A-Fa-f]", said.text)
            assert label is not None and texts[letters.index(label[0])] == right
            assert said.text.replace(label[0], letter, 1) == answer
        assert "\n".join(lines) not in seen
        seen.add("\n".join(lines))


def test_bullets_below_their_word() -> None:
    row = completion("Where is light dim?\nOptions:\n- a room\n- a roof\nSay why.", "A roof. It is high.")
    (made,) = in_other_orders(row, 5, seed=0)
    assert made == completion("Where is light dim?\nOptions:\n- a roof\n- a room\nSay why.", "A roof. It is high.")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Which?\nA. oak\nB. both of them", "A"),
        ("Which?\nA. oak\nB. ash\nC. A and B", "C"),
        ("Which?\nA. oak\nB. ash\nC. none of the above", "C"),
        ("Which?\nA. oak\nB. ash", "A, as B is no tree."),
        ("Which?\nA. oak\nB. ash", "C"),
        ("Which?\nA. oak\nB. ash", "A. ash"),
        ("Which?\nA. oak\nB. oak", "oak"),
        ("Which?\n- oak\n- ash", "oak"),
        ("Name a tree.", "An oak."),
        ("Options:\n- oak\n- ash", "The first of them, oak."),
        ("Options:\n- oak\n- ash", "A tree."),
        ("B. oak\nC. ash", "B"),
    ],
)
def test_what_is_not_sure_stays(asked: str, answer: str) -> None:
    assert in_other_orders(completion(asked, answer), 3, seed=0) == []


def test_several_turns_stay_and_a_system_text_goes_along() -> None:
    asked = "Which?\nA. oak\nB. ash"
    assert in_other_orders(dialogue(asked, "A", "Why?", "So."), 3, seed=0) == []
    (made,) = in_other_orders(dialogue(asked, "A", system="Be brief."), 3, seed=0)
    assert made == dialogue("Which?\nA. ash\nB. oak", "B", system="Be brief.")


def test_paraphrases(tmp_path: Path) -> None:
    path = tmp_path / "frames.txt"
    path.write_text("Please {instruction}\n\nTask:\\n{instruction}\n", encoding="utf-8")
    frames = read_paraphrases(path)
    rows = [completion(f"Name {number} trees.", "Oak.", "Of here.") for number in range(20)]
    made = [in_other_words(row, frames, seed=3) for row in rows]
    wanted = [{f"Please {row.messages[0].text}", f"Task:\n{row.messages[0].text}"} for row in rows]
    assert all(each.messages[0].text in texts for each, texts in zip(made, wanted, strict=True))
    assert len({each.messages[0].text[:4] for each in made}) == 2
    assert all(each.messages[0].input == "Of here." and each.messages[1].text == "Oak." for each in made)
    assert made == [in_other_words(row, frames, seed=3) for row in rows]
    document = Conversation(rows[0].messages[1:])
    assert in_other_words(document, frames, seed=3) == document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Please.\n", 'line 1 must hold {instruction} once: "Please."'),
        ("\n", "holds no paraphrases"),
        (None, "Cannot read"),
    ],
)
def test_paraphrases_that_are_none(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "frames.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read_paraphrases(path)
    assert words in str(raised.value)
