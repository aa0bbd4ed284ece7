"""Answers to a file of prompts: all is checked before the model is loaded, and what is answered is never asked again.

Answers stand in a journal beside the file that they become, which appears when all are there.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from litft.answer.model import Report, open_llm, report_draft, sampling_of
from litft.api import conversation_of, own_device
from litft.checkpoint.disk import atomic_path, sha256_file, weights_sha256
from litft.checkpoint.files import load_model_config, resolve_checkpoint_dir
from litft.checkpoint.journal import Journal
from litft.config.answer import GenerateConfig
from litft.data.reading.lines import iter_prompts
from litft.errors import DataError, LitftError
from litft.generate.request import Answer, Request, to_answer, to_continue
from litft.methods.load import weights_files
from litft.terminal.bars import tracked
from litft.text.conversation import USER, Conversation, Message
from litft.text.encoding import Style
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer

PARTIAL_SUFFIX = ".partial"
ANSWER, FINISH = "answer", "finish"  # what is added to a row
FORMS = ("prompt", "messages", "instruction")


class Asked(NamedTuple):
    """A row of the file and what is asked for it, once for each sample."""

    row: dict[str, Any]
    requests: list[Request]


def answer_file(config: GenerateConfig, report: Report) -> None:
    """Writes each row of `prompt_file` to `out_file` with its `answer` and `finish`, in their order.

    Args:
        config: both files are given.
        report: told how far a former command came, and the speed.

    Raises:
        DataError: a file cannot be used; naming the line.
        CheckpointError, TokenizerError, ConfigError: the checkpoint cannot be opened, with the reason.
    """
    assert config.out_file is not None
    _check_out(config)
    asked, head = read_prompts(config), _head(config)
    with _open_journal(config.out_file, head, config.overwrite) as journal:
        done = journal.entries[1:]
        if done:
            report(f"{len(done):,} of {len(asked):,} rows were answered before; going on from them.")
        if len(done) < len(asked):
            done += _answer(config, asked, len(done), journal, report)
        with atomic_path(config.out_file) as path:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done), encoding="utf-8")
        journal.path.unlink()
    report(f"{config.out_file}: {len(done):,} rows")


def read_prompts(config: GenerateConfig) -> list[Asked]:
    """Gives the rows of `prompt_file` and what is asked for each.

    Raises:
        DataError: a row cannot be answered; naming the line.
        CheckpointError, TokenizerError, ConfigError: the checkpoint's tokenizer or style cannot be used.
    """
    assert config.prompt_file is not None
    folder = resolve_checkpoint_dir(config.checkpoint_dir)
    tokenizer, style = Tokenizer(folder), load_style(folder)
    model = load_model_config(weights_files(folder)[0].parent)
    asked = []
    for line, row in tracked(iter_prompts(config.prompt_file), "checking", "rows"):
        try:
            request = _request(tokenizer, style, row, config)
        except LitftError as error:
            raise DataError(f"{config.prompt_file}, line {line}: {error}") from error
        size = len(request.prompt_ids)
        if size == 0 or size >= model.block_size:
            raise DataError(
                f"{config.prompt_file}, line {line} has {size} tokens; {model.name} reads from 1 to "
                f"{model.block_size - 1} before its answer."
            )
        asked.append(Asked(row, [_with_seed(request, config.seed, sample) for sample in range(config.num_samples)]))
    if not asked:
        raise DataError(f"{config.prompt_file} holds no row.")
    return asked


def _request(tokenizer: Tokenizer, style: Style, row: dict[str, Any], config: GenerateConfig) -> Request:
    """Gives what a row asks; raises DataError, without its place, where it asks nothing."""
    taken = [name for name in (ANSWER, FINISH) if name in row]
    if taken:
        raise DataError(f'it has "{taken[0]}" already, where the answer is to stand; rename that field.')
    forms = [name for name in FORMS if name in row]
    if len(forms) != 1:
        found = " and ".join(forms) or f"none of them, but {', '.join(map(str, row)) or 'nothing'}"
        raise DataError(f"a row needs prompt, messages or instruction, one of them; it has {found}.")
    for name in ("prompt", "instruction", "input"):
        if not isinstance(row.get(name, ""), str):
            raise DataError(f"its {name} is no text.")
    how = (config.max_new_tokens, sampling_of(config), config.stop)
    if "prompt" in row:
        return to_continue(tokenizer, row["prompt"], *how)
    if "messages" in row:
        if not isinstance(row["messages"], list):
            raise DataError("its messages are no list.")
        return to_answer(tokenizer, style, conversation_of(row["messages"]), *how)
    question = Message(USER, row["instruction"], row.get("input", ""))
    return to_answer(tokenizer, style, Conversation((question,)), *how)


def _with_seed(request: Request, seed: int | None, sample: int) -> Request:
    """Gives the request of one of several samples."""
    return request if seed is None else replace(request, seed=seed + sample)


def _answer(config: GenerateConfig, asked: list[Asked], first: int, journal: Journal, report: Report) -> list[Any]:
    """Answers the rows from `first` on and gives them with their answers, each written down as it is done."""
    llm, rest = open_llm(config, report), asked[first:]
    report(f"Answering {len(rest):,} rows, {config.at_once} at a time.")
    answers = llm.run([request for _, requests in rest for request in requests], config.at_once)
    made, started, tokens = [], time.perf_counter(), 0
    for row, requests in tracked(rest, "answering", "rows", len(asked), first):
        given = list(islice(answers, len(requests)))
        tokens += sum(len(answer.tokens) for answer in given)
        made.append(row | _fields(given))
        journal.add(made[-1])
    seconds = time.perf_counter() - started
    report(f"{tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:.1f} tokens/s, {own_device(llm)}")
    report_draft(llm, report)
    return made


def _fields(answers: list[Answer]) -> dict[str, Any]:
    """Gives what is added to a row: texts where there is one answer, lists where there are several."""
    texts, ends = [answer.text for answer in answers], [answer.finish for answer in answers]
    return {ANSWER: texts, FINISH: ends} if len(answers) > 1 else {ANSWER: texts[0], FINISH: ends[0]}


def _head(config: GenerateConfig) -> dict[str, Any]:
    """Gives what an unfinished file must have been begun with for the same command to go on with it."""
    assert config.prompt_file is not None
    folders = [resolve_checkpoint_dir(folder) for folder in (config.checkpoint_dir, config.draft_dir) if folder]
    weights = [weights_sha256(path) for folder in folders for path in weights_files(folder)]
    how = (sampling_of(config), config.max_new_tokens, config.stop, config.seed, config.num_samples)
    facts = [sha256_file(config.prompt_file), weights, config.precision, config.quantize, repr(how)]
    return {"command": hashlib.sha256(json.dumps(facts).encode()).hexdigest()}


def _open_journal(out: Path, head: dict[str, Any], overwrite: bool) -> Journal:
    """Opens the answers of a former command; those of another one only to replace them."""
    path = out.with_name(out.name + PARTIAL_SUFFIX)
    with Journal(path) as journal:
        is_own = journal.entries[:1] in ([], [head])
    if not is_own and not overwrite:
        raise DataError(
            f"{path} was begun with other prompts, settings or weights; go on with those, or begin again with "
            "--overwrite true."
        )
    return Journal(path, head, restart=not is_own)


def _check_out(config: GenerateConfig) -> None:
    """Refuses to replace the prompts, and answers that nobody asked to replace."""
    assert config.prompt_file is not None and config.out_file is not None
    out, overwrite = config.out_file, config.overwrite
    if out.expanduser().resolve() == config.prompt_file.expanduser().resolve():
        raise DataError(f"out_file {out} is prompt_file itself; name another file for the answers.")
    if out.is_dir():
        raise DataError(f"out_file {out} is a folder; name a file, such as {out / 'answers.jsonl'}.")
    if out.exists() and not overwrite:
        raise DataError(f"out_file {out} is there already; name another file, or replace it with --overwrite true.")
