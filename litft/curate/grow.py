"""`litft curate grow`: Self-Instruct. New tasks from a few seeds, by a checkpoint or an endpoint.

Every reply is written down as it comes, and what is made of replies is drawn by seed and number of the request alone:
the same command goes on, and comes to the same rows.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litft.asking.asker import Question, Remembering
from litft.asking.local import open_asker
from litft.checkpoint.disk import atomic_path, sha256_file
from litft.checkpoint.journal import Journal
from litft.config.curate import GrowConfig
from litft.config.io import dump_yaml
from litft.curate import tasks
from litft.curate.tasks import Instance, Task
from litft.data.reading.rows import Rejected, Row
from litft.data.sources.self_instruct import read_self_instruct
from litft.errors import DataError
from litft.terminal.bars import Bar
from litft.text.rouge import nearest, words_of

Report = Callable[[str], None]

REPLIES_SUFFIX, ACCOUNT_SUFFIX = ".replies.jsonl", ".yaml"


def grow(config: GrowConfig, report: Report = lambda message: None) -> Path:
    """Writes new tasks as JSON Lines of instruction, input and output.

    Args:
        config: the seeds, the model, how many and where to.
        report: takes each message for the user.

    Returns:
        The file.

    Raises:
        DataError: the seeds cannot be read or are too few, the file is there, or nothing usable was grown.
        GenerationError: the model does not answer; what it answered by then is kept.
    """
    check_out(config.out, config.overwrite)
    seeds = read_seeds(config.seeds, report)
    asker = open_asker(config, report)
    with Journal(config.out.with_suffix(REPLIES_SUFFIX)) as journal:
        if journal.entries:
            report(f"{len(journal.entries):,} replies are there; going on from them.")
        remembering = Remembering(asker, journal)
        growth = Growth(config, seeds, remembering)
        growth.run()
    if not growth.grown:
        raise DataError(f"{growth.requests} requests gave no task that can be used: {growth.account()}.")
    rows = [
        {"instruction": task.instruction, **case._asdict(), "similarity": round(likeness, 3)}
        for task, likeness in growth.grown
        for case in task.instances
    ]
    write_rows(config.out, rows, {"seeds": sha256_file(config.seeds), "model": asker.name, **growth.to_dict()})
    report(f"{config.out}: {len(growth.grown):,} tasks, {len(rows):,} rows, in {growth.requests:,} requests for tasks")
    if len(growth.grown) < config.count:
        report(
            f"WARNING: of {config.count:,} tasks asked for only {len(growth.grown):,} were found: the last "
            f"{config.patience} requests gave no new one; take more seeds, or a higher --temperature."
        )
    if growth.dropped:
        report(f"dropped: {growth.account()}")
    report(remembering.cost())
    report(f"Next: litft prepare self_instruct --checkpoint_dir CHECKPOINT --data_file {config.out}")
    return config.out


class Growth:
    """Tasks as they grow.

    Attributes:
        grown: the new ones, each with its highest ROUGE-L to any that was there before it.
        dropped: for each reason, how many instructions and instances were left out.
        requests: how many lists of tasks were asked for.
    """

    def __init__(self, config: GrowConfig, seeds: list[Task], asker: Remembering) -> None:
        """Begins with the seeds."""
        self._config, self._seeds, self._asker = config, seeds, asker
        self._known = [words_of(seed.instruction) for seed in seeds]
        self.grown: list[tuple[Task, float]] = []
        self.dropped: Counter[str] = Counter()
        self.requests = 0

    def run(self) -> None:
        """Asks until there are tasks enough, or none come any more."""
        barren = 0
        with Bar("growing", self._config.count, "tasks") as bar:
            while len(self.grown) < self._config.count and barren < self._config.patience:
                before = len(self.grown)
                self._step()
                barren = 0 if len(self.grown) > before else barren + 1
                bar.update(len(self.grown) - before)

    def account(self) -> str:
        """Says what was dropped, the most first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common() if count) or "no reply"

    def to_dict(self) -> dict[str, Any]:
        """Gives the numbers for the file beside the rows."""
        return {
            "tasks": len(self.grown),
            "requests": self.requests,
            "dropped": {reason: count for reason, count in sorted(self.dropped.items()) if count},
            "max_similarity": self._config.max_similarity,
            "temperature": self._config.temperature,
            "top_p": self._config.top_p,
            "seed": self._config.seed,
        }

    def _step(self) -> None:
        """Asks for one list of instructions, and for cases of those that are new."""
        chance = random.Random(f"{self._config.seed}/{self.requests}")
        grown = [task.instruction for task, _ in self.grown]
        shown = chance.sample(grown, min(tasks.LISTED_GROWN, len(grown)))
        shown += chance.sample([seed.instruction for seed in self._seeds], tasks.LISTED - len(shown))
        chance.shuffle(shown)
        config = self._config
        seed = (config.seed + self.requests) % 2**31
        self.requests += 1
        [reply] = self._asker.ask_all(
            [
                Question(
                    tasks.list_prompt(shown),
                    config.max_new_tokens,
                    config.temperature,
                    config.top_p,
                    tasks.LIST_STOP,
                    seed,
                )
            ]
        )
        if reply.refused is not None:
            self.dropped["request refused"] += 1
            return
        found = self._new(tasks.read_list(reply.text, reply.is_whole, self.dropped))
        found = found[: config.count - len(self.grown)]
        prompts = [tasks.task_prompt(instruction, self._seeds, chance) for instruction, _ in found]
        questions = [Question(prompt, config.max_new_tokens, stop=tasks.TASK_STOP) for prompt in prompts]
        for (instruction, likeness), reply in zip(found, self._asker.ask_all(questions), strict=True):
            instances = tasks.read_instances(reply.text, reply.is_whole, self.dropped)
            if instances:
                self.grown.append((Task(instruction, instances), likeness))
                self._known.append(words_of(instruction))
            else:
                self.dropped["no usable instance"] += 1

    def _new(self, instructions: list[str]) -> list[tuple[str, float]]:
        """Gives the instructions that pass the filters, each with its highest ROUGE-L to those before it."""
        made: list[tuple[str, float]] = []
        known = list(self._known)
        for instruction in instructions:
            fault = tasks.fault_of(instruction)
            words = words_of(instruction)
            likeness = nearest(words, known) if fault is None else 0.0
            if fault is None and likeness >= self._config.max_similarity:
                fault = "too like another"
            if fault is None:
                made.append((instruction, likeness))
                known.append(words)
            else:
                self.dropped[fault] += 1
        return made


