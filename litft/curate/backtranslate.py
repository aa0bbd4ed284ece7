"""`litft curate backtranslate`: for each text an instruction that it answers, by a checkpoint or an endpoint.

Source: arXiv 2308.06259 (Li et al. 2023, "Self-Alignment with Instruction Backtranslation"). There a model finetuned on
(output, instruction) pairs writes the instructions, and the pairs are then rated by the model itself on a scale of 5
(self-curation). Here any model is asked in words, ours, and rated with the prompt of `litft curate judge`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litft.asking.asker import Question, Remembering, Reply
from litft.asking.local import open_asker
from litft.checkpoint.disk import sha256_file
from litft.checkpoint.journal import Journal
from litft.config.curate import BacktranslateConfig
from litft.curate.grow import REPLIES_SUFFIX, check_out, write_rows
from litft.curate.rating import PROMPT, fill_prompt, read_score
from litft.curate.tasks import without_thought
from litft.data.reading.rows import Rejected, Row
from litft.data.sources.text import read_text
from litft.data.texts import RowText
from litft.errors import DataError
from litft.text.frames import Said
from litft.text.rouge import words_of

Report = Callable[[str], None]

ASKING = """\
Below stands a text. Somebody gave an assistant an instruction, and this text, word for word, was the answer. Write \
that instruction: say what is wanted, as exactly as the text follows it, but quote nothing of the text. Write the \
instruction alone, in one paragraph.

=== text ===
{text}
=== end of text ===

Instruction:"""

STOP = ("\n===",)
RATING_TOKENS = 256

# So many words of the text, one behind the other, and nothing else are no instruction.
FEWEST_COPIED = 8


def backtranslate(config: BacktranslateConfig, report: Report = lambda message: None) -> Path:
    """Writes pairs of instruction and text as JSON Lines.

    Args:
        config: the texts, the model, whether the pairs are rated, and where to write.
        report: takes each message for the user.

    Returns:
        The file.

    Raises:
        DataError: the texts cannot be read, the file is there, or no pair is left.
        GenerationError: the model does not answer; what it answered by then is kept.
    """
    check_out(config.out, config.overwrite)
    dropped: Counter[str] = Counter()
    texts = read_texts(config.documents, dropped)
    count = len(texts) + dropped.total()
    asker = open_asker(config, report)
    with Journal(config.out.with_suffix(REPLIES_SUFFIX)) as journal:
        if journal.entries:
            report(f"{len(journal.entries):,} replies are there; going on from them.")
        remembering = Remembering(asker, journal)
        pairs = _instructions(texts, remembering, config, dropped)
        rows = [{"instruction": instruction, "input": "", "output": text} for instruction, text in pairs]
        if config.score:
            rows = _rated(rows, remembering, config, dropped)
    if not rows:
        raise DataError(f"Of {count:,} texts of {config.documents} no pair is left: {_account(dropped)}.")
    account = {
        "documents": sha256_file(config.documents),
        "model": asker.name,
        "dropped": dict(sorted(dropped.items())),
    }
    write_rows(config.out, rows, account)
    report(f"{config.out}: {len(rows):,} pairs of {count:,} texts")
    if dropped:
        report(f"dropped: {_account(dropped)}")
    report(remembering.cost())
    report(f"Next: litft prepare alpaca --checkpoint_dir CHECKPOINT --data_file {config.out}")
    return config.out


def read_texts(path: Path, dropped: Counter[str]) -> list[str]:
    """Gives the texts of a file in any form that `litft prepare text` reads, equal ones once.

    Args:
        path: the file.
        dropped: counts what is left out.

    Raises:
        DataError: the file cannot be read, or holds no text.
    """
    texts: dict[str, None] = {}
    for row in read_text(path):
        if isinstance(row, Rejected):
            dropped["no text in the row"] += 1
        elif isinstance(row, Row):
            text = row.conversation.messages[0].text.strip()
            if text in texts:
                dropped["equal to an earlier one"] += 1
            texts[text] = None
    if not texts:
        raise DataError(f"documents {path} holds no text.")
    return list(texts)


def read_instruction(reply: Reply, text: str) -> tuple[str, str | None]:
    """Gives the instruction in a reply, and why it cannot be used; None where it can.

    Args:
        reply: its first paragraph is the instruction.
        text: what the instruction is to ask for.
    """
    if reply.refused is not None:
        return "", "request refused"
    first, behind, _ = without_thought(reply.text).strip().partition("\n\n")
    found = first.removeprefix("Instruction:").strip()
    if len(found) > 1 and found[0] == found[-1] == '"':
        found = found[1:-1].strip()
    if not found:
        return "", "no instruction"
    if not reply.is_whole and not behind:
        return found, "cut off"
    if found.endswith(":"):
        return found, "ends in a colon"
    words = words_of(found)
    if len(words) >= FEWEST_COPIED and f" {' '.join(words)} " in f" {' '.join(words_of(text))} ":
        return found, "copied from the text"
    return found, None


def _instructions(
    texts: list[str], asker: Remembering, config: BacktranslateConfig, dropped: Counter[str]
) -> list[tuple[str, str]]:
    """Gives each text that got an instruction, with it."""
    seed = config.seed if config.temperature else None
    questions = [
        Question(ASKING.replace("{text}", text), config.max_new_tokens, config.temperature, stop=STOP, seed=seed)
        for text in texts
    ]
    pairs = []
    for text, reply in zip(texts, asker.ask_all(questions, "backtranslating"), strict=True):
        instruction, fault = read_instruction(reply, text)
        if fault is None:
            pairs.append((instruction, text))
        else:
            dropped[fault] += 1
    return pairs


def _rated(
    rows: list[dict[str, Any]], asker: Remembering, config: BacktranslateConfig, dropped: Counter[str]
) -> list[dict[str, Any]]:
    """Gives rows with their scores; those without one, or with too low a one, are dropped where there is a lowest."""
    prompts = (
        fill_prompt(PROMPT, RowText((Said(False, row["instruction"]), Said(True, row["output"])))) for row in rows
    )
    replies = asker.ask_all([Question(prompt, RATING_TOKENS) for prompt in prompts], "rating")
    made = []
    for row, reply in zip(rows, replies, strict=True):
        score = None if reply.refused is not None else read_score(reply.text)
        if config.min_score is not None and (score is None or score < config.min_score):
            dropped["no score" if score is None else f"score below {config.min_score:g}"] += 1
        else:
            made.append({**row, "score": score})
    return made


def _account(dropped: Counter[str]) -> str:
    """Says what was dropped, the most first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.most_common())
