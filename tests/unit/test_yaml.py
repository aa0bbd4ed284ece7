"""YAML in and out: the 1.2 core schema, no repeated keys, and no text that turns into something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from litft.config.io import dump_yaml, load_yaml
from litft.errors import ConfigError


def load(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24:00:00", "24:00:00"),
        ("3e-4", 3e-4),
        ("1E3", 1000.0),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("10", 10),
        ("010", 10),
        ("-5", -5),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("<<", "<<"),
        ("=", "="),
        ("[q, v]", ["q", "v"]),
        ("{b: 1}", {"b": 1}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(tmp_path: Path, text: str, value: Any) -> None:
    found = load(tmp_path, f"a: {text}\n")["a"]
    assert found == value and type(found) is type(value)


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert load(tmp_path, "") == load(tmp_path, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r'a\.yaml, line 3 is not valid YAML: the key "a" stands twice\.$'),
        ("a:\n  b: 1\n  b: 2\n", r'line 3 is not valid YAML: the key "b" stands twice'),
        ("a: {b: 1, b: 2}\n", "the key"),
        ("a: [1\n", r"a\.yaml, line 2 is not valid YAML"),
        ("\ta: 1\n", "line 1"),
        ("a: *b\n", "line 1"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("? [a]\n: 1\n", "line 1 is not valid YAML: a key is no text"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1"),
        ("a: \x07\n", "not valid YAML"),
        ("- a\n", r"holds a list; a mapping of keys to values is needed\.$"),
        ("a\n", "holds a str"),
        (f"a: {'9' * 5000}\n", "not valid YAML"),
    ],
    ids=range(13),
)
def test_what_is_no_mapping_of_plain_values_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*none\.yaml: No such file or directory\.$"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"a\.yaml is not UTF-8 text\.$"):
        load_yaml(tmp_path / "a.yaml")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), PLAIN | st.lists(PLAIN)))
@settings(max_examples=80, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    assert load(tmp_path_factory.getbasetemp(), dump_yaml(values)) == values


@pytest.mark.parametrize(
    "text",
    ["3e-4", "1e3", "010", "0o7", "no", "on", "24:00:00", "null", "2024-01-01", "1_0", "", "\x85", "a\r\nb", "\u2028"],
)
def test_a_text_is_quoted_where_any_yaml_would_mistake_it(tmp_path: Path, text: str) -> None:
    written = dump_yaml({"a": text})
    assert load(tmp_path, written) == yaml.safe_load(written) == {"a": text}


def test_keys_keep_their_order_and_letters() -> None:
    assert dump_yaml({"b": 1, "a": "née"}) == "b: 1\na: née\n"
