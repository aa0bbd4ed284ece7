"""What litft reads, changed at random: it is read, or refused in a sentence, soon; nothing else comes out of it.

`make test` tries a few of each, `make fuzz` thousands (tests/fuzzing.py). What it found stands in the tests beside this
file, as a case with a name.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
import signal
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from fuzzing import tried
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tiny_text import byte_tokenizer, piece_model, write_checkpoint, write_json

from litft.checkpoint.pickled import load_pickled
from litft.checkpoint.tensors import load_weights, read_safetensors_header
from litft.checkpoint.weights import open_weights
from litft.config.answer import GenerateConfig
from litft.config.io import dump_yaml, load_yaml
from litft.config.model import ModelConfig
from litft.config.parse import HelpRequest, parse_config
from litft.config.prepare import PrepareConfig
from litft.config.run import LoRARun
from litft.data.sources import SOURCES
from litft.data.store import PreparedData, load_pt, save_prepared
from litft.errors import LitftError
from litft.families import FAMILIES, model_config_from_hf, tensor_rules
from litft.model.load import build_empty
from litft.text.conversation import Conversation, StyleError, dialogue
from litft.text.style_files import load_style, style_from_dict
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS = 30  # that one example may take, on a machine that does other things too


@contextmanager
def sentence_or_success(*more: type[Exception]) -> Iterator[None]:
    """Lets a mistake of the user's pass, if it is a sentence; fails where it takes too long."""

    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"not done after {SECONDS} seconds")

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except (LitftError, *more) as error:
        assert str(error).strip() and len(str(error)) < 20_000, error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place that each example writes anew."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


# --- changes ---

TOKENS = [
    *(b"null", b"true", b"{}", b"[]", b'""', b"[[", b"{", b"}", b"]", b'"', b",", b":", b"\\", b"\\ud800", b"\\u0000"),
    *(b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1.5", b"9" * 30, b"9" * 5000, b'{"a":' * 40, b"[" * 3000),
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1f\x8b",
        b"PK\x03\x04",
        b"\x80\x04",
    ),
    *(b"\x1b[2J", b"\xe2\x80\xae", b" ", b"#", b"&a ", b"*a", b"!!", b"- ", b"? ", b"|", b">", b"%", b"<<: ", b"'"),
]
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 9), st.sampled_from(TOKENS) | st.binary(max_size=4))
EDITS = st.lists(EDIT, min_size=1, max_size=6)


