"""Whole preparations: the ledger, the split, lengths, what is refused, and what is on disk after a fault."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_text import BOS, EOS, SHARED, byte_tokenizer, write_checkpoint

from litft.checkpoint.disk import sha256_file
from litft.config.io import load_yaml
from litft.config.prepare import PrepareConfig, PrepareCsvConfig
from litft.data import publish as publish_module
from litft.data.kept import split_rows
from litft.data.ledger import Ledger, Rejections
from litft.data.prepare import prepare
from litft.data.reading.rows import Rejected
from litft.data.sources import SOURCES
from litft.data.store import PreparedData
from litft.errors import CheckpointError, ConfigError, DataError, LitftError, TokenizerError
from litft.text.conversation import dialogue
from litft.text.encoding import encode_prompt
from litft.text.prompts import PromptStyle
from litft.text.style_files import save_prompt_style
from litft.text.styles import ALPACA, PLAIN
from litft.text.tokenizer import Tokenizer

LEDGER_KEYS = [
    "rows_read",
    "rows_rejected",
    "rows_duplicate",
    "rows_dropped",
    "rows_kept_train",
    "rows_kept_test",
    "rows_split",
    "rows_added",
    "rows_cut",
    "rows_cut_prompt",
    "turns_lost",
    "prompt_tokens",
    "template_tokens",
    "target_tokens",
    "stop_token_fraction",
    "prompts_not_served",
]
MORE_KEYS = [
    "bos_per_row",
    "answers_found_by",
    "target_tokens_per_turn",
    "lengths",
    "notes",
    "rejected_reasons",
    "rejected",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"instruction": question, "output": answer}) for question, answer in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def numbered(count: int) -> list[tuple[str, str]]:
    return [(f"question {index}", f"answer {index}") for index in range(count)]


def run(folder: Path, rows: list[tuple[str, str]] | Path, **options: Any) -> tuple[dict[str, Any], list[str], Path]:
    """Prepares rows of Alpaca's form; gives the ledger as the manifest has it, the messages and the folder."""
    path = rows if isinstance(rows, Path) else write_rows(folder.parent / "rows.jsonl", rows)
    destination = folder.parent / "prepared"
    given = {"checkpoint_dir": folder, "data_file": path, "destination_path": destination, "prompt_style": "plain"}
    messages: list[str] = []
    prepare("alpaca", PrepareConfig(**{**given, **options}), messages.append)
    return load_yaml(destination / "manifest.yaml")["sources"]["alpaca"], messages, destination


def texts(folder: Path, path: Path) -> list[str]:
    tokenizer, data = Tokenizer(folder), PreparedData.load(path)
    return [tokenizer.decode(data.row(index)[0].tolist()) for index in range(len(data))]


def test_ledger_accounts_for_every_row(folder: Path) -> None:
    rows = [*numbered(20), ("question 3", "answer 3"), ("q", ""), ("long", "x" * 100)]
    ledger, messages, destination = run(folder, rows, max_seq_length=40, max_rejected_fraction=0.1)
    assert list(ledger)[-23:] == [*LEDGER_KEYS, *MORE_KEYS]
    assert {key: ledger[key] for key in LEDGER_KEYS[:9]} == {
        "rows_read": 23,
        "rows_rejected": 1,
        "rows_duplicate": 1,
        "rows_dropped": 1,
        "rows_kept_train": 18,
        "rows_kept_test": 2,
        "rows_split": 0,
        "rows_added": 0,
        "rows_cut": 0,
    }
    assert ledger["rejected"] == [{"line": 22, "reason": '"output" is empty'}]
    assert ledger["rejected_reasons"] == {'"output" is empty': 1}
    data = [PreparedData.load(destination / name) for name in ("train.pt", "test.pt")]
    assert [len(part) for part in data] == [18, 2]
    assert ledger["target_tokens"] == sum(int(part.target_mask.sum()) for part in data)
    assert ledger["prompt_tokens"] + ledger["target_tokens"] == sum(len(part.input_ids) for part in data)
    assert ledger["stop_token_fraction"] == 1.0
    table = next(message for message in messages if "rows read" in message).splitlines()
    assert table[1].strip() == "23 rows read: 18 to train, 2 held out, 1 not used, 1 equal to another, 1 too long"
    assert not any("rows split" in line or "rows cut" in line for line in table)  # they are 0
    assert re.fullmatch(r"  lengths +shortest \d+, median \d+, longest \d+ tokens", table[-2])
    assert 'rejected line 22: "output" is empty' in messages
    assert not any(message.startswith("WARNING") for message in messages)


