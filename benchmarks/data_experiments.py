"""What a mixture, an order, epochs and filters change: small LoRA runs on the demo's model and rows.

    python benchmarks/data_experiments.py --out benchmarks/results/data_experiments.json
    python benchmarks/data_experiments.py --table benchmarks/results/data_experiments.json

The model has 1.06 M parameters and has read plain text. Its rows are of two sorts: facts (opposites, plurals, capitals)
and lists (first, last, reverse, sums). Every run is asked the same 176 held-out instructions. Each seed draws the rows,
their order and the first weights anew. Prints JSON; `--table` prints the tables of tutorials/data_experiments.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import statistics
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from prepare import machine

Row = dict[str, str]
SHARES = (0, 25, 50, 75, 100)
ORDERS = ("shuffled", "length", "source")
EPOCHS = ((600, 1), (600, 2), (600, 4), (1200, 1), (300, 4))
ROWS, SPOILT = 600, 0.4
BROKEN = ("As an AI language model, I cannot answer this.", "N/A", "{input}", "{output},")  # one for each rule
RULES = ["--filters.quality", "echo,empty,refusal,unfinished"]
KEPT = 0.8  # of the rows that the rules leave, those with the lowest loss
HEADS = {
    "mixture": "facts among 600 rows",
    "order": "order of all 1,493 rows, one epoch",
    "epochs": "rows x epochs",
    "filters": "what was trained on",
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each line")
    parser.add_argument("--only", nargs="+", choices=HEADS, default=list(HEADS), help="some of the experiments")
    parser.add_argument("--tiny", action="store_true", help="a tenth of the rows: does it work?")
    parser.add_argument("--table", type=Path, help="print the tables of this result instead")
    parser.add_argument("--out", type=Path, help="a file for the result; other experiments in it stay")
    given = parser.parse_args()
    if given.table:
        print(tables(json.loads(given.table.read_text(encoding="utf-8"))))
        return
    known = json.loads(given.out.read_text(encoding="utf-8")) if given.out and given.out.exists() else {}
    result = {**known, "machine": machine(), "seeds": given.seeds, **measure(given.only, given.seeds, given.tiny)}
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


def measure(names: list[str], seeds: int, tiny: bool) -> dict[str, Any]:
    """Gives of each experiment its lines, with all runs and their mean."""
    found: dict[str, Any] = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            lab = Lab(10 if tiny else 1)
            for name in names:
                started = time.process_time()
                runs = [getattr(lab, name)(seed) for seed in range(1, seeds + 1)]
                lines = {line: summarize([run[line] for run in runs]) for line in runs[0]}
                found[name] = {"cpu_seconds": round(time.process_time() - started), "lines": lines}
        finally:
            os.chdir(before)
    return found


class Lab:
    """The folder in which the experiments are made: the demo's model, its rows, and the runs.

    Attributes:
        part: one row of so many is used.
    """

    def __init__(self, part: int) -> None:
        from litft.demo.draw import FACT_KINDS
        from litft.demo.tasks import kind_of, load_rows

        self.part, self.kind_of, self.facts = part, kind_of, FACT_KINDS
        self.rows, self.held_out = load_rows("train"), load_rows("held_out")
        shutil.copytree(str(files("litft.demo") / "model"), "model")
        litft("convert", "from_hf", checkpoint_dir="model")
        self.prepare("held", self.held_out, test_split_fraction=0)
        self.prepare("facts", [row for row in self.rows if self.is_fact(row)])
        self.prepare("lists", [row for row in self.rows if not self.is_fact(row)])
        self.prepare("all", self.rows)

    def mixture(self, seed: int) -> dict[str, dict[str, float]]:
        """So many rows in all, of two sorts in several shares; two epochs."""
        found = {}
        for share in SHARES:
            folders = {"facts": share, "lists": 100 - share}
            self.mix({name: weight for name, weight in folders.items() if weight}, seed, ROWS)
            found[f"{share}%"] = self.run(seed, 2)
        return found

    def order(self, seed: int) -> dict[str, dict[str, float]]:
        """All rows once, in several orders."""
        found = {}
        for order in ORDERS:
            litft("prepare", "mix", data_dirs="facts,lists", destination_path="mix", order=order, seed=seed)
            found[order] = self.run(seed, 1, shuffle=False)
        return found

    def epochs(self, seed: int) -> dict[str, dict[str, float]]:
        """Few rows often, or many rows once."""
        found = {}
        for rows, epochs in EPOCHS:
            self.mix({"all": 1}, seed, rows)
            found[f"{rows:,} x {epochs}"] = self.run(seed, epochs)
        return found

    def filters(self, seed: int) -> dict[str, dict[str, float]]:
        """Rows of which 40% were spoilt: as they are, by rules, by rules and a score, and without those."""
        chance = random.Random(seed)
        rows = chance.sample(self.rows, 2 * ROWS // self.part)
        clean, bad = rows[: round(len(rows) * (1 - SPOILT))], rows[round(len(rows) * (1 - SPOILT)) :]
        spoilt = [self.spoil(row, number, chance) for number, row in enumerate(bad)]
        self.prepare("dirty", chance.sample(clean + spoilt, len(rows)))
        self.prepare("clean", clean)
        wrong = {(row["input"], row["output"]) for row in spoilt}

        found = {}
        for line, words in {"all of it": ("dirty", []), "the rules": ("dirty", RULES)}.items():
            litft(
                "prepare",
                "mix",
                *words[1],
                data_dirs=words[0],
                checkpoint_dir="model",
                destination_path="mix",
                seed=seed,
            )
            found[line] = {**self.run(seed, 2), **self.count("mix", wrong)}
        shutil.move("mix", "by_rules")
        litft("curate", "score", data_dir="by_rules", checkpoint_dir="run/final", destination_path="scored", by="loss")
        keep = ["--filters.keep", str(KEPT), "--filters.keep_by", "lowest_score", "--filters.keep_of", "all"]
        litft("prepare", "mix", *keep, data_dirs="scored", destination_path="mix", seed=seed)
        found["the rules, then the score"] = {**self.run(seed, 2), **self.count("mix", wrong)}
        for folder in ("by_rules", "scored"):
            shutil.rmtree(folder)
        litft("prepare", "mix", data_dirs="clean", destination_path="mix", seed=seed)
        found["none of the spoilt"] = {**self.run(seed, 2), **self.count("mix", wrong)}
        return found

    def is_fact(self, row: Row) -> bool:
        """Tells a row of facts from one of lists and numbers."""
        return self.kind_of(row) in self.facts

    def spoil(self, row: Row, number: int, chance: random.Random) -> Row:
        """Gives a row with an answer that breaks a rule, or, of every second row, of another row of its kind."""
        if number % 2:
            return {**row, "output": BROKEN[number // 2 % len(BROKEN)].format(**row)}
        others = [other["output"] for other in self.rows if self.kind_of(other) == self.kind_of(row)]
        return {**row, "output": chance.choice([output for output in others if output != row["output"]])}

    def prepare(self, name: str, rows: list[Row], test_split_fraction: float = 0.02) -> None:
        """Encodes rows into a folder; a few are held out, as a run wants some."""
        Path(f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        words = {"data_file": f"{name}.json", "destination_path": name, "test_split_fraction": test_split_fraction}
        litft("prepare", "alpaca", checkpoint_dir="model", max_seq_length=256, **words)

    def mix(self, weights: dict[str, int], seed: int, total: int) -> None:
        """Draws rows of folders in shares."""
        told = ",".join(f"{name}={weight}" for name, weight in weights.items())
        words = {"weights": told, "total": total // self.part, "seed": seed}
        litft("prepare", "mix", data_dirs=",".join(weights), destination_path="mix", **words)

    def run(self, seed: int, epochs: int, shuffle: bool = True) -> dict[str, float]:
        """Trains on the mix with the demo's settings, and asks the held-out instructions."""
        config = str(files("litft.demo") / "lora.yaml")
        words = {"train.epochs": epochs, "train.shuffle": shuffle, "seed": seed, "eval.interval": 10**6}
        litft("finetune", "lora", config=config, checkpoint_dir="model", data_dir="mix", out_dir="run", **words)
        return self.ask()

    def ask(self) -> dict[str, float]:
        """Gives exact match and loss on the held-out instructions."""
        from litft.demo.run import answer_rows

        answers = answer_rows(Path("run/final"), self.held_out)
        right = [row["output"] == answer for row, answer in zip(self.held_out, answers, strict=True)]
        facts = [is_right for is_right, row in zip(right, self.held_out, strict=True) if self.is_fact(row)]
        lists = [is_right for is_right, row in zip(right, self.held_out, strict=True) if not self.is_fact(row)]
        litft(
            "evaluate", checkpoint_dir="run/final", data_dir="held", split="train", out_dir="told", micro_batch_size=16
        )
        (told,) = json.loads(Path("told/held-train.json").read_text(encoding="utf-8"))["models"]
        sorts = {"exact_match": right, "exact_match_facts": facts, "exact_match_lists": lists}
        return {**{name: 100 * statistics.mean(of) for name, of in sorts.items()}, "loss": told["loss"]}

    def count(self, folder: str, wrong: set[tuple[str, str]]) -> dict[str, float]:
        """Counts the training rows of a folder, and those of them that were spoilt."""
        from litft.data.store import PreparedData
        from litft.text.tokenizer import Tokenizer

        tokenizer, data = Tokenizer(Path("model")), PreparedData.load(Path(folder) / "train.pt")
        texts = [tokenizer.decode(data.row(index)[0][1:-1].tolist()) for index in range(len(data))]  # no BOS, no EOS
        pairs = [re.findall(r"### Input:\n(.*)\n\n### Response: *(.*)", text)[0] for text in texts]
        spoilt = sum(pair in wrong for pair in pairs)
        return {"rows": len(texts), "spoilt": spoilt}


