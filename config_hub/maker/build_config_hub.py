"""Writes `config_hub/finetune`, a folder a model, and the tables of what each file needs.

    python config_hub/maker/build_config_hub.py --forecast   # asks litft's plan for what has no number yet: hours
    python config_hub/maker/build_config_hub.py              # writes files and tables from these numbers: seconds

`config_hub/finetune/debug` is written by hand.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

import torch
from config_hub_texts import BASES, DATA, EVAL, METHODS, OWN, PAGE, PRECISION, QLORA, SETTINGS, Base
from torch import Tensor
from tqdm import tqdm

from litft.config.model import ModelConfig
from litft.config.parse import parse_config
from litft.config.plan import build_plan
from litft.config.run import AdapterRun, FullRun, LoRARun, RunConfig
from litft.data.batches import build_batching
from litft.data.store import PreparedData
from litft.methods.adapter import Adapter
from litft.methods.base import Full, Method
from litft.methods.lora import LoRA
from litft.train.counting import count_batches
from litft.train.forecast import forecast_memory
from litft.train.loss import cross_entropy
from litft.train.state import Inputs
from litft.train.stochastic import SLICE

ROOT = Path(__file__).parents[2]
HUB = ROOT / "config_hub" / "finetune"
NUMBERS = HUB / "memory.csv"
TABLE = ROOT / "config_hub" / "README.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- table: config_hub/maker/build_config_hub.py -->", "<!-- end of table -->"
IN_README = ("pythia-160m", "tiny-llama-1.1b", "llama-2-7b", "qwen3-8b", "phi-4", "mixtral-8x7b")
CARDS = (24, 40, 80, 141)  # GB
USED = 0.9  # of a card that a forecast may fill: an allocator cannot use all of it
LONGEST = 2048  # tokens of a row
KINDS: dict[str, type[RunConfig]] = {"full": FullRun, "lora": LoRARun, "qlora": LoRARun, "adapter": AdapterRun}
# Flags with which a run may fit where it does not without; each of no effect on the result, or hardly any.
SMALLER = {
    "full": ("", "--optim.name adamw8bit", "--optim.name adamw8bit --train.checkpoint block"),
    "lora": ("", "--train.checkpoint block"),
    "qlora": ("", "--train.checkpoint block"),
    "adapter": ("", "--train.checkpoint block"),
}


@dataclass(frozen=True)
class Fit:
    """How a run fits a card: the flags that it needs, rows at once, and bytes."""

    flags: str
    rows: int
    n_bytes: float


def main() -> None:
    """Does what the flags say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forecast", action="store_true", help="ask the plan for the numbers that are missing")
    parser.add_argument("--only", default="", help="a regular expression: of files such as llama-2-7b/lora")
    args = parser.parse_args()
    if args.forecast:
        forecast_missing(args.only)
        return
    for path, text in hub_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    TABLE.write_text(table_page(), encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table(IN_README)}{END}{rest.partition(END)[2]}", encoding="utf-8")


def hub_files() -> dict[Path, str]:
    """Gives every file of the hub with its text."""
    return {
        HUB / base.folder / f"{kind}.yaml": text
        for base in BASES
        for kind in KINDS
        if (text := render(base, kind)) is not None
    }


def render(base: Base, kind: str) -> str | None:
    """Gives one file; None where no card has room for the run."""
    fits = {card: fit(base, kind, card) for card in CARDS}
    smallest = next((found for found in fits.values() if found and not found.flags), None)
    smallest = smallest or next((found for found in fits.values() if found), None)
    if smallest is None:
        return None
    places = (
        f"checkpoint_dir: checkpoints/{repo(base)}\ndata_dir: data/{base.data}\nout_dir: out/{kind}/{base.folder}\n"
    )
    return f"{header(base, kind, fits)}\n{places}{aligned(settings(base, kind, smallest.flags, smallest.rows))}"


