"""`make demo-model`: makes the shipped base model and data again, through the commands that a user types.

A model made anew knows the same as the shipped one; its weights may differ in their last digits between machines.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from litft.checkpoint.disk import atomic_path
from litft.demo.build import SEED, write_model_folder, write_rows
from litft.demo.corpus import iter_documents
from litft.demo.run import run_command

WORK_DIR = Path("out/demo-model")


def make_model(report: Callable[[str], None]) -> None:
    """Writes the dataset, trains the tokenizer and the base model, and puts them into the package.

    Args:
        report: told each command and how it went.

    Raises:
        LitftError: one of the commands failed; it has said why.
    """
    shipped = Path(str(resources.files("litft.demo")))
    model_dir, data_dir, run_dir, hf_dir = (WORK_DIR / name for name in ("model", "data", "full", "hf"))
    shutil.rmtree(WORK_DIR, ignore_errors=True)
    write_rows(shipped / "data")
    write_model_folder(model_dir)
    documents = WORK_DIR / "documents.jsonl"
    with atomic_path(documents) as path:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in iter_documents(SEED)), encoding="utf-8")
    plain = {"prompt_style": "plain", "train_on": "all", "test_split_fraction": 0.01}
    rows = {"checkpoint_dir": model_dir, "data_file": documents, "destination_path": data_dir}
    run_command(report, "prepare text", **rows, **plain)
    folders = {"checkpoint_dir": model_dir, "data_dir": data_dir, "out_dir": run_dir}
    run_command(report, "finetune full", config=shipped / "base.yaml", init="random", **folders)
    (run_dir / "final" / "prompt_style.yaml").unlink()  # plain text is how it was taught, not how it is to be asked
    run_command(report, "export hf", checkpoint_dir=run_dir / "final", out_dir=hf_dir)
    (hf_dir / "export_report.json").unlink()
    shutil.rmtree(shipped / "model", ignore_errors=True)
    shutil.copytree(hf_dir, shipped / "model")
    report(f"{shipped / 'model'} and {shipped / 'data'} are new.")
