"""The demo's data: the code reproduces what ships, held-out rows are new, and the base text is no instruction."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from litft.config.io import load_yaml
from litft.demo.build import hf_config, train_tokenizer, write_model_folder, write_rows
from litft.demo.corpus import iter_documents, prose_sentences
from litft.demo.draw import FACT_KINDS, KINDS
from litft.demo.tasks import HELD_OUT_PER_KIND, INSTRUCTIONS, build_rows, kind_of, load_rows
from litft.demo.words import load_facts
from litft.families import model_config_from_hf
from litft.text.tokenizer import Tokenizer

DEMO = Path(__file__).parents[2] / "litft" / "demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model's folder without weights."""
    directory = tmp_path_factory.mktemp("demo") / "base"
    write_model_folder(directory)
    return directory


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """The first documents of the base text."""
    return list(iter_documents(seed=1, n_documents=2000))


def test_code_reproduces_shipped_rows(tmp_path: Path) -> None:
    write_rows(tmp_path)
    for name in ("train.json", "held_out.json"):
        assert (tmp_path / name).read_bytes() == (DEMO / "data" / name).read_bytes()
    assert sum(path.stat().st_size for path in (DEMO / "data").iterdir()) < 500_000


def test_rows_are_alpaca_rows_of_every_kind() -> None:
    train, held_out = load_rows("train"), load_rows("held_out")
    for row in train + held_out:
        assert list(row) == ["instruction", "input", "output"]
        assert all(value and value == value.strip() for value in row.values())
    for kind in KINDS:
        assert sum(kind_of(row) == kind for row in held_out) == HELD_OUT_PER_KIND
        assert sum(kind_of(row) == kind for row in train) >= 50


def test_held_out_rows_ask_for_nothing_that_training_rows_ask_for() -> None:
    train, held_out = build_rows()
    asked = {row["input"] for row in train}
    assert {(row["instruction"], row["input"]) for row in train}.isdisjoint(
        (row["instruction"], row["input"]) for row in held_out
    )
    assert asked.isdisjoint(row["input"] for row in held_out)
    opposites = {row["output"] for row in held_out if kind_of(row) == "opposites"}
    assert asked.isdisjoint(opposites), "the opposite asked the other way round gives the answer away"
    turned = {" + ".join(reversed(row["input"].split(" + "))) for row in held_out if kind_of(row) == "sums"}
    assert asked.isdisjoint(turned)


def test_no_row_stands_twice() -> None:
    for name in ("train", "held_out"):
        rows = [(row["instruction"], row["input"]) for row in load_rows(name)]
        assert len(set(rows)) == len(rows)


def test_another_seed_holds_out_other_rows() -> None:
    first, second = (build_rows(seed)[1] for seed in (1, 2))
    assert first != second
    assert first == build_rows(1)[1]


def test_answers_are_right() -> None:
    for row in load_rows("train") + load_rows("held_out"):
        given, answer, kind = row["input"], row["output"], kind_of(row)
        items = given.split(", ")
        if kind == "sums":
            assert int(answer) == sum(map(int, given.split(" + ")))
        elif kind == "order":
            assert answer == ", ".join(sorted(items, key=int))
        elif kind in ("first", "last"):
            assert answer == items[0 if kind == "first" else -1]
        elif kind == "reverse":
            assert answer == ", ".join(reversed(items))


def test_word_lists_give_one_answer_to_each_question() -> None:
    facts = load_facts()
    for kind in FACT_KINDS:
        asked = [one for one, _ in getattr(facts, kind)]
        if kind == "opposites":
            asked += [other for _, other in facts.opposites]
        assert len(set(asked)) == len(asked), kind


def test_base_text_is_the_same_each_time_and_holds_no_instruction(documents: list[str]) -> None:
    assert documents[:20] == list(islice(iter_documents(seed=1), 20))
    text = "\n".join(documents)
    wordings = [wording for some in INSTRUCTIONS.values() for wording in some]
    for phrase in (*wordings, "### Instruction", "### Input", "### Response", "describes a task", "Below is"):
        assert phrase not in text


def test_base_text_tells_every_fact(documents: list[str]) -> None:
    text = "\n".join(documents)
    for kind in FACT_KINDS:
        for one, other in getattr(load_facts(), kind):
            assert one in text and other in text


def test_base_text_uses_every_token_of_the_prompts(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    known = {token for ids in tokenizer.encode_batch(prose_sentences()) for token in ids}
    known |= {token for ids in tokenizer.encode_batch(list(iter_documents(seed=1, n_documents=2000))) for token in ids}
    frame = "Below is an instruction that describes a task, paired with an input that provides further context. "
    frame += "Write a response that appropriately completes the request.\n\n### Instruction:\n### Input:\n### Response:"
    texts = [frame, *(text for row in load_rows("train") + load_rows("held_out") for text in row.values())]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert known.issuperset(ids), text


@pytest.mark.parametrize(
    "text", ["hot", " hot", "\nhot", "\n hot", "a  b", "é 日本\n", "### A\n\n\nb\n", "\n", "3 + 4\n\n7, <0x41>"]
)
def test_tokenizer_gives_texts_back(folder: Path, text: str) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_word_is_one_token_wherever_it_stands(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    alone, in_line, after_line = tokenizer.encode_batch(["cold", "is cold", "it\n\ncold"])
    assert len(alone) == 1
    assert alone[-1] == in_line[-1] == after_line[-1]


def test_folder_describes_a_small_llama(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = model_config_from_hf(values, "litft-demo")
    tokenizer = Tokenizer(folder)
    assert (config.family, config.tie_embeddings, config.vocab_size) == ("llama", True, tokenizer.vocab_size)
    assert tokenizer.adds_bos and (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.stop_ids == {2}
    assert values == hf_config(train_tokenizer().get_vocab_size())


def test_folder_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    write_model_folder(tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_recipes_are_yaml_with_the_sections_of_a_run() -> None:
    base, lora = (load_yaml(DEMO / f"{name}.yaml") for name in ("base", "lora"))
    assert set(base) == {"precision", "train", "optim"}
    assert set(lora) == {"precision", "train", "optim", "lora"}
