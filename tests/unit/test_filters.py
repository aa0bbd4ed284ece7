"""What each filter of a mix takes and what it leaves: words, quality rules, languages, benchmarks, near rows."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import SHARED

from litft.config.filters import BenchmarksConfig, FiltersConfig, NearConfig, PatternsConfig
from litft.data.filters import build_filters, languages
from litft.data.filters.benchmark_files import iter_texts
from litft.data.filters.benchmarks import RunIndex
from litft.data.filters.near import SURENESS, bands_of, find_near, overlap_of, runs_in
from litft.data.filters.quality import FEWEST_WORDS, RULES
from litft.data.filters.row import Row
from litft.data.filters.words import runs_of, words_of
from litft.data.texts import RowText
from litft.errors import ConfigError, DataError
from litft.text.frames import Said

LONG = " ".join(f"word{number}" for number in range(FEWEST_WORDS))


class SaidRow(Row):
    """A row of which only the texts are known."""

    def __init__(self, *turns: str) -> None:
        said = tuple(Said(bool(number % 2), text) for number, text in enumerate(turns))
        self.__dict__["text"] = RowText(said)


def test_words() -> None:
    assert words_of("Don't, TWO\u2014\uff34wo\u202f2!") == ["don", "t", "two", "two", "2"]
    assert words_of("漢字 かな abc") == ["漢", "字", "か", "な", "abc"]
    assert list(runs_of(["a", "b", "c"], 2)) == ["a b", "b c"] and list(runs_of(["a"], 2)) == []


@pytest.mark.parametrize(
    ("rule", "question", "answer"),
    [
        ("echo", "Mend this:\n\nHe went to the big store.", "He went to the\nbig store."),
        ("empty", "Why?", "..."),
        ("empty", "Why?", "<nooutput>"),
        ("empty", "Why?", "N/A"),
        ("few_letters", "Sums", "1 + 1 = 2 word\n" * 10),
        ("refusal", "Draw a cat.", "Well. As an AI language model, that is hard."),
        ("refusal", "Draw a cat.", "I'm just an AI and cannot draw."),
        ("refusal", "Draw a cat.", "I\u2019m sorry, but I can\u2019t help with that."),
        ("repeated_lines", "Sing.", f"{LONG}\nla\nla\nla"),
        ("repeated_words", "Sing.", "many more songs " * 5 + LONG.replace("word", "")),
        ("unfinished", "Count.", "Take one, then two, and"),
        ("unfinished", "Code.", "```python\nprint()"),
    ],
)
def test_what_quality_rules_take(rule: str, question: str, answer: str) -> None:
    assert RULES[rule](question, answer)


@pytest.mark.parametrize(
    ("rule", "question", "answer"),
    [
        ("echo", "Red, or blue?", "blue?"),
        ("echo", "Mend this: finally sara went to the market", "Finally, Sara went to the market."),
        ("empty", "What is 40 + 2?", "42"),
        ("empty", "Is it so?", "No."),
        ("few_letters", "Sums", "1 + 1 = 2"),
        ("few_letters", "Code", "```\n" + "1 + 1 = 2\n" * 30 + "```\nThere."),
        ("refusal", "Who are you?", "I am a language model called Tiny."),
        ("refusal", "Write an excuse.", "I'm sorry, but I'm unable to come to work."),
        ("refusal", "Is it art?", "I cannot say that it is not."),
        ("repeated_lines", "Sing.", "la\nla\nla"),
        ("repeated_lines", "Sing.", LONG.replace(" ", "\n")),
        ("repeated_words", "Sing.", "la la la"),
        ("repeated_words", "Tell.", LONG),
        ("unfinished", "Another word for on top of?", "In addition to"),
        ("unfinished", "Code.", "```python\nprint()\n```"),
        ("unfinished", "A list", "- one\n- two"),
    ],
)
def test_what_quality_rules_leave(rule: str, question: str, answer: str) -> None:
    assert RULES[rule](question, answer) is None


def test_every_answer_of_a_row_is_judged() -> None:
    [judging] = build_filters(FiltersConfig(quality=("refusal",)))
    assert judging.name == "quality.refusal"
    row = SaidRow("Hi", "Hello.", "Draw", "As an AI, I do not.")
    assert judging.judge(row) == 'it says "As an AI"'
    assert judging.judge(SaidRow("As an AI?", "Yes.")) is None


@pytest.mark.parametrize(
    ("answer", "leaves"),
    [
        ("Das ist ein sehr schönes neues Auto, und es gehört mir.", "de"),
        ("This is a very nice new car, and it belongs to me.", None),
        ("Positive", None),  # eight letters, which the model takes for Uzbek
        ("Das ist ein Haus.", None),  # the model is sure, but of fewer letters it is so too often
        ("Urbanización, Ferrocarril, Fábricas, Inglaterra", None),  # taken for Extremaduran, by a third
        ("```\nfür immer und ewig ist das ein deutscher Satz im Code\n```\nThis is it.", None),
        ("D4 E5 F6 G7 " * 10, None),
    ],
)
def test_languages_of_answers(answer: str, leaves: str | None) -> None:
    [judging] = build_filters(FiltersConfig(languages=("en", "fr")))
    found = judging.judge(SaidRow("Qu'est-ce que c'est?", answer))
    assert (found or "").partition(" ")[0] == (leaves or "")
    assert sum(judging.notes.values()) == (leaves is None and not answer.startswith("This"))


def test_real_answers_in_many_languages() -> None:
    path = SHARED / "guanaco" / "train.jsonl"
    if not path.is_file():
        pytest.skip("the shared data is not there")
    said = [json.loads(line)["text"].partition("[/INST]")[2] for line in path.read_text(encoding="utf-8").splitlines()]
    [judging] = build_filters(FiltersConfig(languages=("en",)))
    left = [text for text in said if judging.judge(SaidRow("", text)) is None]
    assert 90 < len(left) < 140 and not any("\u0430" <= letter <= "\u044f" for text in left for letter in text[:40])


@pytest.mark.parametrize(
    ("name", "meant"), [("english", "en"), ("EN", "en"), ("pt-BR", "pt"), ("German", "de"), ("eng", "en"), ("??", None)]
)
def test_a_language_that_is_not_told(name: str, meant: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        build_filters(FiltersConfig(languages=(name,)))
    said = str(caught.value)
    assert said.startswith(f'filters.languages names "{name}", which is none of the ') and len(said) < 200
    assert said.endswith("zh." if meant is None else f'Did you mean "{meant}"?')


@pytest.mark.parametrize(
    ("library", "asked"),
    [("py3langid.langid", FiltersConfig(languages=("en",))), ("datasketch", NearConfig(threshold=0.8))],
)
def test_a_library_that_is_not_there(library: str, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    languages._identifier.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'litft\[mix\]' brings it"):
        find_near(asked, [], 0, []) if isinstance(asked, NearConfig) else build_filters(asked)


def test_patterns() -> None:
    config = FiltersConfig(match=PatternsConfig(whole=r"\d"), leave_out=PatternsConfig(question="(?i)cat", answer="^x"))
    match, question, answer = build_filters(config)
    assert [each.name for each in (match, question, answer)] == [
        "match.whole",
        "leave_out.question",
        "leave_out.answer",
    ]
    assert match.judge(SaidRow("none", "here")) == "no match" and match.judge(SaidRow("1", "here")) is None
    assert question.judge(SaidRow("A CAT", "b")) == 'matches "CAT"' and question.judge(SaidRow("a", "cat")) is None
    assert answer.judge(SaidRow("xa", "ax")) is None and answer.judge(SaidRow("a", "xa"))


THIRTEEN = "the quick brown fox jumps over the lazy dog and then it sleeps"


def test_runs_of_words_of_a_benchmark() -> None:
    index = RunIndex(13)
    index.add(f"Once {THIRTEEN} again", "b.txt, line 1")
    index.add("one two three four five six seven eight", "b.txt, line 2")
    index.add("too short to tell anything by it", "b.txt, line 3")
    assert index.find(f"So, {THIRTEEN.upper()}!") == (THIRTEEN, "b.txt, line 1")
    assert index.find(THIRTEEN.replace("lazy", "old")) is None
    assert index.find("zero one two three four five six seven eight nine") is not None
    assert index.find("too short to tell anything by it") is None and index.left_aside == 1


def test_texts_of_benchmark_files(tmp_path: Path) -> None:
    files = {
        "a.jsonl": '{"q": "one", "more": {"choices": ["two", 3, null]}}\n\n{"q": "four"}\n',
        "b.json": '[\n{"q": "one"},\n{"choices": ["two"]}]',
        "c.json": '{"name": "task",\n"examples": [{"input": "one"},\n{"input": "two"}]}',
        "d.csv": 'question,answer\n"one\nmore",two\n',
        "e.txt": "one\nmore\n\n\ntwo\n",
    }
    found = {}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found[name] = [(int(place), text) for place, text in iter_texts(tmp_path / name)]
    assert found["a.jsonl"] == [(1, "one"), (1, "two"), (3, "four")]
    assert found["b.json"] == [(2, "one"), (3, "two")]
    assert found["c.json"] == [(1, "task"), (2, "one"), (3, "two")]
    assert found["d.csv"] == [(1, "question"), (1, "answer"), (2, "one\nmore"), (2, "two")]
    assert found["e.txt"] == [(1, "one\nmore\n"), (5, "two\n")]


@pytest.mark.parametrize("text", ["", '{}\n{"id": 4}\n', '{"q": "seven words are too few for it"}\n'])
def test_a_benchmark_with_nothing_to_look_for_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "full.txt").write_text(THIRTEEN, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(text, encoding="utf-8")
    files = (str(tmp_path / "full.txt"), str(tmp_path / "b.jsonl"))
    with pytest.raises(DataError, match=r"b\.jsonl holds no text of 8 words or more to look for"):
        build_filters(FiltersConfig(benchmarks=BenchmarksConfig(files=files)))
    with pytest.raises(DataError, match=r"b\.jsonl holds no text of \d words") if len(text) < 20 else nullcontext():
        build_filters(FiltersConfig(benchmarks=BenchmarksConfig(files=files, words=7)))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.parquet", "x", "ends in none of .jsonl, .json, .csv, .txt"),
        ("a.jsonl", '{"q": ', "line 1 is not valid JSON"),
        ("a.csv", f'"{"long " * 30_000}"', "line 1 is no CSV that can be read"),
        ("b.txt", None, "There is no benchmark file"),
    ],
)
def test_benchmark_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(iter_texts(tmp_path / name))
    assert words in str(caught.value)


def test_how_near_texts_are() -> None:
    one, other = runs_in("a b c d", 2), runs_in("A, b c e", 2)
    assert overlap_of(one, other) == 0.5 and overlap_of(one, one) == 1.0
    assert len(runs_in("a b", 5)) == 1 and len(runs_in("...", 5)) == 0
    assert overlap_of(runs_in("", 5), runs_in("", 5)) == 0.0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold: float) -> None:
    bands, size = bands_of(threshold, 128)
    assert bands >= 2 and bands * size <= 128 and 1 - (1 - threshold**size) ** bands >= SURENESS


def test_of_near_texts_the_first_in_order_stays() -> None:
    texts = [runs_in(text, 1) for text in ("a b c d", "a b c d e", "x y z", "a b c", "x y z w", "")]
    found = find_near(NearConfig(threshold=0.6), texts, 0, [4, 3, 2, 1, 0, 5])
    assert {place: near.place for place, near in found.items()} == {2: 4, 0: 3, 1: 3}
    assert find_near(NearConfig(threshold=0.6), texts, 2, [3, 2, 4, 5]).keys() == {3, 4}  # the first two stay both


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8).map(" ".join), max_size=20),
    st.sampled_from([0.5, 0.7, 1.0]),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_what_is_near_leaves_and_what_is_not_stays(words: list[str], threshold: float, first: int, chance: Any) -> None:
    texts = [runs_in(text, 1) for text in words]
    first = min(first, len(texts))
    order = list(range(first, len(texts)))
    chance.shuffle(order)
    found = find_near(NearConfig(threshold=threshold), texts, first, order)
    stays = [*range(first), *(place for place in order if place not in found)]
    assert not found.keys() & set(range(first))
    for place, near in found.items():
        assert near.place in stays and near.overlap == overlap_of(texts[place], texts[near.place]) >= threshold
        assert near.place < first or order.index(near.place) < order.index(place)
    for place in stays:
        for other in stays:
            both_may_go = place != other and max(place, other) >= first
            assert not both_may_go or not (len(texts[place]) and np.array_equal(texts[place], texts[other]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "filters.min_tokens is 9, above filters.max_tokens 8"),
        ({"quality": ("refusals",)}, 'Did you mean "refusal"?'),
        ({"keep": 0.0}, "filters.keep is 0.0; it must be above 0"),
        ({"leave_out": {"answer": "("}}, 'filters.leave_out.answer is "(", which is no regular expression'),
        ({"near": {"threshold": 1.5}}, "filters.near.threshold is 1.5"),
        ({"near": {"words": 0}}, "filters.near.words is 0; it must be at least 1"),
        ({"benchmarks": {"words": 0}}, "filters.benchmarks.words is 0"),
    ],
)
def test_wrong_settings(options: dict[str, Any], words: str) -> None:
    kinds = {"leave_out": PatternsConfig, "near": NearConfig, "benchmarks": BenchmarksConfig}
    with pytest.raises(ConfigError) as caught:
        FiltersConfig(**{name: kinds[name](**value) if name in kinds else value for name, value in options.items()})
    assert words in str(caught.value)
