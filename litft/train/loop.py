"""The one training loop. Recipes assemble a Run and hand it over with the loss; nothing else trains.

Read `fit`, then `train_step`: all the mathematics of an optimizer step stands there.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from litft.config.plan import TrainPlan, passes_mark
from litft.config.run import parse_duration
from litft.data.batches import MicroBatch, iter_micro_batches, rows_of_window
from litft.errors import TrainingError
from litft.methods.base import Method
from litft.model.gpt import GPT
from litft.train.evaluate import sample_answers, validate
from litft.train.export import export_if_due
from litft.train.loggers import CSVLogger, Metrics
from litft.train.loss import TokenLoss, sum_target_loss
from litft.train.optim import set_learning_rate
from litft.train.state import Inputs, Progress, Run, load_step, save_step
from litft.train.terminal import StepBar, finishing_steps

VALIDATION_ROWS = 4  # times micro_batch_size: without a backward pass nothing but the last layer's output is kept


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured: mean loss in nats per target token, gradient norm before clipping, counts."""

    loss: float
    grad_norm: float
    examples: int
    tokens: int
    target_tokens: int
    padding_tokens: int


def build_run(
    inputs: Inputs, fabric: Fabric, plan: TrainPlan, method: Method, gpt: GPT, optimizer: torch.optim.Optimizer
) -> Run:
    """Hands model and optimizer to Fabric and gives everything the loop works on."""
    model, wrapped = fabric.setup(gpt, optimizer)
    model.mark_forward_method("head")
    return Run(inputs, fabric, plan, method, gpt, model, wrapped)


def fit(run: Run, token_loss: TokenLoss) -> Progress:
    """Trains from the start, or from the checkpoint to be resumed, to the first bound of the run.

    Args:
        run: model, method, data, optimizer and plan.
        token_loss: (logits (N, V), targets (N,)) -> loss of each token (N,), in nats.

    Returns:
        How far the run came and the losses it reached.

    Raises:
        TrainingError: a loss or gradient that is not finite; the last checkpoint stays.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of the last step.
    """
    plan, resume_from = run.plan, run.inputs.resume_from
    progress = load_step(run, resume_from) if resume_from else Progress()
    logger = CSVLogger(run.inputs.out_dir, progress.step if resume_from else None)
    run.model.train()
    if not resume_from:
        validate_and_log(run, progress, token_loss, logger)
    bar = StepBar(progress.step, plan.steps, run.inputs.report)
    with finishing_steps(run.inputs.report) as interrupted:
        for step in range(progress.step, plan.steps):
            started = time.perf_counter()
            rate = plan.learning_rate(step)
            result = train_step(run, window_rows(run, step), rate, token_loss)
            seconds = time.perf_counter() - started
            advance(progress, result, seconds)
            bar.show(progress.step, result.loss, rate, result.tokens / seconds)
            if progress.step % run.inputs.config.train.log_interval == 0 or step + 1 == plan.steps:
                logger.log(step_metrics(progress, result, rate, seconds))
            out_of_time = follow_step(run, progress, seconds, token_loss, logger)
            if interrupted() and step + 1 < plan.steps:
                save_step(run, progress)
                run.inputs.report(f"Stopped after step {progress.step}; go on with --resume auto.")
                raise KeyboardInterrupt
            if out_of_time:
                break
    bar.close()
    progress.stopped_by = "max_time" if progress.step < plan.steps else plan.ends_by
    return progress


def follow_step(run: Run, progress: Progress, seconds: float, token_loss: TokenLoss, logger: CSVLogger) -> bool:
    """Validates, saves and exports where the plan or the clock says so.

    Args:
        run, token_loss: as in `fit`.
        progress: the step that ended is counted in.
        seconds: it took.
        logger: takes the validation.

    Returns:
        Whether the run's time is up.
    """
    train, step = run.inputs.config.train, progress.step - 1
    limit_seconds = parse_duration(train.max_time) or math.inf
    out_of_time = progress.seconds >= limit_seconds
    # Of a run that time ends, a fraction is a fraction of its time.
    timed = passes_mark(progress.seconds, seconds, limit_seconds * min(train.save_interval, 1))
    saves = run.plan.saves_after(step) or ((out_of_time or timed) and progress.step < run.plan.steps)
    if run.plan.validates_after(step) or saves or out_of_time:
        validate_and_log(run, progress, token_loss, logger)
    if saves:
        save_step(run, progress)
    export_if_due(run, progress, seconds)
    return out_of_time


