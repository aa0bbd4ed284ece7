"""Data that cannot be used ends in exit code 2 and one sentence: file, line, field, what was found, what was expected,
and the command that reads such a file; nothing is written, and no file is too large to be refused.

Every case goes through the real command line. Rows that alone are spoilt are in test_bad_rows.py.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import stat
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import assert_one_sentence
from good_rows import GOOD, TASK
from tiny_text import write_checkpoint

from litft.cli import main
from litft.config.io import load_yaml
from litft.data.reading.lines import PIECE_BYTES
from litft.data.sources import SOURCES
from litft.data.sources.json import NAMED
from litft.data.store import load_pt
from litft.errors import DataError

Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Ends a test that waits for a pipe or for a file without end."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", block_size=2048)


@pytest.fixture
def refuse(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Prepares a file that must be refused, and gives the sentence."""

    def run(dataset: str, file: str | Path, *contents: str, flags: tuple[str, ...] = ()) -> str:
        words = ["prepare", dataset, "--checkpoint_dir", str(checkpoint), "--data_file", str(file), *flags]
        before = seen()
        code = main(words)
        shown = capsys.readouterr()
        assert code == 2, (dataset, shown.err)
        assert_one_sentence(shown.out, shown.err, *contents)
        assert len(shown.err) < 2500, shown.err[:5000]
        assert seen() == before, "something was written"
        return shown.err

    return run


def seen() -> dict[str, float]:
    """Gives what stands below the folder, links not followed, with the time of each file."""
    return {str(path): path.is_dir() or path.lstat().st_mtime_ns for path in Path.cwd().rglob("*")}


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- files that are spoilt whatever their rows are ---

WHOLE = '{"x": 1}'  # stands for a good row
HEAD = f"{WHOLE}\n"