def test_the_first_row_is_shown_with_its_line_ends(folder: Path) -> None:
    _, messages, _ = run(folder, [("one\ntwo\x1b", "a" + "b" * 485 + "c")] * 2, test_split_fraction=0.0)
    shown = next(message for message in messages if message.startswith("first row"))
    assert "\n    | one\n    | two\\x1b\n" in shown
    assert "    | abb" in shown and "bb [... 7 characters ...] bb" in shown and shown.endswith("bbc")


def test_rows_are_the_styles_ids_with_masks(folder: Path) -> None:
    _, _, destination = run(folder, [("say é", "hi"), ("b", "c")], prompt_style="alpaca", test_split_fraction=0.0)
    tokenizer, data = Tokenizer(folder), PreparedData.load(destination / "train.pt")
    ids, mask = (part.tolist() for part in data.row(0))
    prompt = encode_prompt(tokenizer, ALPACA, dialogue("say é"))
    assert ids == [*prompt, *tokenizer.encode_batch(["hi"])[0], EOS]
    assert mask == [False] * len(prompt) + [True] * 3
    assert ids[0] == BOS and ids.count(BOS) == 1


def test_train_on_all_learns_the_prompt_but_not_bos(folder: Path) -> None:
    ledger, _, destination = run(folder, numbered(3), train_on="all")
    data = PreparedData.load(destination / "train.pt")
    assert data.row(0)[1].tolist() == [False] + [True] * (len(data.row(0)[0]) - 1)
    assert ledger["prompt_tokens"] == 3


@pytest.mark.parametrize(
    ("rows", "fraction", "test_rows"),
    [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.1, 1), (10, 0.0, 0), (10, 0.25, 2), (50_000, 0.1, 2000)],
)
def test_size_of_the_held_out_part(rows: int, fraction: float, test_rows: int) -> None:
    train, test = split_rows(torch.arange(rows), fraction, seed=1)
    assert (len(train), len(test)) == (rows - test_rows, test_rows)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(rows))
    assert train.tolist() == sorted(train.tolist())


def test_seed_decides_the_split(folder: Path) -> None:
    held_out = []
    for seed in (1, 1, 2):
        _, _, destination = run(folder, numbered(40), seed=seed, test_split_fraction=0.25, overwrite=True)
        train, test = texts(folder, destination / "train.pt"), texts(folder, destination / "test.pt")
        assert not set(train) & set(test) and len(train) + len(test) == 40
        held_out.append(test)
    assert held_out[0] == held_out[1] != held_out[2]


def test_duplicates_never_stand_on_both_sides(folder: Path) -> None:
    ledger, _, destination = run(folder, numbered(10) * 5, test_split_fraction=0.5)
    assert (ledger["rows_duplicate"], ledger["rows_kept_train"], ledger["rows_kept_test"]) == (40, 5, 5)
    assert not set(texts(folder, destination / "train.pt")) & set(texts(folder, destination / "test.pt"))


def test_no_test_rows_no_test_file(folder: Path) -> None:
    _, messages, destination = run(folder, numbered(4))
    assert (destination / "test.pt").is_file() and "litft finetune lora" in messages[-1]
    _, messages, _ = run(folder, numbered(4), test_split_fraction=0.0, overwrite=True)
    assert "litft finetune lora" not in messages[-1] and "--test_split_fraction above 0" in messages[-1]
    assert sorted(path.name for path in destination.iterdir()) == ["manifest.yaml", "train.pt"]


def test_long_rows_are_dropped_with_a_warning(folder: Path) -> None:
    ledger, messages, destination = run(folder, [*numbered(4), ("q", "x" * 60)], max_seq_length=30)
    assert (ledger["rows_dropped"], ledger["rows_cut"]) == (1, 0)
    warning = next(message for message in messages if message.startswith("WARNING"))
    assert "1 of 5 rows (20%) are longer than 30 tokens" in warning
    assert "--too_long truncate_response" in warning and "--max_seq_length may go up to 512" in warning
    assert int(PreparedData.load(destination / "train.pt").lengths.max()) <= 30