def settings(base: Base, kind: str, flags: str, rows: int) -> str:
    """Gives what a file sets, each line with its reason."""
    model = ModelConfig.from_name(base.name)
    block = "\n  checkpoint: block  # compute activations twice rather than keep them"
    micro = f"  micro_batch_size: {rows}  # rows at once; see memory above. The gradient is the same"
    sections = SETTINGS[kind, base.data].format(
        micro=micro + (block if "checkpoint block" in flags else ""),
        longest=f"  max_seq_length: {longest(base)}  # tokens; longer rows are left out ({reach(model)})",
        optim="  name: adamw8bit  # both moments in 8 bits, or no card here had room\n" if "adamw8bit" in flags else "",
        **QLORA[base.large],
    )
    quantize = "quantize: bnb.nf4-dq  # the frozen weights in 4 bits, their scales in 8\n" if kind == "qlora" else ""
    own = OWN[kind].format(last=model.n_layer - 1, layers=model.n_layer, **QLORA[base.large])
    return f"precision: bf16-true  # {PRECISION[kind]}\n{quantize}\n{sections}{EVAL[base.data]}{own}"


def header(base: Base, kind: str, fits: dict[int, Fit | None]) -> str:
    """Gives the comments at the top: what it is, what to type before, what it needs."""
    command = "lora" if kind == "qlora" else kind
    path = f"config_hub/finetune/{base.folder}/{kind}.yaml"
    lines = [
        f"{METHODS[kind]} {base.title} with {DATA[base.data]}.",
        "before:",
        f"  litft download --repo_id {repo(base)}",
        f"  litft prepare {base.data} --checkpoint_dir {repo(base)}",
        "run:",
        f"  litft finetune {command} --config {path}",
    ]
    if kind == "adapter":
        lines.append(f"  litft finetune adapter_v2 --config {path} --out_dir out/adapter_v2/{base.folder}")
    if gated := [what for what in ("the data" if base.data == "lima" else "", base.gated) if what]:
        lines.append(f"Gated: {' and '.join(gated)}. Accept the licence on the page of the hub and set HF_TOKEN.")
    lines.append(f"memory, by litft plan, not measured; rows of {longest(base):,} tokens, packed:")
    lines += [f"  {card} GB card: {told(found)}" for card, found in fits.items()]
    return "".join(f"# {line}\n" for line in [*lines, "time: not measured", "loss: not measured"])


def told(found: Fit | None) -> str:
    """Says how a run fits."""
    if found is None:
        return "does not fit"
    rows = f"--train.micro_batch_size {found.rows}"
    return f"{' '.join(filter(None, (found.flags, rows)))} takes {found.n_bytes / 1e9:.1f} GB"


def aligned(text: str) -> str:
    """Puts the comments of all lines below each other."""
    parts = [line.partition("  # ") for line in text.splitlines()]
    width = max(len(setting) for setting, mark, _ in parts if mark)
    return "".join(f"{setting.ljust(width) if mark else setting}{mark}{why}\n" for setting, mark, why in parts)


def reach(model: ModelConfig) -> str:
    """Says how much a model reads."""
    return "all that the model reads" if model.block_size <= LONGEST else f"the model reads {model.block_size:,}"


def longest(base: Base) -> int:
    """Gives the tokens of the longest row."""
    return min(LONGEST, ModelConfig.from_name(base.name).block_size)


@cache
def repo(base: Base) -> str:
    """Gives ORG/NAME."""
    with (ROOT / "litft" / "config" / "named_models.csv").open(encoding="utf-8") as file:
        return next(row["repo_id"] for row in csv.DictReader(file) if row["name"] == base.name)


def fit(base: Base, kind: str, card: int) -> Fit | None:
    """Gives how a run fits a card: with the fewest flags, and then as many rows as it has room for."""
    known = numbers()
    most = int(re.search(r"global_batch_size: (\d+)", SETTINGS[kind, base.data]).group(1))  # type: ignore[union-attr]
    for flags in SMALLER[kind]:
        if (base.folder, kind, flags, 1) not in known:
            continue
        one, two = (known[base.folder, kind, flags, rows] for rows in (1, 2))
        sizes = [rows for rows in (16, 8, 4, 2, 1) if most % rows == 0]
        needed = {rows: one + (rows - 1) * (two - one) for rows in sizes}  # a row takes what the one before took
        if fitting := [rows for rows in sizes if needed[rows] <= USED * card * 1e9]:
            return Fit(flags, fitting[0], needed[fitting[0]])
    return None


def table_page() -> str:
    """Gives the page of the hub."""
    every = table(tuple(base.folder for base in BASES))
    return f"{PAGE}\n{every}"