# Name, content, parts of the sentence; in the content `WHOLE` stands for a row of the dataset.
FILES: list[tuple[str, str | bytes, list[str]]] = [
    ("cut.jsonl", HEAD + '{"a": "b', ["cut.jsonl, line 2 is not valid JSON", "Unterminated string at column 7", '"b']),
    ("cut.json", f"[{WHOLE},\n" + '{"a": 1', ["cut.json, line 2 is not valid JSON", "column 8", "end of the line"]),
    ("comma.json", f"[{WHOLE}\n{WHOLE}]", ["comma.json, line 2", "a comma or ] is missing at column 1, found {"]),
    ("more.json", f"[{WHOLE}]\n{WHOLE}", ["more.json, line 2", "something follows the list at column 1"]),
    ("two.jsonl", f"{WHOLE}{WHOLE}\n", ["two.jsonl, line 1", "something follows the value"]),
    ("item.jsonl", HEAD + '["a"]\n', ['item.jsonl, line 2 holds ["a"]; each row must be a JSON object']),
    ("item.json", f"[{WHOLE},\n\n3]", ["item.json, line 3, row 2 holds 3; each row must be a JSON object"]),
    ("null.jsonl", HEAD + "null\n", ["null.jsonl, line 2 holds null"]),
    ("twice.jsonl", HEAD + '{"a": 1, "b": {"c": 1, "c": 2}}', ["twice.jsonl, line 2", 'the key "c" stands twice']),
    ("twice.json", f"[{WHOLE},\n" + '{"a": 1, "a": 2}]', ["twice.json, line 2", 'the key "a" stands twice']),
    ("latin.jsonl", HEAD.encode() + b'{"a": "\xe9"}', ["latin.jsonl, line 2 is not UTF-8 (byte 8", "0xe9", "as UTF-8"]),
    ("latin.json", f"[{WHOLE},\n".encode() + b' "\xff"]', ["latin.json, line 2 is not UTF-8 (byte 3 of the line"]),
    ("wide.jsonl", HEAD.encode("utf-16"), ["wide.jsonl: the file is UTF-16", "save it as UTF-8"]),
    ("wide.json", f"[{WHOLE}]".encode("utf-32"), ["wide.json: the file is UTF-32", "save it as UTF-8"]),
    ("bare.jsonl", HEAD.encode("utf-16-le"), ["bare.jsonl, line 1 holds a NUL byte", "UTF-16"]),
    ("nul.jsonl", HEAD + '{"a": "\0"}', ["nul.jsonl, line 2 holds a NUL byte"]),
    ("nul.json", f"[{WHOLE},\n" + '"\0"]', ["nul.json, line 2 holds a NUL byte"]),
    ("deep.jsonl", HEAD + '{"a":' * 10**5, ["deep.jsonl, line 2", "nested too deeply"]),
    ("deep.json", f"[{WHOLE},\n" + "[" * 10**5, ["deep.json, line 2", "nested too deeply"]),
    ("digits.jsonl", HEAD + '{"a": ' + "9" * 5000 + "}", ["digits.jsonl, line 2", "thousands of digits"]),
    ("digits.json", f"[{WHOLE},\n" + "9" * 5000 + "]", ["digits.json, line 2", "thousands of digits"]),
    ("empty.jsonl", "", ["empty.jsonl has no rows", "{dataset} is "]),
    ("blank.json", "\n  \r\n", ["blank.json has no rows"]),
    ("nothing.json", "[]", ["nothing.json has no rows"]),
    ("empty.jsonl.gz", b"", ["empty.jsonl.gz has no rows"]),
    ("cut.jsonl.gz", gzip.compress(HEAD.encode() * 99)[:-12], ["cut.jsonl.gz is no whole gzip file"]),
    ("text.jsonl.gz", HEAD, ["text.jsonl.gz is no gzip file", "take .gz off its name"]),
    ("tar.json.gz", gzip.compress(b"PK\x03\x04 and so on"), ["what it packs, when unpacked, is a zip archive"]),
    ("packed.jsonl", gzip.compress(HEAD.encode()), ["packed.jsonl: the file is a gzip file", "the ending .gz"]),
    ("book.json", b"PK\x03\x04 and so on", ["book.json: the file is a zip archive", "unpack"]),
    ("rows.jsonl", b"PAR1\x15\x04 and so on", ["rows.jsonl: the file is a parquet file", "the ending .parquet"]),
    ("pickled.json", b"\x80\x04\x95", ["pickled.json: the file is a pickle"]),
    ("lfs.json", "version https://git-lfs.github.com/spec/v1\noid", ["lfs.json: the file is a pointer of Git LFS"]),
    ("page.json", "<!DOCTYPE html>\n<html>", ["page.json, line 1 is not valid JSON", "a web page"]),
    ("table.jsonl", "instruction,output\na,b\n", ["found instruction,output", "did you mean `litft prepare csv`?"]),
    ("chain.jsonl", "a\tb\tc\n", ["line 1 is not valid JSON", "did you mean `litft prepare flan`?"]),
    ("story.jsonl", "Once upon a time\n", ["line 1 is not valid JSON", "did you mean `litft prepare text`?"]),
    ("pretty.json", '{\n "a": 1\n}', ["pretty.json, line 1", "one JSON object over several lines"]),
    ("task.json", json.dumps(TASK, indent=1), ["task.json, line 1", "`litft prepare natural_instructions`"]),
    ("junk.parquet", b"junk" * 9, ["junk.parquet cannot be read as parquet", "fetch the file again"]),
    ("cut.parquet", b"PAR1\x15\x04" * 9, ["cut.parquet cannot be read as parquet", "fetch the file again"]),
    ("empty.parquet", b"", ["empty.parquet cannot be read as parquet (Parquet file size is 0 bytes)"]),
    ("rows.parquet", HEAD, ["rows.parquet cannot be read as parquet", "It looks like JSON; did you mean"]),
    ("packed.parquet", gzip.compress(b"a"), ["packed.parquet cannot be read as parquet", "It is a gzip file"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "parts"), FILES, ids=[name for name, _, _ in FILES])
def test_a_file_that_is_spoilt(refuse: Refuse, name: str, content: str | bytes, parts: list[str]) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    datasets = {SOURCES[dataset].read: dataset for dataset in GOOD}  # three are read as alpaca is
    for dataset in datasets.values():
        row = GOOD[dataset]
        write(name, content.replace(WHOLE, json.dumps(row)) if isinstance(content, str) else content)
        refuse(dataset, name, *(part.replace("{dataset}", dataset) for part in parts))


def test_every_dataset_is_here() -> None:
    assert GOOD.keys() == SOURCES.keys() - {"csv", "natural_instructions"}


FORMS: dict[str, Callable[[str], str]] = {
    "lines": lambda row: f"\n{row}\n",
    "crlf": lambda row: f"{row}\r\n\r\n",
    "mark": lambda row: f"\ufeff{row}\n",
    "list": lambda row: f" [{row}]\n",
    "list with a mark": lambda row: f"\ufeff[{row}]",
}


@pytest.mark.parametrize(
    ("dataset", "form"), [*((name, "lines") for name in GOOD), *(("dolly", form) for form in FORMS)]
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_the_same_files_unspoilt(checkpoint: Path, dataset: str, form: str, name: str) -> None:
    """The refusals above would be worth nothing if such files were refused whatever they hold."""
    text = FORMS[form](json.dumps(GOOD[dataset])).encode()
    path = write(name, gzip.compress(text) if name.endswith(".gz") else text)
    flags = ["--checkpoint_dir", str(checkpoint), "--data_file", str(path), "--test_split_fraction", "0"]
    assert main(["prepare", dataset, *flags]) == 0
    assert load_yaml(Path("data") / dataset / "manifest.yaml")["sources"][dataset]["rows_kept_train"] == 1


# --- tables, texts, tasks and token ids ---

CSV = "instruction,output\n"
OTHERS: list[tuple[str, str, str | bytes, list[str]]] = [
    ("csv", "a.csv", json.dumps(GOOD["alpaca"]), ["no column", "It looks like JSON; did you mean"]),
    ("csv", "b.csv", CSV + "a,\0\n", ["b.csv, line 2 holds a NUL byte"]),
    ("csv", "c.csv", "instruction,output\ra,b\r", ["line 1", "its lines end in CR alone: save the file with LF"]),
    ("csv", "d.csv", gzip.compress(CSV.encode()), ["d.csv: the file is a gzip file", "the ending .gz"]),
    ("csv", "e.csv", (CSV + "a,b\n").encode("utf-16"), ["e.csv: the file is UTF-16"]),
    ("csv", "f.csv", ",".join(f"c{number}" for number in range(9999)), ['found "c0"', "and 9991 more", "--columns"]),
    ("csv", "g.csv", "Once upon a time\nthere was\n", ["did you mean `litft prepare text`?"]),
    ("csv", "h.csv", CSV + 'a,"b\n', ["the row that begins on line 2 is broken", "quote"]),
    ("csv", "i.csv.gz", gzip.compress(CSV.encode() * 99)[:-9], ["i.csv.gz is no whole gzip file"]),
    ("csv", "j.csv", CSV.replace(",", "\t") + "a\tb\tc\td\n", ["a cell that holds a tab needs quotes around it"]),
    ("flan", "e.tsv", "answer\tquestion\tchain_of_thought\n", ["e.tsv, line 1 is a header in another order; expected"]),
    ("flan", "a.tsv", "a\tb\n", ["line 1: 2 cells between tabs; expected 3: question, answer, chain_of_thought"]),
    ("flan", "b.tsv", "question\tanswer\tchain_of_thought\n", ["line 1: a header"]),
    ("flan", "c.tsv.gz", gzip.compress(b"a\t\tc\n\n"), ['1 of 1 rows', 'line 1: "answer" is empty']),
    ("flan", "d.tsv", b"a\tb\t\xff\n", ["d.tsv, line 1 is not UTF-8 (byte 5"]),
    ("text", "a.csv", "a,b\n", ["a.csv is a table", "`litft prepare csv` reads it"]),
    ("text", "b.txt", json.dumps(GOOD["text"]), ["b.txt, line 1 begins JSON, not text", "the ending .jsonl"]),
    ("text", "f.txt", "\n" + json.dumps([GOOD["alpaca"]], indent=1), ["f.txt, line 2 begins JSON", "prepare json`"]),
    ("text", "g.txt", json.dumps(GOOD["lima"], indent=1), ["g.txt, line 1 begins JSON"]),
    ("text", "c.txt", b"one\n\ntwo \xff\n", ["c.txt, line 3 is not UTF-8 (byte 5"]),
    ("text", "d.txt", "one\ntwo \0\n", ["d.txt, line 2 holds a NUL byte"]),
    ("text", "e.txt", "\n \n", ["e.txt has no rows"]),
    ("json", "a.csv", CSV, ["a.csv is no JSON; `litft prepare csv` reads .csv files"]),
    ("json", "b.tsv.gz", gzip.compress(b"a\tb\tc"), ["is no JSON; `litft prepare flan` reads .tsv files"]),
    ("json", "c.json", json.dumps({"data": [GOOD["alpaca"]]}), ['whose "data" is a list of objects', "save that list"]),
    ("json", "d.jsonl", '{"a\\u001b": 1, "\\ud800": 2}', ['have "a\\u001b", "\\ud800", which is no known shape']),
    ("json", "e.jsonl", '{"question": "a", "answer": "b"}', ["no known shape; the nearest is", "--format"]),
    ("json", "g.jsonl", f"{json.dumps(GOOD['alpaca'])}\n{json.dumps(GOOD['dolly'])}", ["fit 1 alpaca and 1 dolly"]),
    ("json", "h.json", json.dumps(TASK), ["a task of Natural-Instructions", "`litft prepare natural_instructions`"]),
    ("json", "f.jsonl", '{"input_ids": [1]}', ["they are token ids already; `litft prepare tokenized` reads them"]),
    ("natural_instructions", "a.json", json.dumps([TASK]), ["expected one JSON object", "`litft prepare json`"]),
    ("natural_instructions", "b.json", "", ["b.json is empty; expected one JSON object"]),
    ("natural_instructions", "c.json", json.dumps(TASK)[:-9], ["c.json, line 1 is not valid JSON"]),
    ("natural_instructions", "d.json", json.dumps(TASK)[:-1] + ', "Instances": []}', ['"Instances" stands twice']),
    ("natural_instructions", "e.json", json.dumps({**TASK, "Definition": 5}), ['"Definition" is int, not a list with']),
    ("natural_instructions", "f.json", '{"Instances": []}', ['is no task: no "Definition" (found "Instances")']),
    ("natural_instructions", "g.json", json.dumps({**TASK, "Instances": "x"}), ['"Instances" is str, not a list']),
    ("natural_instructions", "h.json", json.dumps(TASK) + "\n3", ["h.json, line 2", "something follows the object"]),
    ("natural_instructions", "i.json", json.dumps({**TASK, "Instances": [{"input": "a"}]}), ['no "output" (found']),
    ("natural_instructions", "j.json", '{"Definition": ' + "[" * 10**5, ["j.json, line 1", "nested too deeply"]),
    ("natural_instructions", "k.json", '{"a" 1}', ["k.json, line 1", "a colon is missing at column 6, found 1}"]),
    ("natural_instructions", "l.json", "{3: 4}", ["l.json, line 1", "a key in quotes is missing at column 2"]),
    ("tokenized", "b.jsonl", '{"input_ids": [3, -7]}', ['"input_ids" holds -7, which is no token id']),
    ("tokenized", "c.pt", b"", ["c.pt is no whole file of torch.save"]),
    ("tokenized", "d.pt", json.dumps(GOOD["tokenized"]), ["d.pt is no whole file of torch.save", "It looks like JSON"]),
    ("tokenized", "e.pt", b"abc" * 99, ["e.pt is no whole file of torch.save", "make the file again"]),
    ("tokenized", "f.arrow", b"ARROW1" * 9, ["f.arrow cannot be read as arrow", "save the folder again"]),
    ("tokenized", "g.arrow", b"", ["g.arrow cannot be read as arrow"]),
    ("tokenized", "h.arrow", json.dumps(GOOD["tokenized"]), ["h.arrow cannot be read as arrow", "It looks like JSON"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "name", "content", "parts"), OTHERS, ids=[f"{dataset}-{name}" for dataset, name, _, _ in OTHERS]
)
def test_another_form_that_is_spoilt(
    refuse: Refuse, dataset: str, name: str, content: str | bytes, parts: list[str]
) -> None:
    if name.endswith(".arrow"):
        pytest.importorskip("pyarrow")
    refuse(dataset, write(name, content), name, *parts)


def test_a_column_cannot_be_two_things(refuse: Refuse) -> None:
    flags = ("--columns", "instruction=output")
    refuse("csv", write("rows.csv", CSV + "a,b\n"), 'the column "output" both instruction and output', flags=flags)


def test_an_object_of_very_many_keys(refuse: Refuse) -> None:
    """Each key that is looked for in all the others would take minutes."""
    keys = ", ".join(f'"{number}": 1' for number in (*range(300_000), 299_999))
    refuse("alpaca", write("rows.jsonl", f"{{{keys}}}"), 'line 1 is not valid JSON: the key "299999" stands twice')


def test_a_format_that_is_not_known(refuse: Refuse) -> None:
    path = write("rows.jsonl", json.dumps(GOOD["alpaca"]))
    known = ", ".join(NAMED)
    flags = ("--format", "alpacca")
    refuse("json", path, f'--format is "alpacca"; it must be one of {known}', 'Did you mean "alpaca"?', flags=flags)


def test_a_parquet_file_with_two_columns_of_one_name(refuse: Refuse) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = arrow.array(["a"])
    table = arrow.Table.from_arrays([column, column, column], names=["instruction", "output", "output"])
    parquet.write_table(table, "rows.parquet")
    refuse("alpaca", "rows.parquet", 'rows.parquet has the column "output" 2 times')


def test_a_parquet_file_with_times_that_python_has_not(refuse: Refuse) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = arrow.array([2**62], type=arrow.timestamp("us"))
    parquet.write_table(arrow.table({"instruction": ["a"], "output": ["b"], "at": times}), "rows.parquet")
    refuse("alpaca", "rows.parquet", "rows.parquet cannot be read as parquet")


def test_a_damaged_file_of_tensors_never_ends_in_a_traceback() -> None:
    """Cut anywhere, and with any bytes changed, it is read or refused."""
    rows = [{"input_ids": torch.tensor([3, 4, 5]), "labels": torch.tensor([-1, 4, 5])}] * 3
    draw, refused = random.Random(1), 0
    for is_zip in (True, False):
        whole = io.BytesIO()
        torch.save(rows, whole, _use_new_zipfile_serialization=is_zip)
        for _ in range(300):
            spoilt = bytearray(whole.getvalue()[: draw.randrange(1, len(whole.getvalue()) + 1)])
            for _ in range(draw.randrange(4)):
                spoilt[draw.randrange(len(spoilt))] = draw.randrange(256)
            try:
                load_pt(write("rows.pt", bytes(spoilt)))
            except DataError:
                refused += 1
    assert refused > 300


# --- places that hold no file ---


def test_a_place_that_holds_no_file(refuse: Refuse) -> None:
    Path("loop.jsonl").symlink_to("loop.jsonl")
    Path("gone.jsonl").symlink_to("nowhere.jsonl")
    os.mkfifo("pipe.jsonl")
    for folder in ("empty", "holds_a_loop", "holds_a_pipe", "holds_a_folder/rows.jsonl"):
        Path(folder).mkdir(parents=True)
    write("holds_a_loop/a.jsonl", json.dumps(GOOD["messages"]))
    Path("holds_a_loop/b.jsonl").symlink_to("b.jsonl")
    os.mkfifo("holds_a_pipe/a.jsonl")
    for dataset in ("messages", "alpaca", "csv", "text", "tokenized", "natural_instructions"):
        refuse(dataset, "loop.jsonl", "loop.jsonl is a link that leads to no file")
        refuse(dataset, "gone.jsonl", "gone.jsonl is a link that leads to no file")
        refuse(dataset, "pipe.jsonl", "pipe.jsonl is a pipe or a device", "write its rows to a file")
        refuse(dataset, "/dev/zero", "/dev/zero is a pipe or a device")
        refuse(dataset, "pip.jsonl", "There is no data_file pip.jsonl", 'Did you mean "pipe.jsonl"?')
        refuse(dataset, "empty", "data_file empty", "it holds no files")
        refuse(dataset, "x" * 300, "File name too long")
    refuse("alpaca", "holds_a_loop", "holds_a_loop is a folder, not a file; it holds a.jsonl")
    refuse("messages", "holds_a_loop", "holds_a_loop holds b.jsonl, which is a link that leads to no file")
    refuse("messages", "holds_a_pipe", "holds_a_pipe holds a.jsonl, which is a pipe or a device")
    refuse("messages", "holds_a_folder", "holds_a_folder has no *.parquet or *.json or *.jsonl")
    refuse("natural_instructions", write("rows.jsonl", json.dumps(GOOD["lima"])), "is no task", "litft prepare json")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "rows.pt", "task1.json", "rows.txt"])
def test_a_file_that_may_not_be_read(refuse: Refuse, name: str) -> None:
    datasets = {".csv": "csv", ".pt": "tokenized", ".txt": "text"}
    path = write(name, "{}")
    path.chmod(stat.S_IWUSR)
    refuse(
        datasets.get(path.suffix, "natural_instructions" if "task" in name else "alpaca"),
        path,
        name,
        "ermission denied",
    )


# --- files without end ---

HUGE = 100 * 2**20


def write_huge(name: str, before: str, piece: bytes = b"a") -> Path:
    """Writes 100 MB behind a beginning."""
    path = Path(name)
    with gzip.open(path, "wb", compresslevel=1) if name.endswith(".gz") else path.open("wb") as file:
        file.write(before.encode())
        for _ in range(HUGE // PIECE_BYTES):
            file.write(piece * (PIECE_BYTES // len(piece)))
    return path


HUGES: list[tuple[str, str, str, str]] = [
    ("alpaca", "rows.jsonl", json.dumps(GOOD["alpaca"]) + '\n{"instruction": "', "rows.jsonl, line 2: it is longer"),
    ("json", "rows.jsonl", json.dumps(GOOD["alpaca"]) + '\n{"instruction": "', "rows.jsonl, line 2: it is longer"),
    ("alpaca", "rows.json", f"[{json.dumps(GOOD['alpaca'])},\n\n" + '{"a": "', "rows.json, line 3: the value that"),
    ("natural_instructions", "task1.json", '{\n"Definition": "', "task1.json, line 2: the value that begins"),
    ("text", "rows.txt", "one\n\n", "rows.txt, line 3: it is longer"),
    ("csv", "rows.csv", CSV + 'a,b\na,"', "rows.csv, line 3: it is longer"),
    ("flan", "rows.tsv", "a\tb\tc\n", "rows.tsv, line 2: it is longer"),
    ("tokenized", "rows.jsonl", '{"input_ids": [3', "rows.jsonl, line 1: it is longer"),
    ("text", "rows.jsonl.gz", '{"text": "', "rows.jsonl.gz, line 1: it is longer"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "name", "before", "words"), HUGES, ids=[f"{case[0]}-{case[1]}" for case in HUGES])
def test_a_line_without_end(refuse: Refuse, dataset: str, name: str, before: str, words: str) -> None:
    path = write_huge(name, before)
    tracemalloc.start()
    try:
        refuse(dataset, path, words, "longer than 8 MiB")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    path.unlink()
    assert peak < 200 * 2**20, f"{peak / 2**20:.0f} MiB for a file of 100"


@pytest.mark.parametrize(
    ("dataset", "name", "before", "words"),
    [
        ("text", "rows.txt", "one\n\n", "rows.txt, line 3: the document that begins there"),
        ("csv", "rows.csv", CSV + 'a,"', "rows.csv, line 2: a cell of the row that begins there"),
    ],
)
def test_many_lines_without_end(refuse: Refuse, dataset: str, name: str, before: str, words: str) -> None:
    path = write_huge(name, before, b"a" * 1023 + b"\n")
    refuse(dataset, path, words, "longer than 8 MiB")
    path.unlink()