def read_seeds(path: Path, report: Report) -> list[Task]:
    """Gives the tasks of a file, those with one instruction together.

    Args:
        path: in a form that `litft prepare self_instruct` reads.
        report: told how many rows cannot be used.

    Raises:
        DataError: the file cannot be read, or has too few tasks.
    """
    found: dict[str, list[Instance]] = {}
    rejected = []
    for row in read_self_instruct(path):
        if isinstance(row, Row):
            asked, answered = row.conversation.messages
            found.setdefault(asked.text.strip(), []).append(Instance(asked.input, answered.text))
        elif isinstance(row, Rejected):
            rejected.append(row)
    if rejected:
        report(f"{len(rejected):,} rows of {path} are no seeds; the first is {rejected[0].place}: {rejected[0].reason}")
    if len(found) < tasks.LISTED:
        raise DataError(
            f"seeds {path} holds {len(found)} tasks; each request shows {tasks.LISTED}, so give as many or more."
        )
    return [Task(instruction, tuple(instances)) for instruction, instances in found.items()]


def check_out(out: Path, overwrite: bool) -> None:
    """Refuses to replace rows that nobody asked to replace.

    Raises:
        DataError: naming the file.
    """
    if out.is_dir():
        raise DataError(f"out {out} is a folder; name a file, such as {out / 'rows.jsonl'}.")
    if out.exists() and not overwrite:
        raise DataError(f"out {out} is there already; name another file, or replace it with --overwrite true.")


def write_rows(out: Path, rows: list[dict[str, Any]], account: dict[str, Any]) -> None:
    """Writes rows as JSON Lines, and beside them how they came about.

    Raises:
        DataError: they cannot be written.
    """
    try:
        with atomic_path(out) as path:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        with atomic_path(out.with_suffix(ACCOUNT_SUFFIX)) as path:
            path.write_text(dump_yaml({"rows": len(rows), "sha256": sha256_file(out), **account}), encoding="utf-8")
    except OSError as error:
        raise DataError(f"Cannot write {out}: {error.strerror}.") from error
