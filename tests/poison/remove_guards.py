"""Shows that each guard's test fails without the guard: `python tests/poison/remove_guards.py [PART OF A NAME]`.

The checkout is copied to a temporary folder. There all tests pass first; then one guard at a time is taken away and its
test must fail, or come to no end. The table goes to benchmarks/results/poison.md.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import transformers
from guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
COPIED = ("litft", "finetune", "scripts", "tests", "config_hub", "pyproject.toml")
RESULT = ROOT / "benchmarks" / "results" / "poison.md"
SECONDS = 20  # after which a test without its guard counts as one that never ends
MEMORY = 7 * 2**30  # bytes of addresses: without a guard some would take all that there is
WORKERS = 3
# What the tests import beside litft, once for all of them.
IMPORTED = (
    "sentencepiece",
    "tokenizers",
    "pyarrow.parquet",
    "jsonargparse",
    "huggingface_hub",
    "lightning_fabric",
    "fastapi",
)
OPTIONS = ("-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
HEAD = """# Guards, and what happens without them

`python tests/poison/remove_guards.py` takes away one guard at a time, in a copy of the checkout, and runs the test that
is to hold it. With its guard each test passes; without it, it must not.

{count} guards, {fallen} tests that fail without theirs; {date}, {machine}, Python {python}.

| guard | where | test | with | without |
|---|---|---|---|---|
"""


def run(copy: Path, tests: list[str], seconds: float = 600) -> tuple[str, float]:
    """Runs tests on the copy; gives what became of them, and the seconds."""
    started = time.monotonic()
    child = os.fork()  # with the large libraries imported, which takes longer than most of these tests
    if not child:
        try:
            in_child(copy, tests)
        finally:
            os._exit(0)  # whatever happened: the folder is the parent's to remove
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() - started > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "never ends", time.monotonic() - started
        time.sleep(0.05)
    return (copy / "told").read_text(encoding="utf-8") or "ends the process", time.monotonic() - started


def in_child(copy: Path, tests: list[str]) -> None:
    """Runs the tests and writes down what became of them; not even that where the process ends."""
    (copy / "told").write_text("", encoding="utf-8")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with (copy / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        code = int(pytest.main([*OPTIONS, *(f"tests/{test}" for test in tests)]))
    assert str(sys.modules["litft"].__file__).startswith(str(copy))
    # Other codes: nothing was run, as a name of a test is wrong.
    (copy / "told").write_text({0: "passes", 1: "fails"}.get(code, f"was not run ({code})"), encoding="utf-8")


def without(copy: Path, guard: Guard) -> tuple[str, float]:
    """Takes a guard away, runs its test, and puts it back."""
    path = copy / guard.file
    source = path.read_text(encoding="utf-8")
    assert source.count(guard.text) == 1, f"{guard.name}: {guard.file} has {source.count(guard.text)} of {guard.text}"
    try:
        path.write_text(source.replace(guard.text, guard.without), encoding="utf-8")
        return run(copy, [guard.test], SECONDS)
    finally:
        path.write_text(source, encoding="utf-8")


def copied(folder: Path) -> Path:
    """Copies the checkout, for this process alone."""
    copy = folder / f"copy-{os.getpid()}"
    if not copy.exists():
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy / name)
    return copy


def tried(folder: Path, guard: Guard) -> str:
    """Takes one guard away, and says what became of its test."""
    told, seconds = without(copied(folder), guard)
    print(f"{guard.name:40} {told:30} {seconds:3.0f} s  {guard.test}", flush=True)
    return told


def main() -> int:
    """Takes all guards away, or those of a name; gives how many of their tests did not mind."""
    os.environ |= {"OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    assert transformers.LlamaForCausalLM
    chosen = [guard for guard in GUARDS if not sys.argv[1:] or sys.argv[1] in guard.name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        told, seconds = run(copied(folder), sorted({guard.test for guard in chosen}))
        print(f"all tests with their guards: {told}, {seconds:.0f} s", flush=True)
        assert told == "passes", (copied(folder) / "output").read_text(encoding="utf-8")[-3000:]
        with ProcessPoolExecutor(WORKERS, get_context("fork")) as pool:
            rows = list(zip(chosen, pool.map(partial(tried, folder), chosen), strict=True))
    held = [guard.name for guard, told in rows if told == "passes" or told.startswith("was not run")]
    if not sys.argv[1:]:
        write(rows, len(rows) - len(held))
    print(f"{len(rows) - len(held)} of {len(rows)} tests fail without their guard", *held, sep="\n")
    return len(held)


def write(rows: list[tuple[Guard, str]], fallen: int) -> None:
    """Writes the table."""
    lines = [
        f"| {guard.name} | `{guard.file}` | `{guard.test.replace('|', chr(92) + '|')}` | passes | {told} |"
        for guard, told in rows
    ]
    head = HEAD.format(
        count=len(rows),
        fallen=fallen,
        date=datetime.date.today(),
        machine=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )
    RESULT.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
