"""`litft curate judge`: each prepared row gets a score from 0 to 5 from a model behind an endpoint.

Source: AlpaGasus, arXiv 2307.08701 (Chen et al. 2023), which keeps the rows of Alpaca that ChatGPT gives 4.5 or more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litft.asking.asker import Question, Remembering, Reply
from litft.asking.endpoint import Endpoint
from litft.checkpoint.journal import Journal
from litft.config.curate import JudgeConfig
from litft.curate.folder import Folder, check_destination, is_finished, open_folder, score_table, write_scored
from litft.curate.rating import HIGHEST, LOWEST, fill_prompt, read_prompt, read_score
from litft.data.store import TRAIN_FILE
from litft.data.texts import TextReader, require_tokenizer
from litft.errors import GenerationError
from litft.terminal.bars import tracked

Report = Callable[[str], None]

REPLIES_FILE = "judge.jsonl"

# Where so many replies give no score, the judge does not do what it is asked for.
FIRST_REPLIES = 20
SHOWN = 120  # characters of such a reply


def judge(config: JudgeConfig, report: Report = lambda message: None) -> Path:
    """Writes prepared data again, each row with the score that a model gives it.

    Args:
        config: which rows, which endpoint, and where to write.
        report: takes each message for the user.

    Returns:
        The folder.

    Raises:
        DataError: the rows cannot be read, or the destination is taken.
        GenerationError: the endpoint does not answer, or none of its first replies gives a score; what it answered by
            then stays in judge.jsonl.
        ConfigError: the prompt or the key cannot be used.
    """
    folder = open_folder(config.data_dir)
    destination = check_destination(folder.path, config.destination_path)
    tokenizer = require_tokenizer(folder.train, config.checkpoint_dir)
    prompt = read_prompt(config.prompt)
    how = _how(config, prompt, folder)
    if is_finished(destination, how, config.overwrite, report):
        return destination
    asker = Endpoint(config, report)
    judged = {name: data for name, data in folder.splits.items() if config.held_out or name == TRAIN_FILE}
    questions = []
    for data in judged.values():
        reader = TextReader(data, tokenizer)
        for row in tracked(range(len(data)), "reading", "rows"):
            questions.append(Question(fill_prompt(prompt, reader.read(row)), config.max_new_tokens))
    with Journal(destination / REPLIES_FILE) as journal:
        remembering = Remembering(asker, journal)
        if known := sum(map(remembering.knows, questions)):
            report(f"{known:,} of {len(questions):,} rows are judged; going on from there.")
        _refuse_unreadable(remembering.ask_all(questions[:FIRST_REPLIES]), config, journal.path)
        replies = iter(remembering.ask_all(questions, "judging"))
    given = {name: [next(replies) for _ in range(len(data))] for name, data in judged.items()}
    scores = {
        name: [_score(reply) for reply in given[name]] if name in given else [math.nan] * len(data)
        for name, data in folder.splits.items()
    }
    left = {name: Counter(why for reply in replies if (why := unscored(reply))) for name, replies in given.items()}
    total = sum(left.values(), Counter[str]())
    write_scored(folder, destination, scores, {**how, "unscored": dict(sorted(total.items()))})
    report(f"scores of the rows of {TRAIN_FILE} by {config.model}\n{score_table(folder.train, scores[TRAIN_FILE])}")
    for name, reasons in left.items():
        for reason, count in reasons.most_common():
            report(f"{count:,} rows of {name} have no score: {reason}")
    report(remembering.cost())
    report(
        f"Next: litft prepare mix --data_dirs {destination} --filters.min_score 4.5 "
        f"--destination_path {destination}-best"
    )
    return destination


def unscored(reply: Reply) -> str | None:
    """Says why a reply gives no score; None where it gives one."""
    if reply.refused is not None:
        return "the server refused the request"
    if read_score(reply.text) is None:
        return f"the reply's first line is no number from {LOWEST:g} to {HIGHEST:g}"
    return None


def _score(reply: Reply) -> float:
    """Gives the score of a row, NaN where the reply gives none."""
    score = read_score(reply.text)
    return math.nan if score is None else score


def _refuse_unreadable(replies: Sequence[Reply], config: JudgeConfig, path: Path) -> None:
    """Refuses a judge of whose first replies none gives a score: the others would cost as much and give none too."""
    if any(unscored(reply) is None for reply in replies):
        return
    example = next((reply.text.strip() for reply in replies if reply.refused is None), "")
    raise GenerationError(
        f"None of the first {len(replies):,} replies of {config.model} gives a score, a number from {LOWEST:g} to "
        f"{HIGHEST:g} alone on the first line: one begins {json.dumps(example[:SHOWN], ensure_ascii=False)}; all are "
        f"in {path}; name another --model, or ask otherwise with --prompt."
    )


def _how(config: JudgeConfig, prompt: str, folder: Folder) -> dict[str, Any]:
    """Says what the score is and all that decides it, for the manifest."""
    return {
        "kind": "judge",
        "meaning": f"what {config.model} gives the answers, from {LOWEST:g} to {HIGHEST:g}",
        "model": config.model,
        "endpoint": config.endpoint,
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "max_new_tokens": config.max_new_tokens,
        "held_out": config.held_out,
        "data_sha256": folder.digests(),
    }
