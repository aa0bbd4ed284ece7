"""Each dataset's rows, and the sentence for each fault of a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from huggingface_hub import constants
from tiny_rows import one_turn, talk, turns_in
from tiny_text import SHARED

from litft.data.reading.hub import find_files
from litft.data.reading.rows import Found, Rejected, Row
from litft.data.sources import SOURCES
from litft.data.sources.csv import read_csv, unused_columns
from litft.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(name: str, path: Path, **options: Any) -> list[Row | Rejected]:
    return list(SOURCES[name].read(path, **options))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("alpaca", '[\n{"instruction": "a", "input": "b", "output": "c"},\n\n{"instruction":"d","output":"e"}\n]\n',
         [one_turn(2, "a", "b", "c"), one_turn(4, "d", "", "e")]),
        ("alpaca", '\ufeff\n {"instruction": "a", "input": null, "output": "c", "text": 1}\r\n\n',
         [one_turn(2, "a", "", "c")]),
        ("alpaca", "[]", []),
        ("alpaca", "", []),
        ("dolly", '{"instruction": "a", "context": "b", "response": "c\\u2028d", "category": "x"}',
         [one_turn(1, "a", "b", "c\u2028d")]),
        ("lima", '{"conversations": ["a", "b"], "source": ""}\n{"conversations": ["a", "b", "c", "d"]}\n',
         [one_turn(1, "a", "", "b"), talk(2, "a", "b", "c", "d")]),
        ("csv", "instruction,input,output\na,b,c\n", [one_turn(2, "a", "b", "c")]),
        ("csv", b"\xef\xbb\xbfoutput,instruction\r\n\"c\r\nd\",a\r\n\r\nf,e\r\n",
         [one_turn(2, "a", "", "c\r\nd"), one_turn(5, "e", "", "f")]),
        ("csv", 'instruction,output,note\n"a, ""b""",c,\n', [one_turn(2, 'a, "b"', "", "c")]),
        ("csv", f"instruction,output\na,{'x' * 200_000}\n", [one_turn(2, "a", "", "x" * 200_000)]),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, content: str | bytes, expected: list[Row]) -> None:
    assert rows_of(name, write(tmp_path / "file", content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("alpaca", '{"instruction": "a", "output": ""}', 1, '"output" is empty'),
        ("alpaca", '{"instruction": " ", "output": "a"}', 1, '"instruction" is empty'),
        ("alpaca", '{"instruction": "a", "output": null}', 1, '"output" is null, not text'),
        ("alpaca", '{"instruction": "a", "output": 3}', 1, '"output" is int, not text'),
        ("alpaca", '{"instruction": "a", "input": ["b"], "output": "c"}', 1, '"input" is list, not text'),
        ("alpaca", '\n{"instruction": "a", "response": "c"}', 2, 'no "output" (found "instruction", "response")'),
        ("alpaca", '[{"instruction": "a",\n"output": "b"},\n{}]', 3, 'no "instruction" (found nothing)'),
        ("dolly", '{"instruction": "a", "response": "\\ud83d"}', 1,
         '"response" holds half a character (a lone surrogate)'),
        ("dolly", '{"instruction": "a", "output": "c"}', 1, 'no "response" (found "instruction", "output")'),
        ("lima", '{"conversations": ["a"]}', 1, "1 text, so the last question has no answer"),
        ("lima", '{"conversations": ["a", "b", "c"]}', 1, "3 texts, so the last question has no answer"),
        ("lima", '{"conversations": ["a", ""]}', 1, "text 2 of the conversation is empty"),
        ("lima", '{"conversations": [{"from": "human"}, "b"]}', 1, "text 1 of the conversation is dict, not text"),
        ("lima", '{"conversations": []}', 1, '"conversations" is an empty list, not a list of texts'),
        ("lima", '{"messages": []}', 1, 'no "conversations" (found "messages")'),
        ("csv", "instruction,output\na,b\nc\n", 3, "1 cell where the header has 2"),
        ("csv", 'instruction,output\n"a\n\nb",c\nd,e,f\n', 5,
         "3 cells where the header has 2: a cell that holds a comma needs quotes around it"),
        ("csv", "instruction,output\nd,e,f\n", 2,
         "3 cells where the header has 2: a cell that holds a comma needs quotes around it"),
        ("csv", "instruction,output\na,\n", 2, '"output" is empty'),
    ],
)  # fmt: skip
def test_rejected_rows(tmp_path: Path, name: str, content: str, line: int, reason: str) -> None:
    rejected = [row for row in rows_of(name, write(tmp_path / "file", content)) if isinstance(row, Rejected)]
    assert rejected == [Rejected(line, reason)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("alpaca", '{"instruction": "a", "output": "b"}\n{"instruction": "a", "out', "line 2 is not valid JSON"),
        ("alpaca", '{"instruction": "a", "output": "b"}\n["a", "b"]\n', 'line 2 holds ["a", "b"]'),
        ("alpaca", '[{"instruction": "a",\n"output": "b"},\n{"instruction" "c"}]', "line 3 is not valid JSON"),
        ("alpaca", '[{"instruction": "a", "output": "b"}\n', "line 2 is not valid JSON: a comma or ]"),
        ("alpaca", '[{"instruction": "a", "output": "b"},\n]', "line 2 is not valid JSON"),
        ("alpaca", '[{"instruction": "a", "output": "b"}]\n{}', "line 2 is not valid JSON: something follows"),
        ("alpaca", '[{"instruction": "a", "output": "b"},\n"c"]', 'line 2, row 2 holds "c"'),
        ("alpaca", "[", "line 1 is not valid JSON"),
        ("alpaca", "[\n" + "[" * 100_000, "line 2 is not valid JSON"),
        ("dolly", "[" * 100_000, "line 1 is not valid JSON"),
        ("dolly", "hello", "line 1 is not valid JSON"),
        ("dolly", "null\n", "line 1 holds null"),
        ("dolly", b'{}\n{"a": "\xff"}', "line 2 is not UTF-8 (byte 8 of the line is 0xff)"),
        ("lima", "instruction,output\n", "line 1 is not valid JSON"),
        ("csv", "", "is empty"),
        ("csv", "prompt,answer\na,b\n", 'no columns "instruction" and "output"; found "prompt", "answer"'),
        ("csv", "prompt,answer\na,b\n", "--columns instruction=prompt,output=answer to"),
        ("csv", "text,answer\na,b\n", "--columns instruction=YOUR_COLUMN,output=answer to"),
        ("csv", "Instruction;Input; OUTPUT \na;b;c\n", "=Instruction,input=Input,output=OUTPUT to"),
        ("csv", "My question,output\na,b\n", "--columns instruction=YOUR_COLUMN to"),
        ("csv", "Name a prime.,7\nName another.,11\n", "looks like a row; put the header instruction,output above"),
        ("csv", "instuction,output\na,b\n", "--columns instruction=instuction to"),
        ("csv", "instruction,output,output\na,b,c\n", 'the column "output" 2 times'),
        ("csv", 'instruction,output\na,b\nc,"d\ne,f\n', "row that begins on line 3 is broken at line 4"),
        ("csv", 'instruction,output\na,"b"c\n', "row that begins on line 2 is broken at line 2"),
        ("csv", b"instruction,output\na,\xe9\n", "line 2 is not UTF-8"),
        ("csv", "instruction,output\na,b\n".encode("utf-16"), "the file is UTF-16, not a text in UTF-8"),
    ],
)  # fmt: skip
def test_faults_of_the_file_stop_at_once(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = write(tmp_path / "file", content)
    with pytest.raises(DataError) as caught:
        rows_of(name, path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,question,context,answer\n1,a,b,c\n")
    columns = {"instruction": "question", "output": "answer"}
    assert rows_of("csv", path, columns=columns) == [one_turn(2, "a", "", "c")]
    assert rows_of("csv", path, columns={**columns, "input": "context"}) == [one_turn(2, "a", "b", "c")]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_cells_between_other_marks(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path / "a.csv", f'"instruction"{mark} output\na,{mark}"b{mark}"\nc{mark}d{mark}e\n')
    found, row, rejected = rows_of("csv", path)
    assert isinstance(found, Found) and "stands between the cells" in found.sentence
    assert row == one_turn(2, "a,", "", f"b{mark}") and isinstance(rejected, Rejected)
    assert unused_columns(path) is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": "instruction", "b": "output"}, "--columns instruction=a,output=b."),
        ({"instuction": "a"}, 'Did you mean "instruction"?'),
        ({"instruction": "a", "output": "b", "input": "hint"}, 'no column "hint"'),
        ({"instruction": "a", "output": "B"}, 'no column "B"'),
    ],
)
def test_unusable_columns(tmp_path: Path, columns: dict[str, str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(read_csv(write(tmp_path / "a.csv", "a,b\n1,2\n"), columns=columns))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "count", "longest"),
    [
        ("lima", "lima/train.jsonl", 515, 10),
        ("dolly", "dolly/databricks-dolly-15k.jsonl", 1000, 1),
        ("csv", "csv/alpaca_300.csv", 300, 1),
        ("alpaca", "alpaca_gpt4/alpaca_gpt4_data.json", 800, 1),
    ],
)
def test_published_files(name: str, file: str, count: int, longest: int) -> None:
    if not (SHARED / file).is_file():
        pytest.skip("shared data is absent")
    rows = [row for row in rows_of(name, SHARED / file) if isinstance(row, Row)]
    assert len(rows) == count
    assert max(len(turns_in(row.conversation)) for row in rows) == longest