def test_long_answers_are_cut_without_a_stop_token(folder: Path) -> None:
    rows = [("ok", "fine"), ("q", "x" * 60), ("p" * 60, "no room")]
    options = {"too_long": "truncate_response", "max_seq_length": 30, "test_split_fraction": 0.0}
    ledger, messages, destination = run(folder, rows, **options)
    assert (ledger["rows_cut"], ledger["rows_dropped"], ledger["rows_kept_train"]) == (1, 1, 2)
    assert ledger["stop_token_fraction"] == 0.5
    ids, mask = (part.tolist() for part in PreparedData.load(destination / "train.pt").row(1))
    assert len(ids) == 30 and EOS not in ids and mask == [False] * 2 + [True] * 28
    assert sum("WARNING" in message for message in messages) == 2


def test_rows_equal_after_a_cut_count_once(folder: Path) -> None:
    rows = [("q", "x" * 60), ("q", "x" * 70), ("other", "a")]
    ledger, _, _ = run(folder, rows, too_long="truncate_response", max_seq_length=30)
    assert (ledger["rows_duplicate"], ledger["rows_cut"]) == (1, 1)


def test_length_is_capped_at_the_context(tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small", block_size=24)
    ledger, messages, destination = run(small, [*numbered(3), ("q", "x" * 60)])
    assert "24 tokens are the model's context" in messages[0] and "max_seq_length" not in messages[0]
    assert ledger["rows_dropped"] == 1
    assert PreparedData.load(destination / "train.pt").meta["max_seq_length"] == 24
    assert not any("may go up" in message or "is more than" in message for message in messages)
    _, messages, _ = run(small, numbered(3), max_seq_length=40, overwrite=True)
    assert messages[1] == "max_seq_length 40 is more than the context of tiny; 24 tokens are used."


@pytest.mark.parametrize("train_on", ["completions", "all"])
@pytest.mark.parametrize("too_long", ["drop", "truncate_response"])
@pytest.mark.parametrize("max_seq_length", [24, 26, 40])
def test_no_row_without_targets_survives(folder: Path, train_on: str, too_long: str, max_seq_length: int) -> None:
    rows = [("p" * length, "answer " * 2) for length in range(1, 60)]
    _, _, destination = run(folder, rows, train_on=train_on, too_long=too_long, max_seq_length=max_seq_length)
    for name in ("train.pt", "test.pt"):
        data = PreparedData.load(destination / name)
        for index in range(len(data)):
            ids, mask = data.row(index)
            assert mask.any() and not mask[0] and len(ids) <= max_seq_length


def test_meta_and_manifest_say_how_it_was_made(folder: Path) -> None:
    path = write_rows(folder.parent / "mine.jsonl", numbered(10))
    run(folder, path, seed=7)
    destination = folder.parent / "prepared"
    tokenizer, manifest = Tokenizer(folder), load_yaml(destination / "manifest.yaml")
    meta = PreparedData.load(destination / "train.pt").meta
    assert meta["tokenizer"] == {"hash": tokenizer.hash, "class": "PreTrainedTokenizer", "vocab_size": 259}
    assert PromptStyle.from_dict(meta["prompt_style"]) == PLAIN
    assert (meta["dataset"], meta["source_names"], meta["checkpoint"]) == ("alpaca", ["alpaca"], "tiny")
    assert (meta["max_seq_length"], meta["seed"], meta["train_on"]) == (512, 7, "completions")
    assert {key: manifest[key] for key in meta} == meta and manifest["format"] == "litft-sft-1"
    source = manifest["sources"]["alpaca"]
    assert source["files"] == [{"file": "mine.jsonl", "sha256": sha256_file(path)}]
    for name, rows in (("train.pt", 9), ("test.pt", 1)):
        assert manifest["files"][name]["rows"] == rows
        assert manifest["files"][name]["sha256"] == sha256_file(destination / name)


def test_same_input_same_bytes(folder: Path) -> None:
    kept = []
    for _ in range(2):
        _, _, destination = run(folder, numbered(30), overwrite=True)
        kept.append({path.name: path.read_bytes() for path in destination.iterdir()})
    assert kept[0] == kept[1] and len(kept[0]) == 3


def test_style_beside_the_checkpoint_is_the_default(folder: Path) -> None:
    _, _, destination = run(folder, numbered(2), prompt_style=None)
    assert PreparedData.load(destination / "train.pt").meta["prompt_style"]["name"] == "alpaca"
    save_prompt_style(folder, PLAIN)
    run(folder, numbered(2), prompt_style=None, overwrite=True)
    assert PreparedData.load(destination / "train.pt").meta["prompt_style"]["name"] == "plain"


def test_default_destination_is_named_after_the_dataset(folder: Path) -> None:
    path = write_rows(folder.parent / "rows.jsonl", numbered(2))
    prepare("alpaca", PrepareConfig(checkpoint_dir=folder, data_file=path))
    assert len(PreparedData.load(Path("data/alpaca/train.pt"))) == 1


def test_csv_columns(folder: Path) -> None:
    (folder.parent / "a.csv").write_text("question,answer\na,b\nc,d\n", encoding="utf-8")
    config = PrepareCsvConfig(
        checkpoint_dir=folder,
        data_file=folder.parent / "a.csv",
        destination_path=folder.parent / "prepared",
        columns={"instruction": "question", "output": "answer"},
        prompt_style="plain",
        test_split_fraction=0.0,
    )
    prepare("csv", config)
    assert texts(folder, folder.parent / "prepared" / "train.pt") == ["ab", "cd"]


@pytest.mark.parametrize(
    ("rows", "options", "error", "words"),
    [
        ([], {}, DataError, "has no rows"),
        ([("q", ""), ("p", " ")], {"max_rejected_fraction": 1.0}, DataError,
         '2 of 2 rows'),
        ([*numbered(50), ("q", ""), ("", "a")], {}, DataError,
         'cannot be used (line 51: "output" is empty; line 52: "instruction" is empty); max_rejected_fraction is 0.01; '
         'mend them, or leave them out with --max_rejected_fraction 0.04.'),
        (numbered(3), {"max_seq_length": 5}, DataError,
         "3 of 3 rows are longer than 5 tokens (max_seq_length); --too_long truncate_response"),
        (numbered(3), {"prompt_style": "alpacca"}, ConfigError, 'Did you mean "alpaca"'),
        (numbered(3), {"checkpoint_dir": Path("nowhere/model")}, CheckpointError, "nowhere/model"),
        (numbered(3), {"data_file": Path("nowhere.jsonl")}, DataError, "no data_file nowhere.jsonl"),
    ],
)  # fmt: skip
def test_refusals_write_nothing(
    folder: Path, rows: list[tuple[str, str]], options: dict[str, Any], error: type[LitftError], words: str
) -> None:
    with pytest.raises(error) as caught:
        run(folder, rows, **options)
    assert words in str(caught.value)
    assert not (folder.parent / "prepared").exists()


def test_unknown_dataset_has_a_suggestion(folder: Path) -> None:
    with pytest.raises(DataError, match='Did you mean "lima"'):
        prepare("lma", PrepareConfig(checkpoint_dir=folder))


def test_a_folder_that_is_only_downloaded_will_do(folder: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    described = {"model_type": "llama", "vocab_size": 320, "max_position_embeddings": 64, **sizes}
    (folder / "model_config.yaml").unlink()
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    _, _, destination = run(folder, numbered(2))
    assert PreparedData.load(destination / "train.pt").meta["max_seq_length"] == 64


def test_a_folder_that_describes_no_model_is_refused(folder: Path) -> None:
    (folder / "model_config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: No such file or directory; is .* a model folder"):
        run(folder, numbered(2))


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    words = tuple(f"word{index}" for index in range(100))
    large = write_checkpoint(tmp_path / "large", tokenizer=byte_tokenizer(words))
    with pytest.raises(TokenizerError, match="tiny has 320 embedding rows"):
        run(large, numbered(2))


@pytest.mark.parametrize("present", ["manifest.yaml", "train.pt"])
def test_a_taken_destination_is_refused_unless_overwritten(folder: Path, present: str) -> None:
    destination = folder.parent / "prepared"
    destination.mkdir()
    (destination / present).write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"already holds prepared data .*--overwrite true"):
        run(folder, numbered(2))
    assert (destination / present).read_text(encoding="utf-8") == "mine"
    run(folder, numbered(2), overwrite=True)
    assert len(PreparedData.load(destination / "train.pt")) == 1


def test_destination_that_is_a_file(folder: Path) -> None:
    (folder.parent / "prepared").touch()
    with pytest.raises(DataError, match="is a file; name a folder"):
        run(folder, numbered(2))


def test_a_failed_write_leaves_the_old_set_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, destination = run(folder, numbered(8))
    before = {path.name: path.read_bytes() for path in destination.iterdir()}
    saves = iter([publish_module.save_prepared])

    def fail_at_the_second(path: Path, **parts: Any) -> None:
        for save in saves:
            return save(path, **parts)
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish_module, "save_prepared", fail_at_the_second)
    with pytest.raises(DataError, match="No space left on device"):
        run(folder, numbered(9), overwrite=True)
    assert {path.name: path.read_bytes() for path in destination.iterdir()} == before


