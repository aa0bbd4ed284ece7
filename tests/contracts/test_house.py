"""The sizes and habits that keep the code readable, measured on its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "litft").rglob("*.py"))
RECIPES = sorted((ROOT / "finetune").glob("*.py"))
MAKERS = [*(ROOT / "config_hub").glob("*.py"), *(ROOT / "tutorials").rglob("*.py")]
FILES = [*LIBRARY, *RECIPES, *sorted((ROOT / "scripts").glob("*.py")), *sorted(MAKERS)]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

LONGEST_FUNCTION, LONGEST_FILE, LONGEST_LOOP, LONGEST_RECIPE, MOST_CHOICES = 60, 399, 249, 129, 8
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def public(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Gives every public class, function and method with its dotted name; not what stands inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{prefix}{node.name}.")


def test_the_walk_finds_the_house() -> None:
    assert len(LIBRARY) > 40 and len(RECIPES) >= 5
    assert {"fit", "train_step"} <= {name for name, _ in public(parse(ROOT / "litft" / "train" / "loop.py"))}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_and_files_are_short(path: Path) -> None:
    assert lines_of(path) <= LONGEST_FILE
    for node in ast.walk(parse(path)):
        if isinstance(node, FUNCTIONS):
            assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, node.name


def test_the_loop_and_the_recipes_are_shorter() -> None:
    assert lines_of(ROOT / "litft" / "train" / "loop.py") <= LONGEST_LOOP
    for path in RECIPES:
        assert lines_of(path) <= LONGEST_RECIPE, path.name


def test_the_model_chooses_its_variants_from_tables() -> None:
    text = (ROOT / "litft" / "model" / "gpt.py").read_text(encoding="utf-8")
    assert text.count("if config.") + text.count("if self.config.") <= MOST_CHOICES


@pytest.mark.parametrize("path", [*LIBRARY, *RECIPES], ids=name_of)
def test_everything_public_says_what_it_gives(path: Path) -> None:
    tree = parse(path)
    bare = [name for name, node in public(tree) if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert ast.get_docstring(tree) and not bare, bare


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_say_something(path: Path) -> None:
    assert not VAGUE & {part.lower() for part in path.relative_to(ROOT).with_suffix("").parts}


@pytest.mark.parametrize("path", [*LIBRARY, *RECIPES], ids=name_of)
def test_the_library_neither_prints_nor_exits_nor_hides_errors(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            is_blind = caught in ("everything", "Exception", "BaseException")
            assert not is_blind or isinstance(node.body[-1], ast.Raise), f"line {node.lineno} swallows {caught}"
        if isinstance(node, ast.Name) and path.name not in ("cli.py", "__main__.py"):
            assert node.id not in ("print", "SystemExit"), f"line {node.lineno} uses {node.id}"
        if isinstance(node, ast.Attribute) and path.name not in ("cli.py", "__main__.py"):
            assert ast.unparse(node) not in ("sys.exit", "os._exit"), f"line {node.lineno}"
