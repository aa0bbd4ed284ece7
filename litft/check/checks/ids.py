"""The ids that were prepared are those that generate, chat and serve feed for the same texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from litft.check.bench import Bench
from litft.check.finding import CannotTellError, Check, NotSoError
from litft.errors import ConfigError
from litft.text.conversation import ASSISTANT, SYSTEM, USER, Conversation, Message
from litft.text.encoding import Style, encode_prompt
from litft.text.frames import ANSWER, PROMPT, Frames
from litft.text.tokenizer import Tokenizer
from litft.train.state import trained_style

ROWS = 50
LOST = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that are no text, which cannot be fed again
Asked = list[str]  # the texts before an answer: a system text or an input may be among them


def run(bench: Bench) -> str:
    """Reads what the first rows say, has the style write it anew, and compares the ids before their last answer."""
    inputs, data = bench.inputs, bench.inputs.train
    style = trained_style(inputs)
    frames = Frames(inputs.tokenizer, style)
    found: dict[str, list[int]] = {"equal": [], "other": [], "unread": []}
    for row in range(min(ROWS, len(data))):
        ids, mask = (part.tolist() for part in data.row(row))
        if not all(mask[1:]):  # else nobody asked for it
            found[_read_back(inputs.tokenizer, style, frames, ids, mask)].append(row)
    equal, other, unread = found.values()
    if other or (unread and not equal):
        what = f"of {sum(map(len, found.values()))} rows {len(other)} are fed with other ids"
        rows = f"{len(unread)} are not framed as {style.name} frames them; the first is row {(other + unread)[0]}"
        raise NotSoError(f"{what}, {rows} of train.pt; litft inspect shows it")
    if not equal:
        raise CannotTellError("the rows are texts that nobody asked for, fed as they are")
    rest = f"; {len(unread)} could not be read back, as rows that were cut" if unread else ""
    return f"{len(equal)} rows through {style.name} and back, id for id{rest}"


def _read_back(tokenizer: Tokenizer, style: Style, frames: Frames, ids: list[int], mask: list[bool]) -> str:
    """Says of a row whether what it says is fed as it was prepared: equal, other or unread."""
    parts = frames.parts(ids, mask)
    if parts is None or any(LOST in text for _, text in parts):
        return "unread"
    asked, answers = _turns(parts)
    if not answers or not all(asked):
        return "unread"
    for conversation in _conversations(asked, answers[:-1]):
        try:
            fed = encode_prompt(tokenizer, style, conversation)
        except ConfigError:  # the style has no place for it; another reading may fit
            continue
        if fed == ids[: len(fed)] and len(fed) < len(ids):
            return "equal"
    return "other"


def _turns(parts: Sequence[tuple[str, str]]) -> tuple[list[Asked], list[str]]:
    """Gives the texts before each answer, and the answers."""
    asked: list[Asked] = [[]]
    answers = []
    for kind, text in parts:
        if kind == PROMPT:
            asked[-1].append(text)
        elif kind == ANSWER:
            answers.append(text)
            asked.append([])
    return asked[: len(answers)], answers


def _conversations(asked: Sequence[Asked], answers: Sequence[str]) -> Iterator[Conversation]:
    """Gives what was said, up to the last question, in each way that its texts can be read.

    Sentencepiece may begin a text with a space that nobody wrote.
    """
    for has_system in (False, True):
        for cut in ("", " "):
            told = [_messages([text.removeprefix(cut) for text in asked[0]], has_system)]
            told += [_messages([text.removeprefix(cut) for text in each], False) for each in asked[1:]]
            if not all(told):
                continue
            pairs = zip(told, [*answers, None], strict=True)
            yield Conversation(
                tuple(
                    message
                    for turn, answer in pairs
                    for message in (*turn, *([] if answer is None else [Message(ASSISTANT, answer)]))
                )
            )


def _messages(texts: Sequence[str], has_system: bool) -> list[Message]:
    """Gives the texts before an answer as messages; nothing where there are too many or too few."""
    system = [Message(SYSTEM, texts[0])] if has_system else []
    rest = texts[len(system) :]
    return [*system, Message(USER, rest[0], "".join(rest[1:]))] if len(rest) in (1, 2) else []


CHECK = Check("ids", "prompts are fed to the model as they were prepared", run)