def test_memory_does_not_grow_with_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are equal one is kept, so that five times as many of them need no more memory."""
    monkeypatch.setattr("litft.data.reading.lines.PIECE_BYTES", 2**14)  # each of these files is more
    monkeypatch.setattr("litft.data.encode.BATCH_ROWS", 100)
    peaks = []
    for count in (500, 500, 2500):
        path = write_rows(folder.parent / f"{count}.jsonl", [("the same question " * 6, "answer")] * count)
        tracemalloc.start()
        ledger, _, _ = run(folder, path, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ledger["rows_duplicate"] == count - 1
    assert peaks[2] < 1.1 * peaks[1]


def test_rejected_rows_are_counted_and_few_are_kept() -> None:
    rejected = Rejections()
    for line in range(100):
        rejected.add(Rejected(line, f"reason {line % 2}", is_fault=bool(line % 2)))
    assert (len(rejected), rejected.faults) == (100, 50) and rejected.left_out == {"reason 0": 50}
    assert [row.line for row in rejected.first] == list(range(20))
    assert [row.line for row in rejected.first_faults] == list(range(1, 40, 2))


def test_the_same_rows_are_held_out_in_any_order(folder: Path) -> None:
    rows, held_out = numbered(40), []
    for given in (rows, rows[::-1], rows[20:] + rows[:20]):
        _, _, destination = run(folder, given, test_split_fraction=0.25, overwrite=True)
        held_out.append(sorted(texts(folder, destination / "test.pt")))
    assert held_out[0] == held_out[1] == held_out[2] and len(held_out[0]) == 10


def test_a_lost_row_is_our_bug() -> None:
    rejected = Rejections()
    rejected.add(Rejected(1, "x"))
    with pytest.raises(AssertionError):
        Ledger(rows_read=3, rejected=rejected, rows_dropped=1).to_dict()


@pytest.mark.parametrize(
    ("dataset", "file", "rows"),
    [
        ("lima", "lima/train.jsonl", 515),
        ("dolly", "dolly/databricks-dolly-15k.jsonl", 1000),
        ("alpaca", "alpaca_gpt4/alpaca_gpt4_data.json", 800),
        ("csv", "csv/alpaca_300.csv", 300),
    ],
)
def test_published_files(tmp_path: Path, dataset: str, file: str, rows: int) -> None:
    if not (SHARED / file).is_file():
        pytest.skip("shared data is absent")
    folder = write_checkpoint(tmp_path / "c", block_size=2048)
    config = PrepareConfig(checkpoint_dir=folder, data_file=SHARED / file, destination_path=tmp_path / "prepared")
    counts = prepare(dataset, config).ledgers[dataset].counts()
    assert (counts["rows_read"], counts["rows_rejected"]) == (rows, 0)
    written = yaml.safe_load((tmp_path / "prepared" / "manifest.yaml").read_text())
    assert {**written["sources"][dataset], **counts} == written["sources"][dataset]


@pytest.mark.parametrize("dataset", sorted(SOURCES))
def test_scripts_are_doors(dataset: str) -> None:
    script = Path(__file__).parents[2] / "scripts" / f"prepare_{dataset}.py"
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15 and f'main(["prepare", "{dataset}", *sys.argv[1:]])' in text
    compile(text, str(script), "exec")