def test_prompts_csv_lacks_its_columns() -> None:
    path = SHARED / "csv" / "prompts.csv"
    if not path.is_file():
        pytest.skip("shared data is absent")
    with pytest.raises(DataError, match=r'no columns "instruction" and "output"; found "act", "prompt"'):
        rows_of("csv", path)


def test_data_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "csv").mkdir(parents=True)
    write(tmp_path / "data" / "csv" / "mine.csv", "")
    for wrong, words in (
        ("/data/csv/mine.csv", 'Did you mean "data/csv/mine.csv"?'),
        ("data/csv/mime.csv", 'Did you mean "data/csv/mine.csv"?'),
        ("data/csv", "is a folder, not a file; it holds mine.csv"),
        ("nowhere/at/all.csv", "There is no data_file nowhere/at/all.csv."),
    ):
        with pytest.raises(DataError) as caught:
            find_files(SOURCES["csv"], Path(wrong), None)
        assert words in str(caught.value)
    assert find_files(SOURCES["csv"], Path("data/csv/mine.csv"), None) == [Path("data/csv/mine.csv")]


def test_csv_has_no_hub() -> None:
    with pytest.raises(DataError, match="--data_file"):
        find_files(SOURCES["csv"], None, None)


@pytest.fixture
def hub_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a function that starts the test hub and points the client at it."""
    started = []
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def start(**options: Any) -> None:
        started.append(HubServer(**options))
        started[-1].__enter__()
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", started[-1].url + template)
        monkeypatch.setattr(constants, "ENDPOINT", started[-1].url)

    yield start
    for each in started:
        each.__exit__()


def test_fetch_from_the_hub(tmp_path: Path, hub_of: Any) -> None:
    (tmp_path / "repo").mkdir()
    content = json.dumps({"conversations": ["a", "b"]})
    write(tmp_path / "repo" / "train.jsonl", content)
    hub_of(datasets={"GAIR/lima": tmp_path / "repo"})
    (path,) = find_files(SOURCES["lima"], None, None)
    assert path.read_text() == content and path.name == "train.jsonl"


@pytest.mark.parametrize(
    ("repository", "options", "revision", "words"),
    [
        ("GAIR/lima", {"gated": ("GAIR/lima",), "token": "hf_other"}, None, "is gated: accept its licence"),
        ("GAIR/other", {}, None, "The hub has no dataset GAIR/lima"),
        ("GAIR/lima", {}, "v9", "has no revision v9"),
        ("GAIR/lima", {}, None, "The hub has no train.jsonl of the dataset GAIR/lima"),
    ],
)
def test_hub_errors(
    tmp_path: Path, hub_of: Any, repository: str, options: dict[str, Any], revision: str | None, words: str
) -> None:
    (tmp_path / "repo").mkdir()
    hub_of(datasets={repository: tmp_path / "repo"}, **options)
    with pytest.raises(DataError) as caught:
        find_files(SOURCES["lima"], None, revision)
    assert words in str(caught.value) and "hf_secret" not in str(caught.value)


def test_a_published_dataset_of_several_files(tmp_path: Path, hub_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    source = SOURCES["magpie"]
    (tmp_path / "repo" / "data").mkdir(parents=True)
    for name in ("train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "test-00000-of-00001.parquet"):
        write(tmp_path / "repo" / "data" / name, name)
    hub_of(datasets={source.repo_id: tmp_path / "repo"})
    found = find_files(source, None, None)
    assert [path.read_text() for path in found] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_files(source, None, None) == found
    found[0].unlink()
    with pytest.raises(DataError, match=r"train-\*\.parquet of the dataset .* is not in the cache"):
        find_files(source, None, None)
    # The cache of a client that keeps no listing, and takes what is there for all.
    shutil.copytree(tmp_path / "cache", tmp_path / "old", symlinks=True, ignore=shutil.ignore_patterns("trees"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "old"))
    with pytest.raises(DataError, match=r"cache has 1 of the 2 files data/train-\*\.parquet of the dataset Magpie"):
        find_files(source, None, None)


def test_a_published_dataset_whose_files_moved(tmp_path: Path, hub_of: Any) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "README.md", "")
    hub_of(datasets={SOURCES["magpie"].repo_id: tmp_path / "repo"})
    with pytest.raises(DataError, match=r"The hub has no data/train-\*\.parquet of the dataset Magpie-Align"):
        find_files(SOURCES["magpie"], None, None)


def test_hub_out_of_reach(hub_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="is not in the cache and the hub cannot be reached"):
        find_files(SOURCES["lima"], None, None)


def test_columns_that_are_left_aside_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,context,answer\nq,c,a\n", encoding="utf-8")
    asked = {"instruction": "question", "output": "answer"}
    sentence = unused_columns(path, asked)
    assert sentence == f'Not used of {path}: "context"; --columns input=context would make that one the input.'
    assert unused_columns(path, {**asked, "input": "context"}) is None
    path.write_text("instruction,input,output,type\nq,c,a,t\n", encoding="utf-8")
    assert unused_columns(path) == f'Not used of {path}: "type".'


def test_text_documents_of_a_text_file_and_of_json_lines(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one\ntwo\n\n\n  \nthree\n", encoding="utf-8")
    lines.write_text('{"text": "one\\ntwo"}\n{"text": "three"}\n{"text": ""}\n{"other": 1}\n', encoding="utf-8")
    read = SOURCES["text"].read
    wanted = [("one\ntwo", 1), ("three", 6)]
    found = [(turns_in(row.conversation)[0].response, row.line) for row in read(plain) if isinstance(row, Row)]
    assert found == wanted
    rows = list(read(lines))
    assert [turns_in(row.conversation)[0].response for row in rows if isinstance(row, Row)] == ["one\ntwo", "three"]
    assert [(row.line, row.reason) for row in rows if isinstance(row, Rejected)] == [
        (3, '"text" is empty'),
        (4, 'no "text" (found "other")'),
    ]