def train_step(run: Run, rows: list[int], rate: float, token_loss: TokenLoss) -> StepResult:
    """One optimizer step over one window of rows.

    Every micro-batch adds sum(token losses) / N to the gradient, N the target tokens of the whole window, so the
    gradient does not depend, but for rounding, on how the window was split.

    Args:
        run: as in `fit`.
        rows: of the training file.
        rate: the learning rate of this step.
        token_loss: as in `fit`.

    Raises:
        TrainingError: the loss or the gradient is not finite; no weight has moved then.
    """
    micro_batches = list(iter_micro_batches(run.inputs.train, rows, run.plan.micro_batch_size))
    count = sum(batch.target_tokens for batch in micro_batches)
    sums = [backward(run, batch.to(run.fabric.device), count, token_loss) for batch in micro_batches]
    losses = torch.stack(sums)
    clip_norm = run.inputs.config.optim.clip_norm or math.inf
    norm = run.fabric.clip_gradients(run.model, run.optimizer, max_norm=clip_norm, error_if_nonfinite=False)
    assert isinstance(norm, torch.Tensor)
    check_finite(losses, norm, micro_batches)  # host-device sync
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return StepResult(
        loss=losses.sum().item() / count,
        grad_norm=norm.item(),
        examples=len(rows),
        tokens=sum(batch.tokens for batch in micro_batches),
        target_tokens=count,
        padding_tokens=sum(batch.padding_tokens for batch in micro_batches),
    )


def backward(run: Run, batch: MicroBatch, count: int, token_loss: TokenLoss) -> torch.Tensor:
    """Adds one micro-batch's share of the gradient and gives its summed loss, a scalar without a graph."""
    with run.fabric.autocast():
        hidden = run.model(batch.input_ids)
        loss = sum_target_loss(run.model.head, hidden, batch.targets, token_loss)
    run.fabric.backward(loss / count)
    return loss.detach()


def check_finite(losses: torch.Tensor, norm: torch.Tensor, micro_batches: list[MicroBatch]) -> None:
    """Stops a run whose loss or gradient is not a number, before the weights move.

    Raises:
        TrainingError: naming the rows of the micro-batches at fault, or of the window where only the gradient is.
    """
    if torch.isfinite(norm) and torch.isfinite(losses).all():
        return
    bad = [batch for batch, finite in zip(micro_batches, torch.isfinite(losses).tolist(), strict=True) if not finite]
    rows = [row for batch in bad or micro_batches for row in batch.rows]
    what = "loss" if bad else "gradient"
    raise TrainingError(
        f"The {what} is not finite at rows {rows} of train.pt (numbers from 0); the weights did not move. "
        "Look at these rows, lower optim.learning_rate, or use --precision 32-true."
    )


def window_rows(run: Run, step: int) -> list[int]:
    """Gives the rows of step `step`: its slice of this epoch's order."""
    config = run.inputs.config
    seed = config.seed if config.train.shuffle else None
    return rows_of_window(run.inputs.train_rows, run.plan.window(step), seed)


def advance(progress: Progress, result: StepResult, seconds: float) -> None:
    """Adds one step to the counts."""
    progress.step += 1
    progress.examples += result.examples
    progress.tokens += result.tokens
    progress.target_tokens += result.target_tokens
    progress.padding_tokens += result.padding_tokens
    progress.seconds += seconds
    progress.final_loss = result.loss
    if progress.first_loss is None:
        progress.first_loss = result.loss


def validate_and_log(run: Run, progress: Progress, token_loss: TokenLoss, logger: CSVLogger) -> None:
    """Measures the whole held-out split, answers its first rows, and writes both down.

    Raises:
        TrainingError: the loss is not finite, as after a step that was too large.
    """
    inputs = run.inputs
    rows = inputs.test_rows.tolist()
    size = VALIDATION_ROWS * run.plan.micro_batch_size
    result = validate(run.fabric, run.model, inputs.test, rows, size, token_loss)
    if not math.isfinite(result.loss):
        raise TrainingError(
            f"The held-out loss is {result.loss} after step {progress.step}; lower optim.learning_rate, or use "
            "--precision 32-true."
        )
    progress.note_validation(result.loss, result.accuracy, result.by_source)
    logger.log(Metrics(**_counts(progress), val_loss=result.loss, val_accuracy=result.accuracy))
    for sample in sample_answers(run, rows[: inputs.config.eval.prompts]):
        logger.log_sample({"step": progress.step, **sample})
    line = f"step {progress.step}/{run.plan.steps}: held-out loss {result}"
    inputs.report(line if progress.final_loss is None else f"{line}, training loss {progress.final_loss:.4f}")


def step_metrics(progress: Progress, result: StepResult, rate: float, seconds: float) -> Metrics:
    """Gives the line of one training step."""
    return Metrics(
        **_counts(progress),
        loss=result.loss,
        learning_rate=rate,
        grad_norm=result.grad_norm,
        tokens_per_second=result.tokens / seconds,
    )


def _counts(progress: Progress) -> dict[str, Any]:
    """Gives the counts that every line of metrics opens with."""
    names = ("step", "examples", "tokens", "target_tokens", "padding_tokens", "seconds")
    return {name: getattr(progress, name) for name in names}
