"""Step checkpoints: atomic, hashed, resumable bit for bit; written beside the training where a copy has room.

A step folder holds what the method trains, the optimizer's state, the generators of chance, the losses of rows and the
counts. All of it is taken between two steps; what takes long, writing and hashing, may go on while the next steps do.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from litft.checkpoint.disk import publish_folder, require_space, sha256_file
from litft.checkpoint.sealed import load_sealed, write_sealed
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.errors import CheckpointError
from litft.train.budget import WRITE_RATE
from litft.train.parallel import failing_together, from_first
from litft.train.resumable import load_optimizer_state, load_rng_state, optimizer_state, owner, rng_state
from litft.train.room import has_room_for_copy
from litft.train.row_losses import ROW_LOSSES_FILE, write_row_losses
from litft.train.state import Progress, Run
from litft.train.step_folders import STEP_FILES, remove_old


@dataclass(frozen=True)
class _Contents:
    """What a step folder is to hold; `tensors` by the names of its files, those of the two large ones may come later.

    Attributes:
        trainable, optimizer: what this process holds.
        small: whole and not shared with the run, by file.
        described: `state.yaml` but for the hashes.
        folder, target: the name while it is written, and then.
        n_bytes: of the large ones.
        started: when, by `time.perf_counter`.
    """

    trainable: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    small: dict[str, dict[str, Tensor]]
    described: dict[str, Any]
    folder: Path
    target: Path
    n_bytes: int
    started: float


class StepSaver:
    """Writes the step checkpoints of a run, one after the other.

    Attributes:
        seconds: what a whole one takes: as the last one did, or as it is thought to; the same in all processes.
    """

    def __init__(self, run: Run, writer: ThreadPoolExecutor) -> None:
        """Begins.

        Args:
            run: whose checkpoints they are.
            writer: one thread.
        """
        self._run, self._writer = run, writer
        self._writing: Future[float] | None = None
        self._took = self.seconds = 0.0

    def save(self, progress: Progress) -> None:
        """Takes a checkpoint; when this returns, the training may go on, and the folder may still be to come.

        It waits for the one before. All processes must call this together.

        Raises:
            CheckpointError: this one or the one before cannot be written, as on a full disk.
        """
        self.wait()
        run, contents = self._run, _contents(self._run, progress)
        if from_first(run.fabric, self._has_room(contents)):
            with failing_together(run.fabric), _leaving_no_half(run, contents):
                _open_folder(run, contents)
            tensors = {
                "trainable": run.parts.copies(contents.trainable),
                "optimizer": run.parts.copies(contents.optimizer, owner),
            }
            if run.fabric.global_rank == 0:
                self._writing = self._writer.submit(_write_copies, run, contents, tensors)
        else:
            self._took = _write_now(run, contents)
        self.seconds = from_first(run.fabric, self._took or contents.n_bytes / WRITE_RATE)

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk; all processes must call this together.

        Raises:
            CheckpointError: it cannot be written, as on a full disk.
        """
        writing, self._writing = self._writing, None
        with failing_together(self._run.fabric):
            if writing:
                self._took = writing.result()

    def has_failed(self) -> bool:
        """Says, without waiting, whether the last checkpoint could not be written; `wait` then raises why."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def settle(self) -> None:
        """Waits, in this process alone, and tells what went wrong: for when another error is on its way."""
        writing, self._writing = self._writing, None
        error = writing.exception() if writing else None
        if error:
            self._run.inputs.report(f"Warning: the checkpoint before this could not be written: {error}")

    def _has_room(self, contents: _Contents) -> bool:
        """Says whether to write a copy in the background."""
        run = self._run
        weights = sum(own.nbytes for _, own in run.parts.named_parameters())
        return run.inputs.config.train.save_async and has_room_for_copy(contents.n_bytes, weights, run.fabric.device)


@contextmanager
def saving_steps(run: Run) -> Iterator[StepSaver]:
    """Gives what writes checkpoints in the block; however the block ends, the last one is on the disk then."""
    with ThreadPoolExecutor(1, "step checkpoint") as writer:
        saver = StepSaver(run, writer)
        try:
            yield saver
        except BaseException:
            saver.settle()
            raise
        saver.wait()


def save_step(run: Run, progress: Progress) -> None:
    """Writes `step-XXXXXXXX/` as a whole or not at all, then removes what `train.keep` does not keep.

    The files hold whole tensors, however many processes hold their parts; the first process writes.
    """
    _write_now(run, _contents(run, progress))


def _contents(run: Run, progress: Progress) -> _Contents:
    """Gives what the folder of this step is to hold."""
    trainable, optimizer = run.parts.state(run.method), optimizer_state(run)
    target = run.inputs.out_dir / f"step-{progress.step:08d}"
    return _Contents(
        trainable,
        optimizer,
        {"rng": rng_state(run.fabric), "row_losses": run.row_losses.state()},
        {"progress": dataclasses.asdict(progress), "read": run.inputs.hashes},
        target.with_name(f".{target.name}.partial"),
        target,
        run.parts.n_bytes(trainable) + run.parts.n_bytes(optimizer, owner),
        time.perf_counter(),
    )


def _open_folder(run: Run, contents: _Contents) -> None:
    """Makes the folder under its first name, on a disk that has room; the first process does."""
    if run.fabric.global_rank == 0:
        shutil.rmtree(contents.folder, ignore_errors=True)
        contents.folder.mkdir(parents=True)
        require_space(contents.folder, contents.n_bytes)


def _write_now(run: Run, contents: _Contents) -> float:
    """Writes it all, one tensor in memory at a time; all processes call each other for it. Gives the seconds."""
    with _leaving_no_half(run, contents):
        with failing_together(run.fabric):
            _open_folder(run, contents)
        with failing_together(run.fabric):
            run.parts.save(contents.folder / "trainable.safetensors", contents.trainable)
        with failing_together(run.fabric):
            run.parts.save(contents.folder / "optimizer.safetensors", contents.optimizer, owner)
        with failing_together(run.fabric):
            if run.fabric.global_rank == 0:
                _close_folder(run, contents)
    return time.perf_counter() - contents.started


def _write_copies(run: Run, contents: _Contents, tensors: Mapping[str, dict[str, Tensor]]) -> float:
    """Writes it all from copies, calling no other process and touching nothing that trains. Gives the seconds."""
    with _leaving_no_half(run, contents):
        for name, copies in tensors.items():
            save_safetensors(contents.folder / f"{name}.safetensors", copies.items(), tensor_specs(copies))
        _close_folder(run, contents)
    return time.perf_counter() - contents.started


@contextmanager
def _leaving_no_half(run: Run, contents: _Contents) -> Iterator[None]:
    """Gives back the space of a folder that could not be finished; a full disk has better uses for it."""
    try:
        yield
    except BaseException:
        if run.fabric.global_rank == 0:
            shutil.rmtree(contents.folder, ignore_errors=True)
        raise


def _close_folder(run: Run, contents: _Contents) -> None:
    """Adds what is small to the two large files, lets the folder appear, and removes what is not kept."""
    inputs, folder = run.inputs, contents.folder
    for name, tensors in contents.small.items():
        save_safetensors(folder / f"{name}.safetensors", tensors.items(), tensor_specs(tensors))
    hashes = {name: sha256_file(folder / f"{name}.safetensors") for name in STEP_FILES}
    write_sealed(folder / "state.yaml", {**contents.described, "sha256": hashes})
    publish_folder(folder, contents.target)
    remove_old(inputs.out_dir, contents.described["progress"]["step"], inputs.config.train.keep)
    write_row_losses(inputs.out_dir / ROW_LOSSES_FILE, inputs.train, contents.small["row_losses"])


def load_step(run: Run, folder: Path) -> Progress:
    """Puts a step checkpoint back, which `find_resume` found whole: weights, optimizer, chance, losses, counts.

    Raises:
        CheckpointError: it was written by a run on another base, on other data or of another method.
    """
    with failing_together(run.fabric):
        state = load_sealed(folder / "state.yaml")
        for name, digest in run.inputs.hashes.items():
            if state["read"].get(name) != digest:
                raise CheckpointError(
                    f"{name} has changed since {folder} was written; start afresh with --overwrite true."
                )
        load_trained(run, folder)
        load_optimizer_state(run, load_weights(folder / "optimizer.safetensors"))
        small = {name: load_weights(folder / f"{name}.safetensors") for name in ("rng", "row_losses")}
        try:
            load_rng_state(run.fabric, small["rng"])
            run.row_losses.load(small["row_losses"])
        except (KeyError, TypeError, RuntimeError) as error:  # tensors of other names, types or shapes
            raise CheckpointError(f"{folder} is damaged: it holds no state of this run ({error}).") from error
    return Progress(**state["progress"])


def load_trained(run: Run, folder: Path) -> None:
    """Puts the weights of a step checkpoint back, no more.

    Raises:
        CheckpointError: it was written by a run of another method.
    """
    weights = load_weights(folder / "trainable.safetensors")  # mapped: a process reads its own rows
    wanted = run.parts.state(run.method)
    if weights.keys() != wanted.keys():
        raise CheckpointError(f"{folder} was written by a run with other trainable parameters; it cannot be resumed.")
    for name, tensor in wanted.items():
        tensor.copy_(run.parts.parts[name].rows(weights[name]))
