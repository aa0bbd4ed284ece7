"""`--logger wandb`: Weights & Biases, online or offline as WANDB_MODE and `wandb login` say.

As in the W&B course on instruction tuning: the run names the data that it used and the checkpoint that came of it. The
rows themselves stay here; their manifest and hashes are sent. Its own variables choose the rest, such as WANDB_PROJECT.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE
from litft.report.write import REPORT_FILE
from litft.train.log_csv import SAMPLES_FILE
from litft.train.loggers import Logger, Metrics, Start

PROJECT = "litft"  # where WANDB_PROJECT names no other
LONGEST_NAME = 128  # Source: wandb 0.31, `validate_artifact_name`
COLUMNS = ("step", "row", "prompt", "answer", "expected")


class WandbLogger(Logger):
    """Metrics, a table of samples at each validation and of all at the end, data and checkpoint as artifacts."""

    # A ValueError is what it makes of an answer that it does not understand, or of an artifact of another type.
    errors = (wandb.errors.Error, OSError, ValueError)

    def __init__(self, start: Start) -> None:
        """Begins the run, or goes on with the one of this folder; its files lie in `logs/wandb`.

        Args:
            start: of the run.
        """
        known = start.known_id("wandb")
        own = known or uuid.uuid4().hex[:8]
        (start.out_dir / "logs").mkdir(parents=True, exist_ok=True)
        self._start = start
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", str(start.out_dir)),
            dir=os.environ.get("WANDB_DIR", str(start.out_dir / "logs")),
            config={**start.settings, "sha256": dict(start.hashes)},
            id=own,
            resume="allow" if known else None,
            reinit="create_new",  # whatever else this process, such as a notebook, tells W&B
        )
        start.keep_id("wandb", own)
        # Steps that were told before are not told again; W&B itself would drop them, each with a warning.
        self._from = 0 if known is None else start.last_step + 1 if self._run.offline else self._run.starting_step
        if known is None:
            self._use_data()

    def log(self, metrics: Metrics) -> None:
        """Logs the numbers at their step."""
        self._log(metrics.step, metrics.numbers())

    def log_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Logs the answers of one validation as a table."""
        if samples:
            self._log(samples[0]["step"], {"samples": _table(samples)})

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Raises an alert, which W&B mails to who asked it to."""
        if spike["step"] >= self._from:
            text = f"step {spike['step']}: training loss {spike['loss']:.4f}, median {spike['median']:.4f}"
            self._run.alert(title="The training loss jumped", text=text)

    def close(self, final: Path | None, summary: Mapping[str, Any]) -> None:
        """Logs the summary, all samples and the checkpoint, and ends the run."""
        if final is not None:
            self._run.summary.update(dict(summary))
            lines = (self._start.out_dir / SAMPLES_FILE).read_text(encoding="utf-8").splitlines()
            self._run.log({"all_samples": _table([json.loads(line) for line in lines])})
            report = self._start.out_dir / REPORT_FILE
            if report.exists():
                self._run.log({"report": wandb.Html(str(report), inject=False)})
            if self._start.sends(final):
                artifact = wandb.Artifact(_safe(str(final)), type="model", metadata=dict(summary))
                artifact.add_dir(str(final), policy="immutable")  # no copy first
                self._run.log_artifact(artifact, aliases=["latest", "final"])
        self._run.finish(exit_code=0 if final is not None else 1)

    def _log(self, step: int, values: dict[str, Any]) -> None:
        """Logs what was not told before this run was taken up again."""
        if step >= self._from:
            self._run.log(values, step=step)

    def _use_data(self) -> None:
        """Names the data of the run; the same data is the same version, in whatever run."""
        folder = self._start.data_dir
        artifact = wandb.Artifact(_safe(folder.name), type="dataset", metadata={"sha256": dict(self._start.hashes)})
        if (folder / MANIFEST_FILE).exists():
            artifact.add_file(str(folder / MANIFEST_FILE))
        for name in (TRAIN_FILE, TEST_FILE):
            artifact.add_reference((folder / name).resolve().as_uri(), name=name)
        if self._run.offline:  # which cannot tell what it used; what it logged is known after `wandb sync`
            self._run.log_artifact(artifact)
        else:
            self._run.use_artifact(artifact)


def _table(samples: Sequence[dict[str, Any]]) -> Any:
    """Gives sampled answers as a table of W&B."""
    return wandb.Table(columns=list(COLUMNS), data=[[sample[name] for name in COLUMNS] for sample in samples])


def _safe(name: str) -> str:
    """Gives a name of letters that an artifact may have."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")[-LONGEST_NAME:] or PROJECT
