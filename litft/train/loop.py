"""The one training loop. Recipes assemble a Run and hand it over with the loss; nothing else trains.

Read `fit`, then `train_step`: all the mathematics of an optimizer step stands there.
"""

from __future__ import annotations

import math
import time

import torch
from lightning_fabric import Fabric

from litft.config.plan import TrainPlan
from litft.data.batches import MicroBatch, rows_of_window
from litft.errors import TrainingError
from litft.model.activations import Activations
from litft.train.budget import Budget, open_budget
from litft.train.evaluate import sample_answers, validate
from litft.train.export import try_export
from litft.train.finish import peak_memory_bytes
from litft.train.in_backward import SteppingInBackward
from litft.train.loss import TokenLoss, chunk_tokens, smoothed, sum_target_loss, sums_of_rows
from litft.train.neftune import noisy_embeddings
from litft.train.nonfinite import check_finite, keeping_what_is_not_finite
from litft.train.optim import set_learning_rate
from litft.train.parallel import from_first, gather, noticing_the_lost, own_share, told
from litft.train.parts import Parts
from litft.train.records import Records
from litft.train.rehearsal import rehearse
from litft.train.row_losses import RowLosses, gather_losses
from litft.train.saving import StepSaver, load_step, saving_steps
from litft.train.state import Inputs, Progress, Run, StepResult, agree
from litft.train.terminal import StepBar, heeding_signals, stopped_by

VALIDATION_ROWS = 4  # times micro_batch_size: without a backward pass nothing but the last layer's output is kept


def build_run(inputs: Inputs, fabric: Fabric, plan: TrainPlan, parts: Parts, optimizer: torch.optim.Optimizer) -> Run:
    """Hands model and optimizer to Fabric and gives everything the loop works on."""
    model = fabric.setup_module(parts.model, move_to_device=False)  # it is there, or, for litft plan, has no data
    inputs, train = agree(inputs, fabric), inputs.config.train
    parts.model.keep_activations(Activations(train.checkpoint, train.offload_activations))
    trained = (part.own for part in parts.trained())
    in_backward = SteppingInBackward(optimizer, trained) if inputs.config.optim.in_backward else None
    wrapped = fabric.setup_optimizers(optimizer)
    row_losses = RowLosses(len(inputs.train))
    return Run(inputs, fabric, plan, inputs.method, parts.model, model, wrapped, parts, row_losses, in_backward)


