"""What a run writes down as it goes: a line of metrics, the losses of rows, a loss that jumps, sampled answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from litft.train.evaluate import Validation
from litft.train.finish import peak_memory_bytes
from litft.train.loggers import Metrics, open_logger
from litft.train.spikes import describe_spike, remember, spike_limit
from litft.train.state import Progress, Run, StepResult

NAMED_ROWS = 3  # of a loss that jumps, in the line that is told


class Records:
    """Takes each step and each validation of a run; of several processes the first one writes."""

    def __init__(self, run: Run, progress: Progress) -> None:
        """Opens the files.

        Args:
            run: whose they are.
            progress: where it goes on; lines of later steps are dropped, they will be written again.
        """
        from_step = progress.step if run.inputs.resume_from else None
        self._run, self._logger = run, open_logger(run.inputs.out_dir, from_step, run.fabric.is_global_zero)
        self._is_high = False

    def note_step(self, progress: Progress, result: StepResult, rate: float, seconds: float) -> None:
        """Takes a step.

        Args:
            progress: the step is counted in.
            result: of the step.
            rate: its learning rate.
            seconds: that it took.
        """
        self._run.row_losses.note(progress.step, result.losses)
        self._note_loss(progress, result)
        if progress.step % self._run.inputs.config.train.log_interval and progress.step != self._run.plan.steps:
            return
        measured = {"loss": result.loss, "learning_rate": rate, "grad_norm": result.grad_norm}
        self._log(progress, **measured, tokens_per_second=result.tokens / seconds)

    def note_validation(self, progress: Progress, result: Validation, samples: Iterable[dict[str, Any]]) -> None:
        """Takes a validation and the answers of that time."""
        by_source = {"val_loss_by_source": result.by_source, "val_accuracy_by_source": result.accuracy_by_source}
        told = {name: json.dumps(values) for name, values in by_source.items() if values}
        self._log(progress, val_loss=result.loss, val_accuracy=result.accuracy, **told)
        for sample in samples:
            self._logger.log_sample({"step": progress.step, **sample})

    def _note_loss(self, progress: Progress, result: StepResult) -> None:
        """Writes down a loss that jumps with its rows, and tells the first of several in a row."""
        before, limit = list(progress.recent_losses), spike_limit(progress.recent_losses)
        remember(progress.recent_losses, result.loss)
        was_high, self._is_high = self._is_high, limit is not None and result.loss > limit
        if not self._is_high:
            return
        spike = describe_spike(self._run.inputs.train, progress.step, result.loss, before, result.losses)
        self._logger.log_spike(spike)
        if not was_high:
            rows = ", ".join(f"{row['row']} ({row['loss']:.2f})" for row in spike["rows"][:NAMED_ROWS])
            self._run.inputs.report(
                f"step {progress.step}: the training loss jumped to {result.loss:.4f} from a median of "
                f"{spike['median']:.4f}, most of all by the rows {rows} of train.pt; see {self._logger.spikes_path}"
            )

    def _log(self, progress: Progress, **measured: Any) -> None:
        """Writes a line of metrics: the counts of the run, and what was measured."""
        names = ("step", "examples", "tokens", "target_tokens", "padding_tokens", "seconds")
        spent: dict[str, Any] = {f"{what}_seconds": round(seconds, 6) for what, seconds in progress.spent.items()}
        self._logger.log(
            Metrics(
                **{name: getattr(progress, name) for name in names},
                **measured,
                **spent,
                epoch=progress.examples / self._run.plan.n_examples,
                peak_memory_bytes=peak_memory_bytes(),
            )
        )
