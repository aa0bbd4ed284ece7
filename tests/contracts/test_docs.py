"""What the pages say holds: commands parse, targets and links exist, Python runs, names and counts are true."""

from __future__ import annotations

import ast
import csv
import importlib
import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from litft import LLM
from litft.cli import find_command, main
from litft.config.commands import COMMANDS, Command
from litft.config.filters import QUALITY_RULES
from litft.config.io import load_yaml
from litft.config.model import ModelConfig
from litft.config.parse import HelpRequest, parse_config
from litft.data.sources import SOURCES
from litft.errors import ConfigError
from litft.families import FAMILIES
from litft.text.styles import STYLES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "ARCHITECTURE.md", *sorted((ROOT / "tutorials").glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SHELLS = ("bash", "sh", "shell", "console")
pages = pytest.mark.parametrize("page", PAGES, ids=IDS)


def fences(page: Path, *languages: str) -> list[str]:
    """Gives the fenced blocks of these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def shell_lines(page: Path) -> list[list[str]]:
    """Gives each command of a page as words, without comments and what follows `>` or `|`."""
    return [words for block in fences(page, *SHELLS) for words in words_of_lines(block)]


def words_of_lines(block: str) -> list[list[str]]:
    """Gives each command of a block as words."""
    lines = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|><")
        lexer.whitespace_split = True
        words = list(lexer)
        ends = [index for index, word in enumerate(words) if word in ("|", ">", ">>", "2>")]
        lines.append(words[: ends[0]] if ends else words)
    return [words for words in lines if words]


def command_words(words: Sequence[str], copies: dict[str, str]) -> list[str] | None:
    """Gives the words after `litft` that a line of a page comes to, or None where it is no command of ours.

    Args:
        words: the line.
        copies: recipes that the page copied before, as copy -> original.
    """
    if words[0] == "litft":
        return list(words[1:])
    if words[0] == "python" and (words[1] in copies or words[1].startswith(("scripts/", "finetune/"))):
        return [*words_of_script(copies.get(words[1], words[1])), *words[2:]]
    return None


def words_of_script(script: str) -> list[str]:
    """Reads from a script which command it is a door to: `main(["merge", ...])` or `run_recipe("lora", __file__)`."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    for call in calls:
        name, first = call.func.id, call.args[0] if call.args else None  # type: ignore[attr-defined]
        if name == "run_recipe" and isinstance(first, ast.Constant):
            return ["finetune", str(first.value)]
        if name == "main" and isinstance(first, ast.List):
            return [str(part.value) for part in first.elts if isinstance(part, ast.Constant)]
    raise AssertionError(f"{script} is no door to a command")


def parse(words: Sequence[str]) -> Command:
    """Parses a command as the command line does, without running it."""
    command, rest = find_command(words)
    module, _, name = command.config.partition(":")
    try:
        parse_config(getattr(importlib.import_module(module), name), rest, "litft", "")
    except HelpRequest:
        assert set(rest) & {"--help", "-h", "--print_config"}
    return command


def parsed(page: Path) -> list[Command]:
    """Parses every command of a page."""
    copies: dict[str, str] = {}
    found = []
    for words in shell_lines(page):
        if words[:2] == ["litft", "copy-recipe"]:
            copies[words[3]] = f"finetune/{words[2]}.py"
        known = command_words(words, copies)
        if known and not known[0].startswith("-"):
            found.append(parse(known))
    return found


@pages
def test_every_command_parses(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # for --config config_hub/...
    commands = parsed(page)
    assert commands or page.name == "ARCHITECTURE.md"


def test_the_pages_show_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = {command.words for page in PAGES for command in parsed(page)}
    left = {command.words for command in COMMANDS} - shown
    assert left <= {("demo",), ("prepare", "dolly")}  # make demo; "alike" to its neighbours


def test_a_command_that_does_not_exist_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for line in ("litft finetune lora --chekpoint_dir a --data_dir b", "litft sing", "python finetune/lora.py --r x"):
        page.write_text(f"```bash\n{line}\n```\n", encoding="utf-8")
        with pytest.raises(ConfigError):
            parsed(page)


def test_every_example_of_the_help_parses() -> None:
    for command in COMMANDS:
        assert parse(shlex.split(command.example)[1:]) == command


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {words[1] for words in shell_lines(page) if words[0] == "make"} | set(re.findall(r"`make ([a-z-]+)`", text))
    assert named <= targets


@pages
def test_relative_links_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pages
def test_python_compiles(page: Path) -> None:
    for block in fences(page, "python"):
        compile(block, str(page), "exec")


@pages
def test_yaml_is_a_config(page: Path, tmp_path: Path) -> None:
    for block in fences(page, "yaml"):
        path = tmp_path / "run.yaml"
        path.write_text(block, encoding="utf-8")
        command = ["prepare", "mix"] if "data_dirs" in load_yaml(path) else ["finetune", "lora"]
        parse([*command, "--config", str(path)])


QUESTIONS = ("What is a kite made of", "Where do the herons sleep", "Who keeps the old mill", "When is the rye ripe")
PLACES = ("in May", "by the lake", "in this village", "on a windy day", "at the mill", "in the north", "after the rain")


def test_the_mix_of_its_page_works(project: Path) -> None:
    """With three small sets that hold one row more for each filter of the page."""
    page, shipped = ROOT / "tutorials" / "mix.md", ROOT / "config_hub" / "data" / "mix.yaml"
    assert fences(page, "yaml")[0] == shipped.read_text(encoding="utf-8")
    taken = {
        "Name the sea.": "As an AI language model, I do not swim.",
        "Tell me of the sea.": "It is wide. Subscribe to our letters for more of the sea.",
        "Und das Meer?": "Das Meer ist weit und tief, und niemand kennt seinen Grund.",
        "How many eggs?": "A hen lays one egg a day and two on each Sunday, so in a week it lays eight.",
    }
    for number, name in enumerate(("lima", "dolly", "alpaca")):
        rows = {
            f"{asked} {where}?": f"{name} says: {asked.split()[-1]}, {where}."
            for asked in QUESTIONS
            for where in PLACES
        }
        rows |= taken if number == 0 else {}
        path = write_csv_rows(Path(f"{name}.csv"), rows)
        words = ["--data_file", str(path), "--destination_path", f"data/{name}", "--checkpoint_dir", "acme/tiny"]
        assert main(["prepare", "csv", *words]) == 0
    Path("benchmarks").mkdir()
    Path("benchmarks/gsm8k.jsonl").write_text(json.dumps({"question": taken["How many eggs?"]}), encoding="utf-8")
    Path("benchmarks/truthful_qa.csv").write_text("Question\nno row says a word of all this here\n", encoding="utf-8")
    assert main(["prepare", "mix", "--config", str(shipped)]) == 0
    reasons = {json.loads(line)["reason"] for line in Path("data/mix/removed.jsonl").read_text().splitlines()}
    assert reasons >= {"quality.refusal", "leave_out.answer", "languages", "benchmarks"}


def write_csv_rows(path: Path, rows: dict[str, str]) -> Path:
    """Writes questions and answers as `litft prepare csv` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("instruction", "output"), *rows.items()])
    return path


def test_the_rules_of_the_page_are_those_of_the_code() -> None:
    page = (ROOT / "tutorials" / "mix.md").read_text(encoding="utf-8")
    section = page.split("| rule |")[1].split("## Scores")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == list(QUALITY_RULES)


@pytest.mark.parametrize("page", [README, ROOT / "tutorials" / "generate.md"], ids=lambda page: page.name)
def test_python_examples_run(page: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(project / "out" / "lora" / "csv", project / "out" / "lora" / "lima")
    names: dict[str, object] = {}
    for example in fences(page, "python"):  # each goes on from those before it
        exec(compile(example, str(page), "exec"), names)  # noqa: S102 - the page's own example
    assert isinstance(names["llm"], LLM)
    assert capsys.readouterr().out


def table(heading: str) -> list[list[str]]:
    """Gives the cells of the table under a heading of the README, its head left out."""
    section = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_models_of_the_readme_are_counted() -> None:
    with (ROOT / "litft" / "config" / "named_models.csv").open(encoding="utf-8") as file:
        counts = Counter(row["family"] for row in csv.DictReader(file))
    rows = table("Models")
    told = {family: int(count) for row in rows for family, count in zip(*map(_listed, row[:2]), strict=True)}
    assert told == counts
    assert counts.keys() == FAMILIES.keys()
    assert f"The {counts.total()} names" in README.read_text(encoding="utf-8")
    for families, _, examples in rows:
        names = [name for name in re.findall(r"[\w.-]+", examples) if re.search(r"\d", name)]
        assert names
        assert {ModelConfig.from_name(name).family for name in names} == set(_listed(families))


def _listed(cell: str) -> list[str]:
    return cell.split(", ")


def test_the_datasets_of_the_readme_are_those_of_the_code() -> None:
    rows = table("Datasets")
    assert {row[0] for row in rows} == SOURCES.keys()
    answers = {"model": "a model", "human": "people", "unknown": ""}
    for name, count, _, by, licence in rows:
        source = SOURCES[name]
        assert by == answers[source.origin]
        if source.rows is not None:
            assert (count, licence) == (f"{source.rows:,}", source.licence)


@pytest.mark.parametrize(("name", "most"), [("README.md", 250), ("ARCHITECTURE.md", 130)])
def test_pages_stay_short(name: str, most: int) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < most


def test_the_prompt_styles_of_the_page_are_those_of_the_code() -> None:
    page = (ROOT / "tutorials" / "prepare.md").read_text(encoding="utf-8")
    section = page.split("## Prompt styles\n")[1].split("\nA checkpoint")[0]
    assert re.findall(r"`([^`]+)`", section) == list(STYLES)
