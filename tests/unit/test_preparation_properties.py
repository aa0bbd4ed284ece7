"""What holds for any rows, styles and limits: BOS, ends, losses, lengths, answers, served prompts, and counts.

The first half is about one conversation, the second about whole preparations of files.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from drawn import (
    NAMES,
    TOO_LONG,
    TRAIN_ON,
    Expected,
    alpaca_rows,
    conversations,
    message_rows,
    template_or_style,
    write_models,
)
from hypothesis import assume, given, seed, settings
from hypothesis import strategies as st

from litft.config.prepare import PrepareConfig, PrepareFileConfig
from litft.data.encode import Encoding, Example
from litft.data.fit import Fitted, fit
from litft.data.prepare import prepare
from litft.data.reading.rows import Rejected, Row
from litft.data.store import PreparedData
from litft.errors import LitftError
from litft.text.conversation import ASSISTANT, SYSTEM, USER, Conversation, Message, StyleError
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.styles import STYLES
from litft.text.tokenizer import Tokenizer

Written = list[tuple[tuple[int, ...], tuple[bool, ...]]]
PLAIN_ENDS = tuple(name for name in STYLES if not STYLES[name].end)


@pytest.fixture(scope="module")
def models() -> Any:
    """Gives the checkpoint folder of each kind of tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_models(Path(folder))


@cache
def expected_of(folder: Path, name: str) -> Expected:
    """Gives what a style promises with the tokenizer of a folder."""
    tokenizer = _tokenizer(folder)
    return Expected(name, template_or_style(name, tokenizer), tokenizer)


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


def kinds_of(name: str) -> tuple[str, ...]:
    """Gives the tokenizers that can write a style; the sentencepiece model has no marks."""
    return ("byte", "demo", "pieces") if name in PLAIN_ENDS else ("byte", "demo")


