"""Published tasks, asked through lm-evaluation-harness; it is imported only where tasks are named."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

from litft.config.evaluate import EvaluateConfig
from litft.errors import ConfigError, DataError, did_you_mean
from litft.evaluate.subject import Subject

# Samples drawn for the error of a metric that is no mean; the harness draws 100,000, which takes minutes.
BOOTSTRAP = 1000


class Number(NamedTuple):
    """One metric of one task.

    Attributes:
        task: its name, or that of a group.
        name: of the metric, with the harness's filter where there is one.
        value: as the harness computes it.
        error: standard error; None where there is none.
    """

    task: str
    name: str
    value: float
    error: float | None

    @property
    def error_text(self) -> str:
        """The error to be read."""
        return "" if self.error is None else f"{self.error:.4f}"


@dataclass(frozen=True)
class Measured:
    """What the harness found of one model.

    Attributes:
        checkpoint: its name.
        version: of the harness.
        facts: what decided the numbers.
        numbers: in the harness's order.
    """

    checkpoint: str
    version: str
    facts: dict[str, Any]
    numbers: list[Number]

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types."""
        tasks: dict[str, dict[str, Any]] = {}
        for number in self.numbers:
            error = {} if number.error is None else {f"{number.name} stderr": number.error}
            tasks.setdefault(number.task, {}).update({number.name: number.value, **error})
        return {**self.facts, "lm_eval": self.version, "tasks": tasks}


def open_tasks(config: EvaluateConfig) -> Any:
    """Gives the harness's list of tasks, with all names checked.

    Args:
        config: names the tasks, and a folder of further ones.

    Raises:
        ConfigError: the harness is not installed, the folder is none, or a task is unknown, with the nearest name.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("--tasks needs lm-evaluation-harness, which is not installed: pip install 'litft[eval]'.")
    if config.tasks_dir is not None and not config.tasks_dir.is_dir():
        raise ConfigError(f"tasks_dir is {config.tasks_dir}, which is no folder; name the one with the YAML files.")
    from lm_eval.tasks import TaskManager

    with quietly():
        if config.tasks_dir is not None:  # the harness's own 15,000 files take seconds to list
            manager = TaskManager(include_path=str(config.tasks_dir), include_defaults=False)
            if all(name in manager.task_index for name in config.tasks):
                return manager
        manager = TaskManager(include_path=None if config.tasks_dir is None else str(config.tasks_dir))
    check_names(config, manager.task_index)
    return manager


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps the harness's notices about its own insides from the terminal; its errors are shown."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_names(config: EvaluateConfig, known: Collection[str]) -> None:
    """Refuses tasks that there are not.

    Args:
        config: names them.
        known: the names of all tasks and groups.

    Raises:
        ConfigError: naming the first such task, and the nearest that there is.
    """
    further = "" if config.tasks_dir is None else f" or in {config.tasks_dir}"
    for name in config.tasks:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f'There is no task "{name}" in lm-evaluation-harness{further}.{hint}')


def run_tasks(config: EvaluateConfig, subject: Subject, manager: Any) -> Measured:
    """Asks a model all tasks.

    Args:
        config: names them, and how they are asked.
        subject: who is asked; let go when it is done.
        manager: as `open_tasks` gives it.

    Raises:
        DataError: the questions of a task cannot be read.
        GenerationError: a task asks for more than the model can read.
    """
    from lm_eval.evaluator import simple_evaluate

    from litft.evaluate.harness import HarnessModel

    with quietly():
        results = simple_evaluate(
            model=HarnessModel(subject, config.micro_batch_size, config.slots, config.seed),
            tasks=list(config.tasks),
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            apply_chat_template=config.apply_chat_template,
            task_manager=_Opening(manager),
            log_samples=False,
            bootstrap_iters=BOOTSTRAP,
            random_seed=config.seed,
            numpy_random_seed=config.seed,
            torch_random_seed=config.seed,
            fewshot_random_seed=config.seed,
        )
    subject.release()
    asked = {name: getattr(config, name) for name in ("num_fewshot", "limit", "apply_chat_template", "seed")}
    asked["prompt_style"] = subject.style.name if config.apply_chat_template else None
    shots = {"n-shot": dict(results["n-shot"]), "versions": dict(results["versions"])}
    return Measured(subject.name, version("lm_eval"), {**subject.facts(), **asked, **shots}, _numbers(results))


class _Opening:
    """The harness's list of tasks, with a sentence where the questions of one cannot be read."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def load(self, names: list[str]) -> Any:
        """Opens tasks by their names, with their questions."""
        try:
            return self._manager.load(names)
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise DataError(
                f"The questions of {', '.join(names)} cannot be read ({said}); they come from the Hugging Face hub, or "
                "from the files that the task's YAML names."
            ) from error


def _numbers(results: Mapping[str, Any]) -> list[Number]:
    """Gives the metrics of all tasks: `acc,none` and `acc_stderr,none` are one."""
    made = []
    for task, found in results["results"].items():
        for key, value in found.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = found.get(f"{metric}_stderr,{chosen}")
            name = metric if chosen == "none" else f"{metric} ({chosen})"
            made.append(Number(task, name, float(value), float(error) if isinstance(error, int | float) else None))
    return made
