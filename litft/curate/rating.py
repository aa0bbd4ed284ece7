"""How a model is asked to rate an answer, and how its reply is read. Knows no endpoint.

Source: the idea and the scale are AlpaGasus's, arXiv 2307.08701 (Chen et al. 2023): a score from 0 to 5 alone on the
first line, reasons below it. The words are our own.
"""

from __future__ import annotations

import re
from pathlib import Path

from litft.data.texts import RowText
from litft.errors import ConfigError

LOWEST, HIGHEST = 0.0, 5.0

PROMPT = """\
Below stands a conversation between a user and an assistant. Rate the assistant's part as an example to learn from: is \
what it says true, does it do what the user asked for, and is it complete and clear?

Give a score from 0 (wrong or useless) to 5 (could hardly be better); half points are allowed. Write the score alone \
on the first line, as a number. On the lines after it, say in short why.

=== conversation ===
{conversation}
=== end of conversation ==="""

_FIELD = re.compile(r"\{(conversation|question|answer)\}")

# A first line that is a score and nothing else: 4, 4.5, Score: 4, **4/5**, 4 out of 5.
_SCORE = re.compile(
    r"[\s*_#`\"'\[(]*(?:(?:overall\s+)?(?:score|rating)[\s*_:`=\"'\[(]*)?(-?\d+(?:\.\d+)?)"
    r"[\s*_`\])]*(?:(?:/|out\s+of)\s*5(?:\.0)?)?[\s*_`\"'\]).]*",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r".*</think>", re.DOTALL)


def read_prompt(path: Path | None) -> str:
    """Gives the text that asks for a score: the user's own, or ours.

    Args:
        path: a file with at least one of `{conversation}`, `{question}` and `{answer}` in it; None for ours.

    Raises:
        ConfigError: it cannot be read, or has no place for what is rated.
    """
    if path is None:
        return PROMPT
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt {path} cannot be read: {error}.") from error
    if not {"conversation", "answer"} & set(_FIELD.findall(text)):
        raise ConfigError(f"prompt {path} holds neither {{conversation}} nor {{answer}}; write there what is rated.")
    return text


def fill_prompt(prompt: str, row: RowText) -> str:
    """Puts what a row says into a prompt; braces that the row itself holds stay as they are.

    Args:
        prompt: as `read_prompt` gives it.
        row: `{conversation}` is all of it by turns, `{question}` what was asked, `{answer}` what was answered.
    """
    turns = (f"{'Assistant' if turn.is_answer else 'User'}:\n{turn.text}" for turn in row.turns)
    texts = {"conversation": "\n\n".join(turns), "question": row.asked, "answer": row.answered}
    return _FIELD.sub(lambda found: texts[found[1]], prompt)


def read_score(reply: str) -> float | None:
    """Gives the score that a reply's first line is; None where it is none, or out of range.

    Args:
        reply: what the model said; a thought before `</think>` is left out.
    """
    first = next(iter(_THOUGHT.sub("", reply).strip().splitlines()), "")
    found = _SCORE.fullmatch(first)
    score = None if found is None else float(found[1])
    return score if score is not None and LOWEST <= score <= HIGHEST else None