def changed(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Puts bytes at places of a content, in the place of some."""
    for where, taken, put in edits:
        place = int(where * len(content))
        content = content[:place] + put + content[place + taken :]
    return content


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([2**31, 2**40, 10**30, -(10**9), 1e308, float("nan"), float("inf"), 0.0, -1.5])
    | st.sampled_from(["", "a", "</s>", "\x1b[2J", "\ud800", "none", "auto", "default", "type", "9" * 50])
    | st.text(max_size=5)
)
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Gives the way to each value within a value; of long lists and maps the first."""
    if isinstance(value, (dict, list)):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in itertools.islice(inner, 12):
            yield (*way, key)
            yield from places(each, (*way, key))


def replaced(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    """Gives a value with another in one place."""
    if not way:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    made[way[0]] = replaced(made[way[0]], way[1:], new)
    return made


def somewhere(value: Any) -> st.SearchStrategy[Any]:
    """Gives a value of JSON with one to three others in it."""
    ways = st.sampled_from(list(places(value)))

    def change(pairs: list[tuple[tuple[Any, ...], Any]]) -> Any:
        made = value
        for way, new in pairs:
            try:
                made = replaced(made, way, new)
            except (LookupError, TypeError, ValueError):  # another change took the place away
                continue
        return made

    return st.lists(st.tuples(ways, VALUE), min_size=1, max_size=3).map(change)


# --- settings ---

SETTINGS = [
    b"checkpoint_dir: a\ndata_dir: b\ntrain:\n  max_iters: 10\n  max_time: 24:00:00\nlora.r: 8\n"
    b"lora: {targets: [q, v]}\n",
    b"# a run\ncheckpoint_dir: a\ndata_dir: b\nlearning_rate: 3e-4\nlogger: [csv]\nsweep: {seed: [1, 2]}\n",
    b"a: &a [1, {b: c}]\nd: *a\ne: |\n  text\n  more\nf: 'x'\ng: \"\\x41\"\n? h\n: i\n",
]


@given(st.sampled_from(SETTINGS), EDITS)
@tried(15)
def test_yaml(folder: Path, content: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    path = folder / "a.yaml"
    path.write_bytes(changed(content, edits))
    with sentence_or_success():
        load_yaml(path)
    with sentence_or_success(HelpRequest):
        parse_config(LoRARun, ["--config", str(path)], "litft", "")


WORD = st.sampled_from(
    ["--seed", "--train.max_iters", "--lora.targets", "--betas", "--config", "--help", "--sweep.seed", "--print_config"]
) | st.from_regex(r"--?[a-z_.]{0,12}(=.{0,8})?", fullmatch=True)
GIVEN = st.text(max_size=6) | st.sampled_from(
    ["1", "-1", "1e999", "nan", "[q,v]", "{", "null", "9" * 5000, "1,2", "a=b"]
)


@given(st.lists(WORD | GIVEN, max_size=6), st.sampled_from([LoRARun, GenerateConfig, PrepareConfig]))
@tried(20)
def test_flags(words: list[str], kind: type[Any]) -> None:
    with sentence_or_success(HelpRequest):
        parse_config(kind, words, "litft", "")


# --- weights and descriptions ---

WEIGHTS = save({"model.norm.weight": torch.ones(4), "lm_head.weight": torch.ones(2, 3, dtype=torch.bfloat16)})
HEADER = json.loads(WEIGHTS[8 : 8 + int.from_bytes(WEIGHTS[:8], "little")])
INDEX = {
    "metadata": {"total_size": 28},
    "weight_map": dict.fromkeys(("model.norm.weight", "lm_head.weight"), "one.bin"),
}


@given(somewhere(HEADER) | EDITS)
@tried(60)
def test_safetensors(folder: Path, change: Any) -> None:
    path, data = folder / "model.safetensors", WEIGHTS[-28:]
    if isinstance(change, dict):
        text = json.dumps(change).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    else:
        path.write_bytes(changed(WEIGHTS, change) if isinstance(change, list) else str(change).encode())
    for read in (read_safetensors_header, load_weights, lambda path: open_weights(path.parent)):
        with sentence_or_success():
            read(path)


@given(somewhere(INDEX) | EDITS)
@tried(30)
def test_indices(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "pytorch_model.bin.index.json"
    is_bytes = isinstance(change, list) and change and isinstance(change[0], tuple)
    path.write_bytes(changed(json.dumps(INDEX).encode(), change) if is_bytes else json.dumps(change).encode())
    torch.save({"model.norm.weight": torch.ones(4), "lm_head.weight": torch.ones(2)}, tmp_path / "one.bin")
    with sentence_or_success():
        open_weights(tmp_path)


@given(EDITS)
@tried(40)
def test_archives_of_torch(folder: Path, edits: list[tuple[float, int, bytes]]) -> None:
    path = folder / "train.pt"
    save_prepared(
        path,
        input_ids=torch.arange(20),
        target_mask=torch.arange(20) > 9,
        offsets=torch.tensor([0, 9, 20]),
        source=torch.zeros(2),
        meta={"tokenizer": {"hash": "a"}, "source_names": ["b"]},
    )
    path.write_bytes(changed(path.read_bytes(), edits))
    for read in (load_pt, PreparedData.load, lambda path: load_pickled(path, "fetch it again")):
        with sentence_or_success():
            read(path)


DESCRIPTION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "head_dim": 8,
    "layer_types": ["full_attention", "full_attention"],
    "sliding_window": None,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "attn_config": {"alibi": True},
    "text_config": {"hidden_size": 32},
}
KINDS = [kind for family in FAMILIES.values() for kind in family.model_types]


@given(st.sampled_from(KINDS), somewhere(DESCRIPTION), st.booleans())
@tried(60)
def test_config_json(model_type: str, values: Any, is_short: bool) -> None:
    """What is taken can be built, and written and read again."""
    if not isinstance(values, dict):
        return
    some = {key: value for key, value in values.items() if not is_short or value != DESCRIPTION[key]}
    with sentence_or_success():
        config = model_config_from_hf({"model_type": model_type, **some}, "m")
        assert ModelConfig.from_dict(config.to_dict()) == config
        assert tensor_rules(config) if config.n_layer < 100 else True
        if config.n_layer < 100 and config.n_expert < 100:
            build_empty(config)


ALIKE = dict.fromkeys(("n_layer", "n_head", "n_query_groups"), 2) | dict.fromkeys(
    ("n_embd", "head_size", "intermediate_size", "block_size", "vocab_size", "padded_vocab_size"), 8
)
TINY = ModelConfig.from_dict({**ALIKE, "name": "a", "family": "llama"}).to_dict()


@given(somewhere(TINY))
@tried(60)
def test_model_config(folder: Path, values: Any) -> None:
    with sentence_or_success():
        config = ModelConfig.from_dict(values if isinstance(values, dict) else {})
        (folder / "a.yaml").write_text(dump_yaml(config.to_dict()), encoding="utf-8")
        assert ModelConfig.from_dict(load_yaml(folder / "a.yaml")) == config


# --- tokenizers and templates ---

TOKENIZER = json.loads(byte_tokenizer().to_str())
BESIDE = {
    "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}],
        "added_tokens_decoder": {"259": {"content": "<x>", "special": True}},
        "use_fast": False,
    },
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}},
    "generation_config.json": {"eos_token_id": [1, 2], "bos_token_id": 0},
    "added_tokens.json": {"<x>": 259},
}


