"""`--logger tensorboard`: event files in `logs/`, which `tensorboard --logdir out` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from litft.config.io import dump_yaml
from litft.train.loggers import Logger, Metrics, Start


class TensorBoardLogger(Logger):
    """Numbers as scalars, settings, samples and jumps as texts. A full disk is said once."""

    errors = (OSError,)

    def __init__(self, start: Start) -> None:
        """Opens a file beside those of former starts; of these TensorBoard hides the steps that come again."""
        purge = 0 if start.from_step is None else start.from_step + 1
        self._writer: Any = SummaryWriter(str(start.out_dir / "logs"), purge_step=purge)
        self._writer.add_text("run.yaml", _block(dump_yaml(dict(start.settings))), purge)

    def log(self, metrics: Metrics) -> None:
        """Adds one scalar a number."""
        for name, number in metrics.numbers().items():
            self._writer.add_scalar(name, number, metrics.step)

    def log_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Adds the answers as a text for each row; and sees that all so far is on disk."""
        for sample in samples:
            text = "\n\n".join(f"{name}\n{_block(sample[name])}" for name in ("prompt", "answer", "expected"))
            self._writer.add_text(f"samples/{sample['row']}", text, sample["step"])
        self._writer.flush()

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Adds it as a text."""
        self._writer.add_text("spikes", _block(json.dumps(spike, indent=2)), spike["step"])

    def close(self, final: Path | None, summary: Mapping[str, Any]) -> None:
        """Adds the summary and closes the file."""
        if final is not None:
            self._writer.add_text("summary", _block(json.dumps(dict(summary), indent=2)), summary["steps"])
        self._writer.close()


def _block(text: str) -> str:
    """Gives a text as Markdown that is shown as it is."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
