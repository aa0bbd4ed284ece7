"""`litft demo`: the whole way on the model and data inside the package, through the commands that a user types.

Knows how to call commands and how to score answers; the work is the commands'.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from litft.api import LLM
from litft.checkpoint.disk import require_free, write_json
from litft.config.answer import DemoConfig
from litft.demo.tasks import Row, kind_of, load_rows
from litft.errors import LitftError
from litft.generate.sample import Sampling
from litft.text.conversation import USER, Conversation, Message

Report = Callable[[str], None]
MARK = "demo.json"  # says that a folder is a demo's, so that the next one may replace it
MAX_ANSWER_TOKENS = 24
SHOWN_ANSWERS = 8


def demo(config: DemoConfig, report: Report) -> None:
    """Converts, prepares, finetunes, merges and answers, and scores held-out rows before and after.

    Args:
        config: where everything is written.
        report: told what happens and how well the answers fit.

    Raises:
        ConfigError: out_dir holds something that is no demo's.
        LitftError: one of the commands failed; it has said why.
    """
    started, out_dir = time.perf_counter(), config.out_dir
    shipped = Path(str(resources.files("litft.demo")))
    start_out_dir(out_dir)
    model_dir, data_dir, run_dir = out_dir / "model", out_dir / "data", out_dir / "lora"
    shutil.copytree(shipped / "model", model_dir, copy_function=shutil.copyfile)
    held_out = load_rows("held_out")

    run_command(report, "convert from_hf", checkpoint_dir=model_dir)
    rows_file = shipped / "data" / "train.json"
    run_command(report, "prepare alpaca", checkpoint_dir=model_dir, data_file=rows_file, destination_path=data_dir)
    report(f"\nThe base model answers {len(held_out)} held-out instructions, none of which is in the data:")
    before = answer_rows(model_dir, held_out)
    report(f"{exact_match(held_out, before):.1%} are right.")

    recipe = shipped / "lora.yaml"
    run_command(report, "finetune lora", config=recipe, checkpoint_dir=model_dir, data_dir=data_dir, out_dir=run_dir)
    run_command(report, "merge", checkpoint_dir=run_dir / "final")
    after = answer_rows(run_dir / "merged", held_out)
    report("\n" + comparison(held_out, before, after))
    row = held_out[0]
    asked = {"instruction": row["instruction"], "input": row["input"]}
    run_command(report, "generate", checkpoint_dir=run_dir / "merged", temperature=0, **asked)

    scores = {"before": exact_match(held_out, before), "after": exact_match(held_out, after)}
    seconds = time.perf_counter() - started
    write_json(out_dir / MARK, {"exact_match": scores, "rows": len(held_out), "seconds": seconds})
    report(
        f"\nExact match on {len(held_out)} unseen rows: {scores['before']:.1%} before, {scores['after']:.1%} after; "
        f"{seconds:.0f} s in all.\n"
        f"  {model_dir}  the base model\n  {data_dir}  the prepared rows and their ledger\n"
        f"  {run_dir}  the run: report.html, final/, merged/, and the numbers that the report shows\n"
        f"Next: open {run_dir / 'report.html'} in a browser, or\n"
        f"  litft chat --checkpoint_dir {run_dir / 'final'}\n"
        f"  litft inspect {data_dir} --example 0\n"
        f"  litft prepare csv --checkpoint_dir {model_dir} --data_file YOURS.csv --destination_path data/mine"
    )


def start_out_dir(out_dir: Path) -> None:
    """Makes an empty folder for a demo; a former demo's is replaced.

    Raises:
        ConfigError: it holds something else.
    """
    require_free(out_dir, True, MARK, "")
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / MARK, {})


def run_command(report: Report, words: str, **flags: object) -> None:
    """Shows a command as a user types it, and runs it.

    Raises:
        LitftError: it failed.
    """
    typed = [*words.split(), *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]
    report(f"\n$ litft {shlex.join(typed)}")
    result = subprocess.run([sys.executable, "-m", "litft", *typed], check=False)
    if result.returncode:
        raise LitftError(f"The demo stopped: `litft {shlex.join(typed)}` ended with exit code {result.returncode}.")


def answer_rows(checkpoint_dir: Path, rows: list[Row]) -> list[str]:
    """Gives the likeliest answer to each row, through the prompt style of the checkpoint."""
    llm = LLM.load(checkpoint_dir)
    questions = (Conversation((Message(USER, row["instruction"], row["input"]),)) for row in rows)
    requests = [llm.to_answer(question, MAX_ANSWER_TOKENS, Sampling()) for question in questions]
    return [answer.text.strip() for answer in llm.run(requests)]


def exact_match(rows: list[Row], answers: list[str]) -> float:
    """Gives the share of answers that are the expected text, letter for letter."""
    return sum(row["output"] == answer for row, answer in zip(rows, answers, strict=True)) / len(rows)


def comparison(rows: list[Row], before: list[str], after: list[str]) -> str:
    """Gives exact match by kind of task before and after, and some of the answers."""
    lines = [f"{'task':<12} {'rows':>4} {'before':>7} {'after':>7}"]
    for kind in dict.fromkeys(kind_of(row) for row in rows):
        chosen = [index for index, row in enumerate(rows) if kind_of(row) == kind]
        part = [rows[index] for index in chosen]
        shares = [exact_match(part, [answers[index] for index in chosen]) for answers in (before, after)]
        lines.append(f"{kind:<12} {len(part):>4} {shares[0]:>7.0%} {shares[1]:>7.0%}")
    lines.append("")
    for index in range(0, len(rows), max(len(rows) // SHOWN_ANSWERS, 1)):
        row, quoted = rows[index], [json.dumps(answers[index][:40], ensure_ascii=False) for answers in (before, after)]
        lines.append(f"{row['instruction']} {row['input']}\n    before {quoted[0]}   after {quoted[1]}")
    return "\n".join(lines)