@given(somewhere(TOKENIZER))
@tried(50)
def test_tokenizer_json(folder: Path, values: Any) -> None:
    made = write_checkpoint(folder / "json")
    write_json(made / "tokenizer.json", values)
    with sentence_or_success():
        use(Tokenizer(made))


@given(
    st.sampled_from(sorted(BESIDE)).flatmap(lambda name: st.tuples(st.just(name), somewhere(BESIDE[name]))),
    st.booleans(),
)
@tried(20)
def test_files_beside_a_tokenizer(folder: Path, change: tuple[str, Any], is_pieces: bool) -> None:
    made = write_checkpoint(folder / ("pieces" if is_pieces else "beside"))
    if is_pieces:
        (made / "tokenizer.json").unlink()
        (made / "tokenizer.model").write_bytes(PIECES)
    for name, values in {**BESIDE, change[0]: change[1]}.items():
        write_json(made / name, values)
    with sentence_or_success():
        use(Tokenizer(made))
        load_style(made)


PIECES = piece_model()


@given(EDITS)
@tried(40)
def test_pieces(folder: Path, edits: list[tuple[float, int, bytes]]) -> None:
    made = write_checkpoint(folder / "model")
    (made / "tokenizer.json").unlink(missing_ok=True)
    (made / "tokenizer.model").write_bytes(changed(PIECES, edits))
    with sentence_or_success():
        use(Tokenizer(made))


def use(tokenizer: Tokenizer) -> None:
    """Does what every command does with one."""
    ids = tokenizer.encode("a é 🙂</s>\n b")
    assert all(0 <= number < 2**25 for number in ids) and isinstance(tokenizer.decode(ids), str)
    tokenizer.encode_batch(["a", ""])
    for text, number in tokenizer.specials.items():
        assert isinstance(tokenizer.token_text(number), str) and text


NAME = st.sampled_from(["messages", "m", "loop", "ns", "x", "bos_token", "tools", "self", "range", "dict", "namespace"])
FILTERS = (
    "trim tojson upper length list join map('upper') selectattr('role') first string int default('a') "
    "replace('a','bb') indent(3) center(9) batch(2) sort items format(1) sum"
)
FILTER = st.sampled_from(FILTERS.split(" "))
ATTRIBUTE = st.sampled_from(
    ["content", "role", "strip()", "split('a')[0]", "items()", "__class__", "x", "append(1)", "format(1)"]
)
OPERATOR = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "in", "and"])
EXPRESSION = st.recursive(
    NAME | st.sampled_from(["1", "'a'", "'%s%9d'", "[1, 2]", "{'a': 1}", "(1,)", "none", "1e9", "-3", "true"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, OPERATOR, inner)
        | st.builds("{}|{}".format, inner, FILTER)
        | st.builds("{}.{}".format, inner, ATTRIBUTE)
        | st.builds("{}[{}]".format, inner, inner)
        | st.builds("{}[{}:]".format, inner, inner)
        | st.builds("{}({})".format, NAME, inner)
        | st.builds("({} if {} else {})".format, inner, inner, inner)
        | st.builds("[{}, {}]".format, inner, inner)
    ),
    max_leaves=5,
)
TEMPLATE = st.recursive(
    st.builds("{{{{ {} }}}}".format, EXPRESSION) | st.text(string.printable, max_size=6),
    lambda inner: (
        st.builds("{}{}".format, inner, inner)
        | st.builds("{{% for m in {} %}}{}{{% endfor %}}".format, EXPRESSION, inner)
        | st.builds("{{% for m in {} if {} %}}{}{{% endfor %}}".format, EXPRESSION, EXPRESSION, inner)
        | st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSION, inner, inner)
        | st.builds("{{% set x = {} %}}{}".format, EXPRESSION, inner)
        | st.builds("{{% set x %}}{}{{% endset %}}".format, inner)
        | st.builds("{{% set ns = namespace(a={}) %}}{{% set ns.a = {} %}}{}".format, EXPRESSION, EXPRESSION, inner)
        | st.builds("{{% macro m(a) %}}{}{{% endmacro %}}{{{{ m({}) }}}}".format, inner, EXPRESSION)
        | st.builds("{{% generation %}}{}{{% endgeneration %}}".format, inner)
        | st.builds("{{% filter {} %}}{}{{% endfilter %}}".format, FILTER, inner)
    ),
    max_leaves=6,
)
FRAME = "{% for m in messages %}<s>{{ m.role + ': ' + m.content }}</s>\n{% endfor %}"
TALKS: list[Conversation] = [dialogue("a", "b"), dialogue("a", "b</s>", "c", system="s")]