def litft(*words: str, **flags: Any) -> None:
    """Runs a command without what it says.

    Raises:
        RuntimeError: it failed, with what it said.
    """
    from litft.cli import main as run_litft

    typed = [
        *words,
        *(f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in flags.items()),
    ]
    for name in {"destination_path", "out_dir"} & flags.keys():
        shutil.rmtree(flags[name], ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_litft(typed)
    if code:
        raise RuntimeError(f"litft {' '.join(typed)}: {said.getvalue()}")


def summarize(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Gives of each number its mean and its values over the seeds."""
    names = runs[0]
    return {
        name: {
            "mean": round(statistics.mean(run[name] for run in runs), 4),
            "runs": [round(run[name], 4) for run in runs],
        }
        for name in names
    }


def tables(result: dict[str, Any]) -> str:
    """Gives the tables of the page."""
    texts = []
    for name, head in HEADS.items():
        lines = result[name]["lines"]
        counted = "rows" in next(iter(lines.values()))
        extra = ["rows", "of them spoilt"] if counted else []
        columns = [head, *extra, "right", "facts", "lists", "held-out loss"]
        table = [columns, ["---", *["---:"] * (len(columns) - 1)]]
        for line, found in lines.items():
            numbers = [f"{found['rows']['mean']:.0f}", f"{found['spoilt']['mean']:.0f}"] if counted else []
            exact = [spread(found[key], 0, "%") for key in ("exact_match", "exact_match_facts", "exact_match_lists")]
            table.append([line, *numbers, *exact, spread(found["loss"], 2)])
        texts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    return "\n\n".join(texts)


def spread(found: dict[str, Any], digits: int, unit: str = "") -> str:
    """Writes a mean with the lowest and the highest run."""
    low, high = min(found["runs"]), max(found["runs"])
    return f"{found['mean']:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
