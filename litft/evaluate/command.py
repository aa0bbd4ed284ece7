"""`litft evaluate`: a checkpoint measured with held-out rows, with published tasks, or with both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from litft.checkpoint.disk import atomic_path, write_json
from litft.config.evaluate import RESULTS_DIR, EvaluateConfig
from litft.data.html import refuse_foreign
from litft.data.listing import table_lines
from litft.data.view import Table
from litft.errors import ConfigError
from litft.evaluate.compare import Compared, compare
from litft.evaluate.page import Comparison, Text, page_of
from litft.evaluate.rows import AskedRow, asked_rows, open_rows, open_split
from litft.evaluate.subject import Subject
from litft.evaluate.tasks import Measured, open_tasks, run_tasks

Report = Callable[[str], None]

COMMAND = "evaluate"
TASKS_FILE = "tasks.json"


def evaluate(config: EvaluateConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Measures a checkpoint, and another beside it if one is named.

    Args:
        config: the checkpoints, and what they are measured with.
        report: told which rows are left out and what was written.

    Returns:
        The tables, as lines.

    Raises:
        CheckpointError, TokenizerError: a checkpoint cannot be used.
        DataError: the rows cannot be read, or are of another tokenizer.
        ConfigError: a task is unknown, or the harness is not installed.
    """
    subjects = _subjects(config)
    rows = None if config.data_dir is None else open_rows(open_split(config.data_dir, config.split), subjects, report)
    asked = [] if rows is None else asked_rows(rows, subjects[0].tokenizer, config.generate)
    tasks = open_tasks(config) if config.tasks else None
    out_dir = (config.out_dir or RESULTS_DIR / subjects[0].slug()).expanduser()
    place = out_dir / f"{'rows' if config.data_dir is None else config.data_dir.name}-{config.split}"
    page = place.with_name(f"{place.name}.html")
    refuse_foreign(page, COMMAND, "out_dir would write")
    tables: list[Table] = []
    if rows is not None:
        compared = compare(config, subjects, rows, asked, place.with_name(f"{place.name}.answers.jsonl"), report)
        tables += compared.tables()
        _write(page, compared, config, report)
    if tasks is not None:
        measured = [run_tasks(config, subject, tasks) for subject in subjects]
        tables.append(_task_table(measured))
        out_dir.mkdir(parents=True, exist_ok=True)
        write_json(out_dir / TASKS_FILE, {"models": [each.to_dict() for each in measured]})
        report(f"{out_dir / TASKS_FILE}: the numbers of the tasks")
    return iter(
        "\n".join(f"{table.title}\n{''.join(table_lines(table))}" for table in tables).splitlines(keepends=True)
    )


def _subjects(config: EvaluateConfig) -> list[Subject]:
    """Gives the checkpoints that are measured.

    Raises:
        ConfigError: both are the same.
    """
    paths = [config.checkpoint_dir, *([] if config.beside is None else [config.beside])]
    subjects = [Subject(path, config.precision, config.quantize) for path in paths]
    if len({subject.folder.resolve() for subject in subjects}) < len(subjects):
        raise ConfigError(f"--beside {config.beside} is the checkpoint itself; name another, such as its base.")
    return subjects


def _write(page: Path, compared: Compared, config: EvaluateConfig, report: Report) -> None:
    """Writes numbers and answers of prepared rows."""
    page.parent.mkdir(parents=True, exist_ok=True)
    write_json(page.with_suffix(".json"), compared.to_dict())
    with atomic_path(page) as path:
        path.write_text(_page(compared, config), encoding="utf-8")
    report(f"{page}: numbers and answers to be read; {page.with_suffix('.json')}: the same for programs")


def _page(compared: Compared, config: EvaluateConfig) -> str:
    """Gives the page."""
    facts = [("data", str(compared.rows.data.path)), ("longest answer", f"{config.max_new_tokens} tokens")]
    for model in compared.facts:
        sums = " + ".join(digest[:12] for digest in model["weights_sha256"])
        facts.append((str(model["checkpoint"]), f"{model['precision']}, quantize {model['quantize']}, sha256 {sums}"))
    title = f"{' beside '.join(compared.foreseen)} on {compared.rows.data.path}"
    comparisons = [_comparison(compared, place, row) for place, row in enumerate(compared.asked)]
    return "".join(page_of(title, COMMAND, facts, compared.tables(), "Answers", comparisons))


def _comparison(compared: Compared, place: int, row: AskedRow) -> Comparison:
    """Gives one row with all its answers."""
    texts = [Text("the data", row.expected)]
    for model, replies in compared.replies.items():
        reply, found = replies[place], compared.matches[model][place]
        what = "the same text" if found.is_exact else f"ROUGE-L {found.rouge_l:.3f}"
        cut = ", cut" if reply.refused is None and not reply.is_whole else ""
        texts.append(Text(f"{model}: {what}{cut}", reply.text if reply.refused is None else f"({reply.refused})"))
    return Comparison(f"row {row.row:,}, {row.source}", row.question, texts)


def _task_table(measured: Sequence[Measured]) -> Table:
    """Gives the numbers of all tasks, the models below each other."""
    lines: list[tuple[str, ...]] = [
        (number.task, number.name, model.checkpoint, f"{number.value:.4f}", number.error_text)
        for place in range(len(measured[0].numbers))
        for model, number in ((model, model.numbers[place]) for model in measured)
    ]
    by = f"By lm-evaluation-harness {measured[0].version}."
    return Table("Tasks", ("task", "metric", "model", "value", "±"), lines, (by,))
