"""Every dataset through the whole command: from the fixture of its schema, and from published rows where they are."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_text import SHARED, write_checkpoint

from litft.cli import main
from litft.config.io import load_yaml
from litft.data.sources import SOURCES
from litft.data.store import PreparedData
from litft.text.encoding import stop_ids
from litft.text.styles import STYLES
from litft.text.tokenizer import Tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"

# Of each fixture, the rows as they are learned in the style `plain`: what carries loss stands between ⟦ and ⟧, and `$`
# is the end token.
EXPECTED: dict[str, list[str]] = {
    "alpaca/alpaca_data.json": [
        "Name a bird.⟦The wren.$⟧",
        "Say it in German.\nGood day, Zoë!⟦Guten Tag, Zoë!$⟧",
        "Count to two.⟦1\n2$⟧",
    ],
    "alpaca_2k/alpaca_2000.jsonl": [
        "Name a river.⟦The Aare.$⟧",
        "Make it shorter.\nIt is very, very cold.⟦It is icy.$⟧",
    ],
    "alpaca_gpt4/alpaca_gpt4_data.json": ["Which is heavier?\na feather, a brick⟦The brick.$⟧", "Rhyme on cat.⟦Hat.$⟧"],
    "csv/rows.csv": ["Name a tree.⟦An oak.$⟧", 'Say it, please.\n"Yes"⟦“Yes”, he said,\nand left.$⟧'],
    "dolly/databricks-dolly-15k.jsonl": [
        "Who built the boat?\nAda built a boat in May.⟦Ada.$⟧",
        "Name a fish.⟦A pike.$⟧",
    ],
    "flan/riddles_train.tsv": [
        "What has keys?\nA or B⟦A piano has keys.\nSo it is A.\nTherefore, the answer is A.$⟧",
        "How many legs has a spider?⟦All spiders have eight.\nTherefore, the answer is 8.$⟧",
    ],
    "flan/task.jsonl": ["Is ice cold?⟦yes$⟧", "Is fire cold?⟦no$⟧"],
    "guanaco/llama2_form.jsonl": [
        "What is salt?⟦A mineral.$⟧And sand?⟦Small stones.$⟧",
        "Be brief.\n\nHello⟦Hi.$⟧",
    ],
    "guanaco/openassistant_best_replies_train.jsonl": [
        "What is tea?⟦Leaves in water.$⟧And coffee?⟦Beans in water.$⟧",
        "Hello⟦Hi!$⟧",
    ],
    "json/chats.jsonl": ["Where is Bern?⟦On the Aare.$⟧", "Is it large?⟦No.$⟧"],
    "json/pairs.json": ["Two and two?⟦Four.$⟧", "Three and one?⟦Four too.$⟧"],
    "lima/train.jsonl": [
        "How do I boil an egg?⟦Nine minutes in boiling water.$⟧",
        "What is rye?⟦A grain.$⟧And malt?⟦Sprouted grain.$⟧",
    ],
    "longform/longform.jsonl": [
        "Write about the sea.⟦The sea is wide.\n\nIt is also deep.$⟧",
        "Write about rain.⟦It falls.$⟧",
    ],
    "magpie/conversations.jsonl": ["Hi⟦Hello.$⟧Bye⟦Farewell.$⟧", "Name a metal.⟦Tin.$⟧"],
    "magpie/responses.json": ["Name a colour.⟦Red.$⟧", "Name a shape.⟦A cube.$⟧"],
    "messages/chats.jsonl": ["Be kind.\n\nHelp me.⟦Gladly.$⟧", "Why?Because.$Really?⟦Yes.$⟧", "Up?⟦Down.$⟧"],
    "natural_instructions/task001_plural.json": [
        "Say the plural of the word.\nfox⟦foxes$⟧",
        "Say the plural of the word.\noctopus⟦octopuses$⟧",
    ],
    "oasst1/messages.jsonl": ["What is a yak?⟦A large ox.$⟧Where?⟦In Tibet.$⟧"],
    "oasst1/trees.jsonl": ["What is a yak?⟦A large ox.$⟧Where?⟦In Tibet.$⟧", "Sing.⟦La la.$⟧"],
    "p3/part.jsonl": ["Is grass green?\n⟦yes$⟧", "Is snow green?\n⟦no$⟧"],
    "p3/prompts.jsonl": ["Opposite of hot?⟦cold$⟧", "Opposite of up?⟦down$⟧"],
    "self_instruct/generated_tasks.jsonl": ["Spell it backwards.\nstar⟦rats$⟧"],
    "self_instruct/seed_tasks.jsonl": [
        "Say the opposite.\nwet⟦dry$⟧",
        "Say the opposite.⟦Of what?$⟧",
        "Name a colour.⟦Green.$⟧",
    ],
    "sharegpt/sharegpt.json": ["One?⟦One.$⟧Two?⟦Two.$⟧", "Be brief.\n\nThree?⟦Three.$⟧"],
    "text/documents.jsonl": ["⟦It snowed.$⟧", "⟦keep this ⟧drop⟦$⟧"],
    "text/documents.txt": ["⟦It rained.\nIt stopped.$⟧", "⟦The sun came out.$⟧"],
    "tokenized/hugging_face.jsonl": ["h⟦i$⟧", "a⟦bc$⟧"],
    "tokenized/shifted.jsonl": ["⟦hi$^ab⟧"],
}

# Rows of a fixture that are left out, each with a reason: a deleted message, a row that its own file refuses.
LEFT_OUT = {"oasst1/messages.jsonl": 1, "self_instruct/generated_tasks.jsonl": 1}

# Published rows at hand: dataset, file or folder, rows that are read, and those of them that their file refuses.
PUBLISHED: list[tuple[str, str, int, int]] = [
    ("alpaca", "alpaca/alpaca_data.json", 2_597, 0),
    ("alpaca_2k", "alpaca_gpt4/alpaca_gpt4_data.json", 800, 0),
    ("alpaca_gpt4", "alpaca_gpt4/alpaca_gpt4_data.json", 800, 0),
    ("csv", "csv/alpaca_300.csv", 300, 0),
    ("dolly", "dolly/databricks-dolly-15k.jsonl", 1_000, 0),
    ("flan", "flan/ecqa_train.tsv", 300, 0),
    ("flan", "flan/gsm8k_train.tsv", 300, 0),
    ("flan", "flan/strategyqa_train.tsv", 300, 0),
    ("guanaco", "guanaco/train.jsonl", 300, 0),
    ("json", "lima/train.jsonl", 515, 0),
    ("lima", "lima/train.jsonl", 515, 0),
    ("magpie", "magpie/example_instructions_5res.json", 5, 0),
    ("messages", "p3/p3_sample.jsonl", 480, 0),
    ("natural_instructions", "natural_instructions/tasks", 769, 0),
    ("oasst1", "oasst1/messages.jsonl", 86, 12),
    ("oasst1", "oasst1/trees.jsonl", 60, 0),
    ("p3", "p3/p3_sample.jsonl", 480, 0),
    ("self_instruct", "self_instruct/generated_tasks.jsonl", 400, 223),
    ("self_instruct", "self_instruct/seed_tasks.jsonl", 175, 0),
    ("sharegpt", "sharegpt/dummy_conversation.json", 250, 0),
    ("sharegpt", "sharegpt/sharegpt.json", 3, 0),
    ("text", "guanaco/train.jsonl", 300, 0),
]


def run(dataset: str, checkpoint: Path, file: Path, destination: Path, *flags: str) -> tuple[dict[str, Any], list[Any]]:
    """Prepares a file as a user does; gives the ledger, and ids and losses of the rows."""
    words = ["prepare", dataset, "--checkpoint_dir", str(checkpoint), "--data_file", str(file)]
    words += ["--destination_path", str(destination), *flags]
    assert main(words) == 0
    manifest = load_yaml(destination / "manifest.yaml")
    rows = []
    for name in manifest["files"]:
        data = PreparedData.load(destination / name)
        rows += [tuple(part.tolist() for part in data.row(index)) for index in range(len(data))]
    return manifest["sources"][dataset], rows


def shown(tokenizer: Tokenizer, ids: list[int], mask: list[bool]) -> str:
    """Gives a row as `EXPECTED` has it; BOS within a row is `^`."""
    text = ""
    for is_target, run in itertools.groupby(zip(mask, ids, strict=True), key=lambda pair: pair[0]):
        marks = {tokenizer.bos_id: "^", tokenizer.eos_id: "$"}
        parts = itertools.groupby((number for _, number in run), key=lambda number: marks.get(number, ""))
        said = "".join(mark or tokenizer.decode(list(part)) for mark, part in parts)
        text += f"⟦{said}⟧" if is_target else said
    return text.removeprefix("^")


def test_every_dataset_has_a_fixture_and_each_fixture_is_here() -> None:
    found = {f"{path.parent.name}/{path.name}" for path in FIXTURES.glob("*/*")}
    assert found == EXPECTED.keys() and {path.name for path in FIXTURES.iterdir()} == SOURCES.keys()
    # Nobody has published rows at hand for these two: their fixtures stand for them.
    assert {dataset for dataset, *_ in PUBLISHED} == SOURCES.keys() - {"longform", "tokenized"}


@pytest.mark.parametrize("fixture", EXPECTED)
def test_fixtures(tmp_path: Path, fixture: str) -> None:
    dataset, checkpoint = fixture.partition("/")[0], write_checkpoint(tmp_path / "tiny")
    flags = ("--prompt_style", "plain", "--test_split_fraction", "0", "--max_rejected_fraction", "0")
    ledger, rows = run(dataset, checkpoint, FIXTURES / fixture, tmp_path / "out", *flags)
    tokenizer = Tokenizer(checkpoint)
    assert [shown(tokenizer, *row) for row in rows] == EXPECTED[fixture]
    left_out = LEFT_OUT.get(fixture, 0)
    assert (ledger["rows_read"], ledger["rows_rejected"]) == (len(rows) + left_out, left_out)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a folder with the Llama 2 tokenizer, and the description of a model of its size."""
    published = SHARED / "tokenizers" / "llama2"
    if not published.is_dir():
        pytest.skip("shared data is absent")
    folder = write_checkpoint(tmp_path_factory.mktemp("llama") / "c", block_size=4096)
    described = (folder / "model_config.yaml").read_text(encoding="utf-8")
    (folder / "model_config.yaml").write_text(described.replace(": 320", ": 32000"), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(published / name, folder / name)
    return folder


@pytest.mark.parametrize(("dataset", "file", "read", "refused"), PUBLISHED)
def test_published_rows(tmp_path: Path, llama: Path, dataset: str, file: str, read: int, refused: int) -> None:
    path = SHARED / file
    if file == "alpaca/alpaca_data.json":  # 52,000 rows take their time
        path = tmp_path / path.name
        path.write_text(json.dumps(json.loads((SHARED / file).read_text(encoding="utf-8"))[::20]), encoding="utf-8")
    ledger, rows = run(dataset, llama, path, tmp_path / "out", "--prompt_style", "alpaca")
    tokenizer = Tokenizer(llama)
    assert (ledger["rows_read"], ledger["rows_rejected"]) == (read, refused)
    lost = ledger["rows_rejected"] + ledger["rows_duplicate"] + ledger["rows_dropped"]
    assert len(rows) == read - lost == ledger["rows_kept_train"] + ledger["rows_kept_test"]
    assert ledger["rows_dropped"] <= 0.01 * read and ledger["rows_duplicate"] <= 0.05 * read
    assert ledger["bos_per_row"] == {1: len(rows)} and ledger["stop_token_fraction"] == 1.0
    ends = set(stop_ids(tokenizer, STYLES["alpaca"]))
    for ids, mask in rows:
        assert ids[0] == tokenizer.bos_id and ids.count(tokenizer.bos_id) == 1 and len(ids) == len(mask) <= 2048
        assert ids[-1] in ends and mask[-1] and not mask[0]
