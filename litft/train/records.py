"""What a run writes down as it goes: a line of metrics, the losses of rows, a loss that jumps, sampled answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from litft.train.evaluate import Validation
from litft.train.finish import peak_memory_bytes
from litft.train.log_csv import SPIKES_FILE, CSVLogger
from litft.train.loggers import Metrics
from litft.train.provenance import tell_changes, write_start
from litft.train.spikes import describe_spike, remember, spike_limit
from litft.train.state import Progress, Run, StepResult

NAMED_ROWS = 3  # of a loss that jumps, in the line that is told
WORTH_TELLING = 0.5  # nats per target token; a loss below is a good one, and its jump stands in spikes.jsonl alone


class Records:
    """Takes each step and each validation of a run; of several processes the first one writes."""

    def __init__(self, run: Run, progress: Progress) -> None:
        """Opens the files.

        Args:
            run: whose they are.
            progress: where it goes on; lines of later steps are dropped, they will be written again.
        """
        self._run, self._loggers = run, run.inputs.loggers
        if run.fabric.is_global_zero:
            from_step = progress.step if run.inputs.resume_from else None
            if from_step is None:
                write_start(run)
            else:
                tell_changes(run)
            own = {"csv": CSVLogger(run.inputs.out_dir, from_step)}
            self._loggers.open = {**own, **self._loggers.open}  # first, as others may take their time
        self._is_high = False

    def __enter__(self) -> Records:
        """Takes what comes until the run ends or breaks off."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Tells the loggers that the run broke off; its end is told once `final/` is written."""
        if kind is not None:
            self._loggers.close(None, {})

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
        self._loggers.log_samples([{"step": progress.step, **sample} for sample in samples])

    def _note_loss(self, progress: Progress, result: StepResult) -> None:
        """Writes down a loss that jumps with its rows, and tells the first of several in a row."""
        before, limit = list(progress.recent_losses), spike_limit(progress.recent_losses)
        remember(progress.recent_losses, result.loss)
        was_high, self._is_high = self._is_high, limit is not None and result.loss > limit
        if not self._is_high:
            return
        spike = describe_spike(self._run.inputs.train, progress.step, result.loss, before, result.losses)
        self._loggers.log_spike(spike)
        if not was_high and result.loss > WORTH_TELLING:
            rows = ", ".join(f"{row['row']} ({row['loss']:.2f})" for row in spike["rows"][:NAMED_ROWS])
            self._run.inputs.report(
                f"step {progress.step}: the loss jumped to {result.loss:.4f} from a median of {spike['median']:.4f}, "
                f"most by the rows {rows} of train.pt; {self._run.inputs.out_dir / SPIKES_FILE} has more"
            )

    def _log(self, progress: Progress, **measured: Any) -> None:
        """Writes a line of metrics: the counts of the run, and what was measured."""
        names = ("step", "examples", "tokens", "target_tokens", "padding_tokens", "seconds")
        spent: dict[str, Any] = {f"{what}_seconds": round(seconds, 6) for what, seconds in progress.spent.items()}
        self._loggers.log(
            Metrics(
                **{name: getattr(progress, name) for name in names},
                **measured,
                **spent,
                epoch=progress.examples / self._run.plan.n_examples,
                peak_memory_bytes=peak_memory_bytes(),
            )
        )
