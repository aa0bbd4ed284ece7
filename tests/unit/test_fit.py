"""What becomes of rows that are too long: what is cut, what stays whole, and what is divided."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import EOS, write_checkpoint

from litft.data.encode import Encoding
from litft.data.fit import fit
from litft.text.conversation import SYSTEM, USER, Conversation, Message, completion, dialogue, document
from litft.text.styles import ALPACA, PLAIN, STYLES
from litft.text.tokenizer import Tokenizer

# One token a byte, so that lengths are easily told: BOS, the texts, EOS behind each answer.


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Encoding:
    return Encoding(Tokenizer(write_checkpoint(tmp_path_factory.mktemp("fit") / "c")), PLAIN)


def cut(encoding: Encoding, talk: Conversation, longest: int, too_long: str) -> tuple[list[str], str, int]:
    """Gives the texts of the rows, what was cut, and how many answers were lost."""
    fitted = fit(encoding, talk, encoding.example(talk), longest, too_long)
    texts = []
    for part in fitted.examples:
        assert len(part.input_ids) == len(part.mask) <= longest and part.target_tokens == sum(part.turn_targets)
        texts.append(encoding.tokenizer.decode(part.input_ids))
    return texts, fitted.cut, fitted.lost_turns


QUESTION = completion("Sum up.", "Short.", "one two three four five six")


@pytest.mark.parametrize("too_long", ["drop", "truncate_prompt", "truncate_response", "split_turns"])
def test_what_fits_stays_as_it_is(plain: Encoding, too_long: str) -> None:
    whole = plain.example(QUESTION)
    fitted = fit(plain, QUESTION, whole, len(whole.input_ids), too_long)
    assert fitted.examples == (whole,) and not fitted.cut


@pytest.mark.parametrize(
    ("talk", "longest", "expected"),
    [
        (QUESTION, 35, "Sum up.\nthree four five sixShort."),
        (QUESTION, 21, "Sum up.\nsixShort."),
        (QUESTION, 18, "up.\nsixShort."),  # the input is one word: then the question is cut
        (dialogue("one two three", "A", "four five six seven", "B"), 26, "one two threeAseven B".replace(" B", "B")),
        (dialogue("one two", "Answer that is long"), 12, None),
        (dialogue("one two", "A", system="a system text"), 15, None),
    ],
)
def test_the_prompt_is_cut_from_the_left(
    plain: Encoding, talk: Conversation, longest: int, expected: str | None
) -> None:
    texts, what, _ = cut(plain, talk, longest, "truncate_prompt")
    if expected is None:
        assert (texts, what) == ([], "")
        return
    assert what == "prompt" and len(texts) == 1
    answers = [message.text for message in talk.messages if message.role == "assistant"]
    assert all(answer in texts[0] for answer in answers)
    assert len(texts[0]) <= longest - 2 and texts[0][-8:] == expected[-8:]


def test_the_frame_stays_whole(tmp_path: Path) -> None:
    encoding = Encoding(Tokenizer(write_checkpoint(tmp_path / "c")), ALPACA)
    whole = encoding.example(QUESTION)
    [text], _, _ = cut(encoding, QUESTION, len(whole.input_ids) - 9, "truncate_prompt")
    expected = encoding.tokenizer.decode(whole.input_ids).replace("one two three four", "three four")
    assert text == expected or text == expected.replace("three four", "four")
    assert text.startswith("Below is an instruction") and text.endswith("### Response:Short.")


def test_a_cut_answer_has_no_end(plain: Encoding) -> None:
    talk = dialogue("q", "a long answer")
    [row] = fit(plain, talk, plain.example(talk), 8, "truncate_response").examples
    assert plain.tokenizer.decode(row.input_ids) == "qa long" and row.input_ids[-1] != EOS


def test_dropped(plain: Encoding) -> None:
    assert cut(plain, QUESTION, 20, "drop") == ([], "", 0)
    assert cut(plain, document("a text that nobody asked for"), 9, "truncate_prompt") == ([], "", 0)


TALK = dialogue("q1", "a1", "q2", "a2", "q3", "a3", system="S")


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (14, ["S\n\nq1a1q2a2", "S\n\nq3a3"]),
        (13, ["S\n\nq1a1", "S\n\nq2a2", "S\n\nq3a3"]),
        (9, ["S\n\nq1a1", "S\n\nq2a2", "S\n\nq3a3"]),
    ],
)
def test_turns_are_divided(plain: Encoding, longest: int, expected: list[str]) -> None:
    assert cut(plain, TALK, longest, "split_turns") == (expected, "", 0)


def test_a_turn_that_fits_in_no_part_is_counted(plain: Encoding) -> None:
    talk = dialogue("q1", "a1", "q2", "far too long an answer", "old words q3", "a3")
    assert cut(plain, talk, 9, "split_turns") == (["q1a1", "q3a3"], "", 1)


words = st.text("ab <|im_end|>\n", min_size=0, max_size=30).map(lambda text: f"x{text}")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=3), st.integers(2, 120), st.booleans())
def test_answers_are_never_touched(
    plain: Encoding, turns: list[tuple[str, str, str]], longest: int, split: bool
) -> None:
    messages = [Message(SYSTEM, "Be kind.")]
    for question, about, answer in turns:
        messages += [Message(USER, question, about), *completion("", answer).messages[1:]]
    talk = Conversation(tuple(messages))
    encoding = Encoding(plain.tokenizer, STYLES["alpaca" if split else "plain"])
    fitted = fit(encoding, talk, encoding.example(talk), longest, "split_turns" if split else "truncate_prompt")
    given_answers = [encoding.tokenizer.encode_batch([answer])[0] + [EOS] for _, _, answer in turns]
    learned = []
    for part in fitted.examples:
        assert len(part.input_ids) <= longest and part.target_tokens
        learned += [number for number, bit in zip(part.input_ids, part.mask, strict=True) if bit]
    expected = [number for answer in given_answers for number in answer]
    if split:
        assert len(fitted.examples) + fitted.lost_turns <= len(turns)
        assert sum(len(part.turn_targets) for part in fitted.examples) == len(turns) - fitted.lost_turns
    else:
        assert learned == (expected if fitted.examples else [])