def for_any(key: str, count: int, check: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Tries a check on so many draws, for each key on others and the same in every run."""
    drawn = given(*strategies)(check)
    seed(zlib.crc32(key.encode()))(settings(max_examples=count)(drawn))()


def is_served(expected: Expected, conversation: Conversation) -> bool:
    """Says whether the style has a place for the conversation."""
    try:
        expected.style.exchanges(conversation)
    except StyleError:
        return False
    return True


def learned(example: Example) -> list[list[int]]:
    """Gives the runs of tokens that carry loss."""
    runs = itertools.groupby(zip(example.mask, example.input_ids, strict=True), key=lambda pair: pair[0])
    return [[number for _, number in run] for is_target, run in runs if is_target]


def assert_bos(expected: Expected, ids: list[int], most: int, least: int) -> None:
    """Asserts that BOS stands as often as the style says, first if at all, and never twice in a row."""
    bos = expected.tokenizer.bos_id
    assert least <= ids.count(bos) <= most and (ids[0] == bos) == (most > 0)
    assert (bos, bos) not in itertools.pairwise(ids)


@pytest.mark.parametrize("name", NAMES)
def test_one_conversation(models: dict[str, Path], name: str) -> None:
    """BOS, an end behind each answer and nowhere else in it, the answer's text, and the prompt that is served."""

    def check(talk: Conversation, kind: str) -> None:
        expected = expected_of(models[kind], name)
        assume(is_served(expected, talk))
        tokenizer, turns = expected.tokenizer, len(talk.answers)
        row = Encoding(tokenizer, expected.style).example(talk)
        assert len(row.input_ids) == len(row.mask) and not row.mask[0]
        assert_bos(expected, row.input_ids, expected.bos(turns), expected.bos(turns))
        answers = learned(row)
        assert tuple(map(len, answers)) == row.turn_targets and len(answers) == turns
        for ids in answers:
            assert ids[-1] == expected.end and expected.end not in ids[:-1]
            assert ids[-1] in stop_ids(tokenizer, expected.style)
        if kind == "byte" or (kind == "demo" and "\u2581" not in str(talk)):
            assert [tokenizer.decode(ids) for ids in answers] == expected.answers(talk)
        assert row.unserved == (turns if name == "template-unserved" else 0)
        starts = [place for place in range(1, len(row.mask)) if row.mask[place] and not row.mask[place - 1]]
        for place, number in zip(starts, talk.answers, strict=True):
            fed = encode_prompt(tokenizer, expected.style, talk.until(number))
            assert (fed == row.input_ids[:place]) == (name != "template-unserved")

    for_any(name, 15, check, conversations(), st.sampled_from(kinds_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_what_carries_loss(models: dict[str, Path], name: str) -> None:
    """Each message of a role that is learned, whole, and nothing else; the ids do not depend on it."""

    def check(talk: Conversation, train_on: str) -> None:
        expected = expected_of(models["byte"], name)
        assume(is_served(expected, talk))
        # Words that a template takes away cannot be found in its text, and then a question is not learned.
        assume(name != "template-thinking" or "</think>" not in "".join(m.whole_text for m in talk.messages[:-1]))
        row = Encoding(expected.tokenizer, expected.style, train_on).example(talk)
        assert row.input_ids == Encoding(expected.tokenizer, expected.style).example(talk).input_ids
        if train_on == "all":
            assert row.mask == [False] + [True] * (len(row.mask) - 1)
            return
        ids = [number for run in learned(row) for number in run]
        texts = learned_texts(expected, talk, train_on)
        assert expected.tokenizer.decode(ids) == "".join(texts)
        has_answers = train_on in ("completions", "last") or ASSISTANT in train_on
        assert ids.count(expected.end) == (has_answers and (1 if train_on == "last" else len(talk.answers)))

    for_any(name, 10, check, conversations(), st.sampled_from(TRAIN_ON))


def learned_texts(expected: Expected, talk: Conversation, train_on: str) -> list[str]:
    """Gives what is learned of a conversation, message by message."""
    roles = {ASSISTANT} if train_on in ("completions", "last") else set(train_on.split(","))
    answers = iter(expected.answers(talk))
    texts = []
    for number, message in enumerate(talk.messages):
        text = next(answers) if message.role == ASSISTANT else _asked(expected, message.text, message.input)
        if message.role in roles and (train_on != "last" or number == talk.answers[-1]):
            texts.append(text)
    return texts


def _asked(expected: Expected, text: str, input: str) -> str:
    """Gives what the style writes of a question: two texts in a frame, one text in a template."""
    has_input = bool(input.strip())
    if expected.name in STYLES:
        return text + input if has_input else text
    whole = f"{text}\n\n{input}" if has_input else text
    if expected.name == "template-thinking":
        whole = whole.split("</think>")[-1]
    return whole.strip() if expected.name in ("template-thinking", "template-gemma") else whole


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_too_long(models: dict[str, Path], name: str) -> None:
    """No part is too long or without a target; answers stay whole but where they are what is cut; none is lost."""

    def check(talk: Conversation, kind: str, too_long: str, share: float) -> None:
        expected = expected_of(models[kind], name)
        assume(is_served(expected, talk))
        encoding = Encoding(expected.tokenizer, expected.style)
        whole = encoding.example(talk)
        longest = max(2, round(len(whole.input_ids) * share))
        fitted = fit(encoding, talk, whole, longest, too_long)
        for part in fitted.examples:
            assert len(part.input_ids) <= longest and any(part.mask) and len(part.mask) == len(part.input_ids)
            assert_bos(expected, part.input_ids, expected.bos(len(talk.answers)), min(expected.bos(1), 1))
            assert too_long == "truncate_response" or part.input_ids[-1] == expected.end
        check_fitted(fitted, whole, longest, too_long)

    shares = st.floats(0.05, 1.1)
    for_any(name, 15, check, conversations(), st.sampled_from(kinds_of(name)), st.sampled_from(TOO_LONG), shares)


def check_fitted(fitted: Fitted, whole: Example, longest: int, too_long: str) -> None:
    """Asserts what each way promises of a row that was perhaps too long."""
    if len(whole.input_ids) <= longest:
        assert fitted.examples == (whole,) and not fitted.cut
    elif too_long == "drop":
        assert not fitted.examples
    elif too_long == "truncate_prompt" and fitted.examples:
        assert learned(fitted.examples[0]) == learned(whole) and fitted.cut == "prompt"
    elif too_long == "truncate_response" and fitted.examples:
        (part,) = fitted.examples
        size = len(part.input_ids)
        assert (part.input_ids, part.mask) == (whole.input_ids[:size], whole.mask[:size])
        assert part.mask[-1] and not any(whole.mask[size:longest])
    elif too_long == "split_turns":
        kept = sum(len(part.turn_targets) for part in fitted.examples)
        assert kept + fitted.lost_turns == len(whole.turn_targets)


@pytest.mark.parametrize("name", NAMES)
def test_neither_order_nor_company_changes_a_row(models: dict[str, Path], name: str) -> None:
    def check(talks: list[Conversation], kind: str, train_on: str, order: random.Random) -> None:
        expected = expected_of(models[kind], name)
        encoding = Encoding(expected.tokenizer, expected.style, train_on)
        rows = [Row(number, talk) for number, talk in enumerate(talks)]
        alone = [next(encoding.examples([row])) for row in rows]
        mixed = order.sample(range(len(rows)), len(rows))
        assert list(encoding.examples(rows)) == alone
        assert list(encoding.examples([rows[number] for number in mixed])) == [alone[number] for number in mixed]
        for row, example in zip(rows, alone, strict=True):
            assert isinstance(example, Rejected) or example == encoding.example(row.conversation)

    talks = st.lists(conversations(), min_size=2, max_size=5)
    drawn = (st.sampled_from(kinds_of(name)), st.sampled_from(("completions", "all", "last")), st.randoms())
    for_any(name, 3, check, talks, *drawn)


def run(
    models: dict[str, Path], kind: str, rows: list[dict[str, Any]], options: dict[str, Any]
) -> tuple[dict[str, Any], Written, dict[str, bytes]] | str:
    """Prepares a JSON file; gives the ledger, the rows and the bytes of the files, or the sentence of a refusal."""
    source, make = ("messages", PrepareFileConfig) if "messages" in rows[0] else ("alpaca", PrepareConfig)
    with tempfile.TemporaryDirectory() as scratch:
        path, destination = Path(scratch) / "rows.json", Path(scratch) / "prepared"
        path.write_text(json.dumps(rows), encoding="utf-8")
        given = {"checkpoint_dir": models[kind], "data_file": path, "destination_path": destination}
        try:
            manifest = prepare(source, make(**given, **options))
        except LitftError as error:
            assert not destination.exists()
            return str(error).replace(scratch, "")
        files = {each.name: each.read_bytes() for each in destination.iterdir()}
        written = []
        for name in ("train.pt", "test.pt"):
            data = PreparedData.load(destination / name) if name in files else ()
            written += [tuple(tuple(part.tolist()) for part in data.row(index)) for index in range(len(data))]  # type: ignore[union-attr]
        return manifest.to_dict()["sources"][source], written, files


def contiguous(expected: Expected, talk: Conversation) -> set[tuple[str, ...]]:
    """Gives what is learned of any turns of a conversation that are one behind the other."""
    first = 1 if talk.messages[0].role == SYSTEM else 0
    turns = [talk.messages[place : place + 2] for place in range(first, len(talk.messages), 2)]
    parts = [turns[begin:end] for end in range(len(turns) + 1) for begin in range(end)]
    return {tuple(expected.answers(Conversation(sum(part, ())))) for part in parts}


UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"  # characters without a width


def talk_of(row: dict[str, Any]) -> Conversation | None:
    """Gives the conversation of a row, None where nobody can learn from it."""
    try:
        if "\\u0000" in json.dumps(row):
            return None
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None
    messages = row.get("messages") or [
        {"role": USER, "content": row["instruction"], "input": row.get("input") or ""},
        {"role": ASSISTANT, "content": row["output"]},
    ]
    if messages[-1]["role"] == USER:
        messages = messages[:-1]
    said = ["".join(each["content"].split()).strip(UNSEEN) for each in messages if each["role"] != SYSTEM]
    if len(messages) % 2 != (messages[0]["role"] == SYSTEM) or not all(said):
        return None
    return Conversation(tuple(Message(each["role"], each["content"], each.get("input", "")) for each in messages))


GOOD = {"messages": [{"role": role, "content": role} for role in (SYSTEM, USER, ASSISTANT)]}
message_files = st.lists(message_rows(), max_size=5).map(lambda rows: [*rows, GOOD])
alpaca_files = st.lists(alpaca_rows(), max_size=5).map(lambda rows: [*rows, {"instruction": "a", "output": "b"}])


@pytest.mark.parametrize("train_on", TRAIN_ON)
@pytest.mark.parametrize("too_long", TOO_LONG)
def test_whole_preparations(models: dict[str, Path], train_on: str, too_long: str) -> None:
    """Through the real command, each file twice: as it is, or in another order."""
    if (train_on, too_long) == ("last", "split_turns"):
        return  # refused by the config, with a sentence
    seen: Counter[str] = Counter()

    def check(rows: list[dict[str, Any]], name: str, longest: int, held_out: float, order: random.Random) -> None:
        kind = order.choice(kinds_of(name) if train_on in ("completions", "all", "last") else ("byte", "demo"))
        options = {
            "prompt_style": name if name in STYLES else str(models[kind].parent / f"{name}.jinja"),
            "train_on": train_on,
            "too_long": too_long,
            "max_seq_length": longest,
            "test_split_fraction": held_out,
            "max_rejected_fraction": 1.0,
        }
        first = run(models, kind, rows, options)
        is_mixed = order.random() < 0.5
        again = run(models, kind, order.sample(rows, len(rows)) if is_mixed else rows, options)
        if isinstance(first, str) or isinstance(again, str):
            assert isinstance(again, str) and (first == again or is_mixed)
            return
        seen["written"] += 1
        assert len(set(first[1])) == len(first[1])
        assert set(again[1]) == set(first[1]) if is_mixed else again == first
        ledger, written, _ = first
        check_ledger(expected_of(models[kind], name), ledger, rows, written, train_on)
        check_written(expected_of(models[kind], name), ledger, rows, written, longest, options)

    lengths = st.sampled_from((500, 2, 30, 90, 200, 300, 400))
    files = message_files if train_on == "system" else message_files | alpaca_files
    drawn = (files, st.sampled_from(NAMES), lengths, st.sampled_from((0.0, 0.3)), st.randoms())
    for_any(f"{train_on} {too_long}", 5 if train_on == "completions" else 3, check, *drawn)
    assert seen["written"] > 0, seen


def check_written(
    expected: Expected,
    ledger: dict[str, Any],
    rows: list[dict[str, Any]],
    written: Written,
    longest: int,
    options: dict[str, Any],
) -> None:
    """Asserts of each row its length, losses, BOS and end; and that what is learned is answers of the file."""
    talks = [talk for row in rows if (talk := talk_of(row)) is not None]
    most = max(expected.bos(len(talk.answers)) for talk in talks)
    unended = 0
    for ids, mask in written:
        assert len(ids) == len(mask) <= longest and any(mask) and not mask[0]
        assert_bos(expected, list(ids), most, min(most, 1))
        is_ended = ids[-1] == expected.end
        unended += not is_ended
        assert mask[-1] or options["train_on"] in ("user", "system", "system,user")
        if options["train_on"] == "completions" and expected.tokenizer.decode([100]) == "d" and is_ended:
            texts = tuple(expected.tokenizer.decode(run) for run in learned(Example(list(ids), list(mask))))
            assert any(texts in contiguous(expected, talk) for talk in talks)
    assert unended <= (ledger["rows_cut"] if options["too_long"] == "truncate_response" else 0)
    assert ledger["stop_token_fraction"] == pytest.approx(1 - unended / len(written), abs=1e-6)


def check_ledger(
    expected: Expected,
    ledger: dict[str, Any],
    rows: list[dict[str, Any]],
    written: Written,
    train_on: str,
) -> None:
    """Asserts that every row is accounted for, and that the numbers are those of what was written."""
    talks = [talk for row in rows if (talk := talk_of(row)) is not None]
    kept = ledger["rows_kept_train"] + ledger["rows_kept_test"]
    lost = ledger["rows_rejected"] + ledger["rows_duplicate"] + ledger["rows_dropped"]
    assert ledger["rows_read"] == len(rows) and ledger["rows_read"] + ledger["rows_split"] == lost + kept
    assert kept == len(written) == sum(ledger["lengths"])
    assert ledger["target_tokens"] == sum(sum(mask) for _, mask in written)
    assert ledger["prompt_tokens"] == sum(len(mask) for _, mask in written) - ledger["target_tokens"]
    assert ledger["target_tokens"] >= sum(ledger["target_tokens_per_turn"])
    assert ledger["prompts_not_served"] == (
        sum(ledger["answers_found_by"].values()) if expected.name == "template-unserved" else 0
    )
    assert ledger["rows_cut_prompt"] <= ledger["rows_cut"] <= kept
    unused = len(rows) - len(talks) + sum(not is_served(expected, talk) for talk in talks)
    assert ledger["rows_rejected"] == unused or (train_on.split(",")[0] in ("user", "system") and unused <= len(rows))
    bos = Counter(ids.count(expected.tokenizer.bos_id) for ids, _ in written)
    assert ledger["bos_per_row"] == dict(sorted(bos.items()))