@noticing_the_lost
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
        PreemptedError: after SIGTERM or SIGUSR1, with one too.
    """
    plan, resume_from = run.plan, run.inputs.resume_from
    progress = load_step(run, resume_from) if resume_from else Progress()
    records, budget = Records(run, progress), open_budget(run, progress)
    run.model.train()
    if run.fabric.device.type == "cuda":
        rehearse(run, lambda batch: backward(run, batch, max(batch.target_tokens, 1), token_loss))
    ended_by = progress.stalled_by(run.inputs.config.eval.patience)  # one that was killed while it wrote its result
    with heeding_signals(run.inputs.report) as heard, saving_steps(run) as saver, records:
        if not resume_from:
            with budget.spending("validation"):
                validate_and_note(run, progress, token_loss, records)
        shown = StepBar(progress.step, plan.steps, run.inputs.report, run.fabric.is_global_zero, plan.eval_every)
        with shown as bar:
            for step in range(progress.step, progress.step if ended_by else plan.steps):
                started = time.perf_counter()
                rate = plan.learning_rate(step, budget.begin_step(step))
                with budget.spending("step"), keeping_what_is_not_finite(run, saver, step + 1, rate):
                    result = train_step(run, window_rows(run, step), rate, token_loss)
                seconds = from_first(run.fabric, time.perf_counter() - started)
                progress.note_step(result, seconds)
                speed, memory = result.tokens / seconds, peak_memory_bytes()
                bar.show(progress.step, result.loss, rate, speed, memory, budget.time_left())
                records.note_step(progress, result, rate, seconds)
                ended_by = follow_step(run, progress, budget, token_loss, records, saver)
                asked = asked_to_stop(run, heard(), saver)
                if ended_by:
                    run.inputs.report(f"Ended after step {progress.step} of {plan.steps}, by {ended_by}.")
                    break
                if asked and step + 1 < plan.steps:
                    saver.save(progress)
                    saver.wait()
                    raise told(run.fabric, stopped_by(asked, progress.step, run.inputs.report))
    progress.stopped_by = ended_by if progress.step < plan.steps else plan.ends_by
    return progress


def asked_to_stop(run: Run, heard: int | None, saver: StepSaver) -> int | None:
    """Gives the signal that came in any of the processes, if one did.

    Raises:
        CheckpointError: a checkpoint that was written beside the steps could not be.
    """
    everywhere = gather(run.fabric, (heard, saver.has_failed()))
    if any(has_failed for _, has_failed in everywhere):
        saver.wait()
    return next((number for number, _ in everywhere if number is not None), None)


def follow_step(
    run: Run, progress: Progress, budget: Budget, token_loss: TokenLoss, records: Records, saver: StepSaver
) -> str | None:
    """Validates, saves and exports where the plan or the clock says so.

    Args:
        run, token_loss: as in `fit`.
        progress: the step that ended is counted in.
        budget: was asked before the step.
        records, saver: take the validation and the checkpoint.

    Returns:
        The setting by which the run ends here, if it does before its last step.
    """
    out_of_time, evaluation = budget.is_over(), run.inputs.config.eval
    saves = (budget.saves or out_of_time) and progress.step < run.plan.steps
    if budget.validates or saves or out_of_time:
        with budget.spending("validation"):
            validate_and_note(run, progress, token_loss, records)
    saves |= evaluation.keeps_best and progress.best_step == progress.step < run.plan.steps
    progress.budget = budget.state()
    if saves:
        with budget.spending("checkpoint"):
            saver.save(progress)
        budget.expect("checkpoint", saver.seconds)
    if budget.exports:
        with budget.spending("export"):
            try_export(run, progress)
    return budget.limited_by if out_of_time else progress.stalled_by(evaluation.patience)


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
    began = time.perf_counter()
    share = own_share(run.fabric, run.inputs.train, rows, run.inputs.batching)  # all of it, in a process alone
    has_data = time.perf_counter()
    count, device = share.target_tokens, run.fabric.device
    set_learning_rate(run.optimizer, rate)
    token_loss = smoothed(token_loss, run.inputs.config.train.label_smoothing)
    sums = [backward(run, batch.to(device), count, token_loss) for batch in share.micro_batches]
    for batch in share.idle:
        backward(run, batch.to(device), math.inf, token_loss)  # a gradient of zero
    norm = gradient_norm(run)
    losses = gather_losses(run.fabric, share.micro_batches, torch.cat(sums) if sums else torch.zeros(0))
    check_finite(run.fabric, losses, norm, run.in_backward is not None)
    has_gradient = time.perf_counter()
    if run.in_backward is None:
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
    grad_norm = norm.item()  # host-device sync
    spent = {
        "data": has_data - began,
        "compute": has_gradient - has_data,
        "optimizer": time.perf_counter() - has_gradient,
    }
    return StepResult(
        loss=losses.total / count,
        grad_norm=grad_norm,
        examples=len(rows),
        tokens=share.tokens,
        target_tokens=count,
        padding_tokens=share.padding_tokens,
        losses=losses,
        spent=spent,
    )


def gradient_norm(run: Run) -> torch.Tensor:
    """Gives the norm of the window's gradient, a scalar; then the gradient is no longer than `optim.clip_norm`."""
    if run.in_backward is not None:
        return run.in_backward.take_norm()
    run.parts.take_gradients()
    return run.parts.clip_gradients(run.inputs.config.optim.clip_norm or math.inf)


def backward(run: Run, batch: MicroBatch, count: float, token_loss: TokenLoss) -> torch.Tensor:
    """Adds one micro-batch's share of the gradient and gives the summed loss of each row, (rows,) float32."""
    head_is_trained = any(parameter.requires_grad for parameter in run.gpt.lm_head.parameters())
    chunk = chunk_tokens(run.gpt.config.padded_vocab_size, batch.input_ids.device, head_is_trained)
    with run.fabric.autocast(), noisy_embeddings(run.gpt, batch, run.inputs.config.train.neftune_alpha):
        hidden = run.model(batch.input_ids, documents=batch.documents)
        where = batch.targets, token_loss, chunk, head_is_trained, batch.target_places
        loss = sum_target_loss(run.model.head, hidden, *where)
    run.fabric.backward(loss.total / count)
    return sums_of_rows(loss.each, batch.row_targets)


def window_rows(run: Run, step: int) -> list[int]:
    """Gives the rows of step `step`: its slice of this epoch's order."""
    config = run.inputs.config
    seed = config.seed if config.train.shuffle else None
    return rows_of_window(run.inputs.train_rows, run.plan.window(step), seed)


def validate_and_note(run: Run, progress: Progress, token_loss: TokenLoss, records: Records) -> None:
    """Measures the whole held-out split, answers its first rows, and has both written down.

    Raises:
        TrainingError: the loss is not finite, as after a step that was too large.
    """
    inputs = run.inputs
    rows = inputs.test_rows.tolist()
    batching = inputs.batching.times(VALIDATION_ROWS)
    result = validate(run.fabric, run.model, inputs.test, rows, batching, token_loss)
    if not math.isfinite(result.loss):
        what = f"The held-out loss is {result.loss} after step {progress.step}"
        raise told(run.fabric, TrainingError(f"{what}; lower optim.learning_rate, or use --precision 32-true."))
    progress.note_validation(result.loss, result.accuracy, result.by_source, inputs.config.eval.min_delta)
    records.note_validation(progress, result, sample_answers(run, rows[: inputs.config.eval.prompts]))
    line = f"step {progress.step}/{run.plan.steps}: held-out loss {result}"
    inputs.report(line if progress.final_loss is None else f"{line}, training loss {progress.final_loss:.4f}")
