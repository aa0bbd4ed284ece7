"""`litft generate`: an answer to one prompt, piece by piece, several answers to it, or answers to a file."""

from __future__ import annotations

import time
from collections.abc import Iterator

from litft.answer.many import answer_file
from litft.answer.model import Report, open_llm, report_draft, sampling_of
from litft.api import LLM, own_device
from litft.config.answer import GenerateConfig
from litft.generate.request import Request
from litft.text.conversation import USER, Conversation, Message

BETWEEN = "\n---\n"  # of several answers


def generate(config: GenerateConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Gives the answer piece by piece, or writes the answers to a file, and reports the speed.

    Args:
        config: the checkpoint, what is asked and the sampling.
        report: told how long it took.

    Yields:
        What is to be shown; nothing of a file.

    Raises:
        LitftError: the checkpoint, the file or a prompt cannot be used.
    """
    if config.prompt_file is not None:
        answer_file(config, report)
        return
    llm = open_llm(config, report)
    seeds = [None if config.seed is None else config.seed + sample for sample in range(config.num_samples)]
    requests = [_request(llm, config, seed) for seed in seeds]
    started, count = time.perf_counter(), 0
    if len(requests) == 1:
        for token in llm.iter_tokens(requests[0]):
            count += 1
            yield token.text
    else:
        for number, answer in enumerate(llm.run(requests, config.at_once)):
            count += len(answer.tokens)
            yield (BETWEEN if number else "") + answer.text
    yield "\n"
    seconds = time.perf_counter() - started
    report(f"{count} tokens in {seconds:.1f} s, {count / seconds:.1f} tokens/s, {own_device(llm)}")
    report_draft(llm, report)


def _request(llm: LLM, config: GenerateConfig, seed: int | None) -> Request:
    """Gives what is asked."""
    how = (config.max_new_tokens, sampling_of(config), config.stop, seed)
    if config.prompt is not None:
        return llm.to_continue(config.prompt, *how)
    return llm.to_answer(Conversation((Message(USER, config.instruction or "", config.input),)), *how)