@given(st.builds(lambda made, is_framed: made + FRAME * is_framed, TEMPLATE, st.booleans()))
@tried(80)
def test_templates(template_tokenizer: Tokenizer, source: str) -> None:
    with sentence_or_success(StyleError):
        style = ChatTemplate.of("mine.jinja", source, template_tokenizer)
        for talk in TALKS:
            for each in style.exchanges(talk):
                assert all(isinstance(piece.text, str) for piece in (*each.prompt, *each.answer))


@pytest.fixture(scope="module")
def template_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_checkpoint(tmp_path_factory.mktemp("c")))


STYLE = {
    "name": "a",
    "template": FRAME,
    "bos_token": "",
    "eos_token": "",
    "end": "</s>",
    "ends": ["</s>"],
    "specials": ["<s>"],
}
FRAMES = {"name": "a", "first": "{instruction}", "later": "{instruction}", "end": "</s>", "stop": ["a"]}


@given(somewhere(STYLE) | somewhere(FRAMES))
@tried(40)
def test_saved_styles(values: Any) -> None:
    with sentence_or_success(StyleError):
        style = style_from_dict(values if isinstance(values, dict) else {})
        style.exchanges(dialogue("a", "b"))


# --- datasets ---

FILES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.rglob("*.*"))
OLD_PARQUET = [{"instruction": "a", "output": "b", "input_ids": [1, 2], "labels": [1, 2]}] * 3


@pytest.mark.parametrize("name", FILES)
@given(edits=EDITS)
@tried(5)
def test_datasets(folder: Path, name: str, edits: list[tuple[float, int, bytes]]) -> None:
    dataset = name.partition("/")[0]
    path = folder / Path(name).name
    path.write_bytes(changed((FIXTURES / name).read_bytes(), edits))
    with sentence_or_success():
        for row in SOURCES[dataset].read(path):
            repr(row)


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".jsonl.gz", ".pt"])
@given(edits=EDITS)
@tried(8)
def test_packed_datasets(folder: Path, ending: str, edits: list[tuple[float, int, bytes]]) -> None:
    path = folder / f"rows{ending}"
    path.write_bytes(changed(packed_rows(ending), edits))
    for dataset in ("tokenized",) if ending in (".arrow", ".pt") else ("tokenized", "json"):
        with sentence_or_success():
            for row in SOURCES[dataset].read(path):
                repr(row)


def packed_rows(ending: str) -> bytes:
    """Gives three rows in a file of one kind."""
    made = io.BytesIO()
    if ending == ".jsonl.gz":
        return gzip.compress("\n".join(map(json.dumps, OLD_PARQUET)).encode(), mtime=0)
    if ending == ".pt":
        torch.save([{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor([1, 2])}] * 3, made)
        return made.getvalue()
    table = pyarrow.Table.from_pylist(OLD_PARQUET)
    if ending == ".parquet":
        pyarrow.parquet.write_table(table, made)
    else:
        with pyarrow.ipc.new_stream(made, table.schema) as stream:
            stream.write_table(table)
    return made.getvalue()


def test_no_fixture_is_left_out() -> None:
    """Each dataset has a file here, and `re` finds no other ending among them."""
    assert {name.partition("/")[0] for name in FILES} == set(SOURCES)
    assert all(re.search(r"\.(jsonl?|csv|tsv|txt)$", name) for name in FILES)
