"""The recipes as functions: `finetune.lora("meta-llama/Llama-2-7b-hf", "data/lima", max_steps=100)`.

A setting has the name that it has as a flag, alone (`max_steps=100`), in its section (`train={"max_steps": 100}`) or,
where it begins with a name of Python's own, dotted (`**{"train.max_steps": 100}`); `litft finetune lora --help` lists
them. What is checked and what is written is what the command checks and writes. Imports torch only when called.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litft.config.optim import OptimConfig
from litft.config.run import AdapterConfig, AdapterRun, FullRun, LoRAConfig, LoRARun, RunConfig
from litft.config.train import EvalConfig, FullTrainConfig, TrainConfig
from litft.errors import ConfigError

if TYPE_CHECKING:
    from litft.result import Result

__all__ = ["adapter", "adapter_v2", "full", "lora"]

Report = Callable[[str], None]
Section = Mapping[str, Any]  # some settings of a section by name; the others keep the method's defaults


def full(
    checkpoint_dir: str | Path,
    data_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    train: FullTrainConfig | Section | None = None,
    optim: OptimConfig | Section | None = None,
    eval: EvalConfig | Section | None = None,
    report: Report | None = None,
    **settings: Any,
) -> Result:
    """Trains every weight, as `litft finetune full` does.

    Args:
        checkpoint_dir: the converted base model, a folder or ORG/NAME under checkpoints/.
        data_dir: prepared data, a folder or its name under data/.
        out_dir: where the run is written; None for out/full/DATA.
        train, optim, eval: settings of these sections; an object of the section's class sets all of them.
        report: takes each message; None shows them, `lambda text: None` does not.
        settings: any other flag of the command, such as `max_steps=100` or `precision="32-true"`.

    Returns:
        The run: its numbers, its answers, and `load()` for the trained model.

    Raises:
        LitftError: a setting or a folder that cannot be used, in one sentence; a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of the last step; `resume=True` goes on.
    """
    return _run("full", FullRun, report, locals())


def lora(
    checkpoint_dir: str | Path,
    data_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    lora: LoRAConfig | Section | None = None,
    train: TrainConfig | Section | None = None,
    optim: OptimConfig | Section | None = None,
    eval: EvalConfig | Section | None = None,
    report: Report | None = None,
    **settings: Any,
) -> Result:
    """Trains low-rank adapters, as `litft finetune lora` does.

    Args:
        checkpoint_dir, data_dir, train, optim, eval, report, settings: as `full` takes them.
        out_dir: where the run is written; None for out/lora/DATA.
        lora: settings of the adapters, such as `{"r": 16, "targets": ["q", "v"]}`.

    Returns:
        The run: its numbers, its answers, and `load()` for the trained model.

    Raises:
        LitftError, KeyboardInterrupt: as `full` does.
    """
    return _run("lora", LoRARun, report, locals())


def adapter(
    checkpoint_dir: str | Path,
    data_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    adapter: AdapterConfig | Section | None = None,
    train: TrainConfig | Section | None = None,
    optim: OptimConfig | Section | None = None,
    eval: EvalConfig | Section | None = None,
    report: Report | None = None,
    **settings: Any,
) -> Result:
    """Trains LLaMA-Adapter v1, as `litft finetune adapter` does.

    Args:
        checkpoint_dir, data_dir, train, optim, eval, report, settings: as `full` takes them.
        out_dir: where the run is written; None for out/adapter/DATA.
        adapter: settings of the learned prompts, such as `{"prompt_length": 10}`.

    Returns:
        The run: its numbers, its answers, and `load()` for the trained model.

    Raises:
        LitftError, KeyboardInterrupt: as `full` does.
    """
    return _run("adapter", AdapterRun, report, locals())


def adapter_v2(
    checkpoint_dir: str | Path,
    data_dir: str | Path,
    *,
    out_dir: str | Path | None = None,
    adapter: AdapterConfig | Section | None = None,
    train: TrainConfig | Section | None = None,
    optim: OptimConfig | Section | None = None,
    eval: EvalConfig | Section | None = None,
    report: Report | None = None,
    **settings: Any,
) -> Result:
    """Trains LLaMA-Adapter v2, as `litft finetune adapter_v2` does.

    Args:
        checkpoint_dir, data_dir, train, optim, eval, report, settings: as `full` takes them.
        out_dir: where the run is written; None for out/adapter_v2/DATA.
        adapter: settings of the learned prompts, such as `{"prompt_length": 10}`.

    Returns:
        The run: its numbers, its answers, and `load()` for the trained model.

    Raises:
        LitftError, KeyboardInterrupt: as `full` does.
    """
    return _run("adapter_v2", AdapterRun, report, locals())


def _run(method: str, kind: type[RunConfig], report: Report | None, given: dict[str, Any]) -> Result:
    """Runs a recipe with the arguments of its function.

    Args:
        method: its name.
        kind: of its config.
        report: as the function got it.
        given: all that the function got.
    """
    from litft.config.parse import build_config

    values = {name: value for name, value in given.items() if name not in ("report", "settings") and value is not None}
    config = build_config(kind, {**values, **given["settings"]}, f"finetune.{method}()")
    if config.processes > 1 and (hasattr(sys, "ps1") or "ipykernel" in sys.modules):
        raise ConfigError(
            f"devices x num_nodes is {config.processes}, and a notebook cannot start processes; use one device, or "
            f"litft finetune {method} in a terminal."
        )
    from litft.checkpoint.held import release_folder
    from litft.data.store import find_data_dir
    from litft.result import Result
    from litft.terminal.bars import say
    from litft.train.setup import choose_out_dir

    out_dir = choose_out_dir(config, method, find_data_dir(config.data_dir))
    recipe = importlib.import_module(f"litft.recipes.{method}")
    try:
        summary: dict[str, Any] = recipe.main(dataclasses.replace(config, out_dir=out_dir), report or say)
    finally:
        release_folder(out_dir)  # of a run that failed: another process may go on with it while this one lives
    return Result(out_dir, summary)
