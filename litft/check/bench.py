"""A config on the bench: its own model, method and loss with a few of its own rows, to be tried again and again.

All is computed in float32, where a mistake is larger than what rounding does. A large model is tried with its first
blocks. Knows no check.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from litft.check.small import WORK, choose_rows, parameters_of, shorten, small, write_short
from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import WEIGHTS_NAME
from litft.config.model import ModelConfig
from litft.config.plan import TrainPlan, build_plan
from litft.config.run import AdapterRun, FullRun, LoRARun, RunConfig
from litft.data.batches import Batching
from litft.errors import ConfigError
from litft.methods.base import Full, Method, freeze, settings_of
from litft.methods.load import METHODS
from litft.methods.merged import inner_method
from litft.methods.new_tokens import with_new_tokens
from litft.train.code import recipes_dir
from litft.train.fabric import build_fabric
from litft.train.finish import finish
from litft.train.loop import backward, build_run, fit
from litft.train.loss import TokenLoss, smoothed
from litft.train.optim import build_optimizer
from litft.train.parallel import own_share
from litft.train.parts import load_base, spread
from litft.train.setup import open_inputs, start_out_dir
from litft.train.state import Inputs, Run

HELD_OUT_ROWS = 2
STIRRED = 0.01  # standard deviation of what is added: adapters begin as nothing, of which nothing could be told
_numbers = count()


def method_of(name: str, config: RunConfig) -> Method:
    """Gives the method that the recipe of this name builds."""
    if isinstance(config, FullRun):
        return Full(config.train)
    section = config.lora if isinstance(config, LoRARun) else cast(AdapterRun, config).adapter
    return METHODS[name](settings_of(section))


def load_loss(recipe: Path) -> TokenLoss:
    """Gives the loss of a recipe, read afresh as another process would.

    Raises:
        ConfigError: the file is not there, or has none.
    """
    if not recipe.is_file():
        raise ConfigError(f"recipe {recipe} is no file; name a copy of a recipe, such as my_lora.py.")
    module = _import(recipe)
    if not callable(getattr(module, "token_loss", None)):
        raise ConfigError(f"recipe {recipe} has no function token_loss, which is what is tried.")
    return cast(TokenLoss, module.token_loss)


def _import(path: Path) -> ModuleType:
    """Imports a file once more, under a name of its own; it finds what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}_{next(_numbers)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Gradient:
    """What some rows gave.

    Attributes:
        of: the gradient of each trained parameter, on the CPU.
        losses: of each row the mean, in nats per target token.
    """

    of: dict[str, Tensor]
    losses: dict[int, float]

    def gap(self, other: Gradient) -> float:
        """Gives how far another one is away, as a share of this one's norm."""
        if self.of.keys() != other.of.keys():
            return math.inf
        off = sum(float((other.of[name] - mine).double().square().sum()) for name, mine in self.of.items())
        norm = sum(float(mine.double().square().sum()) for mine in self.of.values())
        return math.sqrt(off / norm) if norm else (0.0 if not off else math.inf)

    def loss_gap(self, other: Gradient) -> float:
        """Gives the largest difference of a row's losses, as a share of the loss where that is above 1."""
        return max(abs(mine - other.losses[row]) / max(1.0, abs(mine)) for row, mine in self.losses.items())


class Bench:
    """A config that can be tried.

    Attributes:
        method_name, recipe: what is tried.
        config: the user's own.
        inputs: of a run on few rows and maybe few blocks.
        rows: which rows of train.pt.
        layers: how many blocks there are, in words.
        scratch: takes all that is written.
    """

    def __init__(self, name: str, config: RunConfig, recipe: Path | None, scratch: Path, rows: Sequence[int] = ()):
        """Opens it.

        Args:
            name: of the method.
            config: the user's own.
            recipe: a recipe of the user's own; None for litft's.
            scratch: an empty folder, or that of another process which made the short model there.
            rows: of train.pt; none: they are chosen.

        Raises:
            LitftError: the run could not begin either, with the reason.
        """
        self.method_name, self.config, self.scratch = name, config, scratch
        self.recipe = recipe or recipes_dir() / f"{name}.py"
        self._loss = load_loss(self.recipe)
        asked = small(config, scratch / "run")
        random = isinstance(config, FullRun) and config.init == "random"
        inputs = open_inputs(asked, method_of(name, asked), _silent, needs_weights=not random)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        short = shorten(inputs)
        blocks = inputs.model_config.n_layer
        self.layers = f"{short.n_layer} of {blocks} layers" if short.n_layer < blocks else f"all {blocks} layers"
        self.rows = list(rows) or choose_rows(inputs, WORK[device] / parameters_of(short))
        self.inputs = self._on_few(inputs, short)

    def _on_few(self, inputs: Inputs, short: ModelConfig) -> Inputs:
        """Gives the inputs with fewer rows and blocks."""
        folder = inputs.checkpoint_dir
        if short.n_layer < inputs.model_config.n_layer:
            folder = write_short(inputs, short, self.scratch / "model")
        weights = folder / WEIGHTS_NAME
        sums = {"base": weights_sha256(weights)} if weights.is_file() else {}
        longest = int(inputs.train.lengths[self.rows].max())
        test = inputs.test_rows[inputs.test.lengths[inputs.test_rows].argsort()][:HELD_OUT_ROWS]
        return dataclasses.replace(
            inputs,
            config=dataclasses.replace(inputs.config, dry_run=False),
            checkpoint_dir=folder,
            model_config=short,
            train_rows=torch.tensor(self.rows),
            test_rows=test,
            batching=Batching(1, longest, packed=True),
            hashes={**inputs.hashes, **sums},
            report=_silent,
            recipe=self.recipe,
        )

    def token_loss(self) -> TokenLoss:
        """Gives the loss, with nothing left in it of those that used it before."""
        return load_loss(self.recipe)

    def assemble(self, name: str, dropout: bool = True, resume_from: Path | None = None, **changes: Any) -> Run:
        """Gives a run as the recipe would, what it trains already moved a little.

        Args:
            name: of its folder.
            dropout: whether it drops; no two ways to split rows would drop the same.
            resume_from: a step checkpoint to go on from.
            changes: of its config.
        """
        config = dataclasses.replace(self.inputs.config, out_dir=self.scratch / name, **changes)
        method = with_new_tokens(method_of(self.method_name, config), self.inputs.train.meta)
        inputs = dataclasses.replace(
            self.inputs, config=config, out_dir=self.scratch / name, method=method, resume_from=resume_from
        )
        start_out_dir(inputs)
        fabric = build_fabric(config)
        model = load_base(inputs, fabric)
        method.apply(model)
        freeze(model, method)
        stir(model, method)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        parts = spread(model, inputs, fabric)
        run = build_run(
            inputs, fabric, self.plan(config), parts, build_optimizer(parts.named_parameters(), config.optim)
        )
        run.model.train()
        return run

    def plan(self, config: RunConfig) -> TrainPlan:
        """Gives the plan of a short run."""
        return build_plan(len(self.rows), config.train, config.optim, config.eval)

    @cached_property
    def still(self) -> Run:
        """A run without dropout or noise, of which gradients are asked."""
        return self.assemble(
            "still", dropout=False, train=dataclasses.replace(self.inputs.config.train, neftune_alpha=0.0)
        )

    @cached_property
    def finished(self) -> tuple[Run, Path]:
        """A run that went to its end, with a step checkpoint on its way, and its final folder."""
        run = self.assemble("whole")
        finish(run, fit(run, self.token_loss()))
        return run, self.scratch / "whole" / "final"

    def gradient(self, batching: Batching, run: Run | None = None) -> Gradient:
        """Gives the gradient of all rows as one window.

        Args:
            batching: how they are split.
            run: asked; None for `still`.
        """
        run = run or self.still
        loss = smoothed(self._loss, self.config.train.label_smoothing)
        share, losses = own_share(run.fabric, run.inputs.train, self.rows, batching), dict[int, float]()
        for batch in share.micro_batches:
            sums = backward(run, batch.to(run.fabric.device), share.target_tokens, loss).tolist()
            found = zip(batch.rows, sums, batch.row_targets, strict=True)
            losses |= {row: total / count for row, total, count in found if count}
        for batch in share.idle:
            backward(run, batch.to(run.fabric.device), math.inf, loss)
        run.parts.take_gradients()
        return Gradient(_taken(run), losses)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.inputs.batching.max_seq_length

    @cached_property
    def apart(self) -> Gradient:
        """The gradient with each row by itself, of which nothing can go wrong between rows."""
        return self.gradient(Batching(1, self.longest, packed=False))


def _taken(run: Run) -> dict[str, Tensor]:
    """Gives whole gradients, and leaves none behind."""
    found = {}
    for name, part in run.parts.parts.items():
        if part.own.requires_grad:
            own = torch.zeros_like(part.own) if part.own.grad is None else part.own.grad
            found[name] = part.whole(own).detach().to("cpu", copy=True)
            part.own.grad = None
    return found


@torch.no_grad()
def stir(model: torch.nn.Module, method: Method) -> None:
    """Moves what a method adds, which begins as nothing; weights of the base stay."""
    if isinstance(inner_method(method), Full):
        return
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator) * STIRRED
            parameter.add_(drawn.to(parameter.device, parameter.dtype))


def _silent(text: str) -> None:
    """Takes what a short run says."""