def table(folders: tuple[str, ...]) -> str:
    """Gives the table of these models."""
    lines = [f"| model | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    for base in BASES:
        if base.folder in folders:
            cells = [cell(base, kind) for kind in KINDS]
            lines.append(f"| {base.title} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def cell(base: Base, kind: str) -> str:
    """Gives the smallest card, and what one row at once takes there."""
    for card in CARDS:
        if found := fit(base, kind, card):
            size = numbers()[base.folder, kind, found.flags, 1]
            mark = {"": "", SMALLER["full"][1]: " (8-bit AdamW)"}.get(found.flags, " (checkpointed)")
            return f"{card} GB: {size / 1e9:.1f}{mark}"
    return "-"


@cache
def numbers() -> dict[tuple[str, str, str, int], int]:
    """Gives the bytes that are known, by folder, kind, flags and rows at once."""
    if not NUMBERS.exists():
        return {}
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["model"], row["kind"], row["flags"], int(row["rows"])): int(row["bytes"]) for row in rows}


def forecast_missing(only: str) -> None:
    """Asks the plan for what has no number yet, and writes each as it comes."""
    todo = [(base, kind) for base in BASES for kind in KINDS if re.search(only, f"{base.folder}/{kind}")]
    for base, kind in tqdm(todo, unit="file", smoothing=0):
        for flags, rows in wanted(base, kind):
            if (base.folder, kind, flags, rows) not in numbers():
                write_number(base.folder, kind, flags, rows, forecast(base, kind, flags, rows))


def wanted(base: Base, kind: str) -> Iterator[tuple[str, int]]:
    """Gives what is to be known: flags that save memory only where one row does not fit every card without them."""
    for flags in SMALLER[kind]:
        yield from ((flags, rows) for rows in (1, 2))
        if numbers()[base.folder, kind, flags, 1] <= USED * CARDS[0] * 1e9:
            return


def write_number(*row: Any) -> None:
    """Adds a line, keeping the order of the table; another process may have added some."""
    numbers.cache_clear()
    known = numbers() | {row[:4]: row[4]}
    order = [base.folder for base in BASES]
    lines = sorted(known.items(), key=lambda item: (order.index(item[0][0]), list(KINDS).index(item[0][1]), item[0]))
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("model", "kind", "flags", "rows", "bytes"))
        writer.writerows((*key, value) for key, value in lines)
    numbers.cache_clear()


def forecast(base: Base, kind: str, flags: str, rows: int) -> int:
    """Gives the bytes at the peak of a run whose rows are all as long as may be."""
    config = run_of(base, kind, flags, rows)
    methods: dict[str, Any] = {"adapter": lambda: Adapter(config.adapter), "full": Full}
    method: Method = methods.get(kind, lambda: LoRA(config.lora))()
    train, test = rows_of(longest(base), 2 * rows), rows_of(longest(base), 4)
    inputs = Inputs(
        config=config,
        checkpoint_dir=ROOT,
        method=method,
        data_dir=ROOT,
        tokenizer_dir=ROOT,
        model_config=ModelConfig.from_name(base.name),
        out_dir=ROOT,
        tokenizer=None,  # type: ignore[arg-type]  # nothing is written in words
        train=train,
        test=test,
        train_rows=torch.arange(len(train)),
        test_rows=torch.arange(len(test)),
        batching=build_batching(config.train, train, longest(base)),
        hashes={},
        parameters=0,
        trainable_parameters=0,
        resume_from=None,
        report=print,
    )
    plan = build_plan(len(train), config.train, config.optim, config.eval)
    with patch.dict(SLICE, clear=True):  # slices as on a GPU
        parts = forecast_memory(inputs, plan, token_loss, count_batches(inputs, plan))
    return sum(size for name, size in parts.items() if name != "checkpoint copy")  # which a GPU's run has elsewhere


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The recipes' own."""
    return cross_entropy(logits, targets)


def run_of(base: Base, kind: str, flags: str, rows: int) -> Any:
    """Gives the run that a file of the hub describes."""
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(f"checkpoint_dir: base\ndata_dir: data\n{settings(base, kind, flags, rows)}")
        file.flush()
        return parse_config(KINDS[kind], ["--config", file.name], "litft", "")


def rows_of(length: int, count: int) -> PreparedData:
    """Gives rows of one length, of which seven eighths are targets."""
    ids = torch.arange(length * count, dtype=torch.int32) % 97
    mask = torch.arange(length).repeat(count) >= length // 8
    offsets, source = torch.arange(0, length * count + 1, length), torch.zeros(count, dtype=torch.int16)
    return PreparedData(ROOT, ids, mask, offsets, source, {"max_seq_length": length})


if __name__ == "__main__":
    main()
