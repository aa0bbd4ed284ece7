"""How the answers to the fixed held-out prompts changed from validation to validation, word by word. Knows no files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import takewhile
from typing import NamedTuple

from litft.report.read import RunFolder

MOST_FRAMES = 24  # validations that the slider has
MOST_PROMPTS = 8
LONGEST = 3000  # characters of a text
SHORTEST_SHARED = 40  # of what prompts have in common, to be worth a line
ALIKE = 0.25  # below this share of equal words an answer is a new one, and what it replaced is not shown
SAME, NEW, GONE = "same", "new", "gone"
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(NamedTuple):
    """Words of an answer: the same as before, new, or gone."""

    kind: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """One prompt and its answers.

    Attributes:
        row: of test.pt.
        prompt, expected: what was fed, and what the data has.
        answers: step -> answer.
    """

    row: int
    prompt: str
    expected: str
    answers: dict[int, str]


def prompts_of(run: RunFolder) -> list[Prompt]:
    """Gives the prompts of a run in their order; lines without what is needed are left out."""
    found: dict[tuple[int, str], Prompt] = {}
    for sample in run.samples:
        step, row, prompt, answer = (sample.get(name) for name in ("step", "row", "prompt", "answer"))
        if isinstance(step, int) and isinstance(row, int) and isinstance(prompt, str) and isinstance(answer, str):
            new = Prompt(row, prompt, str(sample.get("expected", "")), {})
            found.setdefault((row, prompt), new).answers[step] = answer
    return list(found.values())


def compare(before: str, after: str) -> list[Piece]:
    """Gives an answer with what changed since the one before it.

    Args:
        before, after: the answers of two validations.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < ALIKE:
        return [Piece(NEW, after)]
    pieces = []
    for what, i, j, k, m in matcher.get_opcodes():
        if what == "equal":
            pieces.append(Piece(SAME, "".join(new[k:m])))
            continue
        pieces += [Piece(GONE, "".join(old[i:j]))] if i < j else []
        pieces += [Piece(NEW, "".join(new[k:m]))] if k < m else []
    return pieces


def choose_steps(steps: Sequence[int], kept: int | None, most: int = MOST_FRAMES) -> list[int]:
    """Gives evenly chosen steps, the first, the last, and one that must be kept among them.

    Args:
        steps: in order.
        kept: the step of the lowest held-out loss, if it is known.
        most: how many; one more with `kept`.
    """
    if len(steps) <= most:
        return list(steps)
    chosen = {steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)}
    return sorted(chosen if kept not in steps or kept is None else {*chosen, kept})


def answers_part(run: RunFolder) -> Iterator[str]:
    """Gives the slider and, for each prompt, its answer at each validation; without scripts all are shown."""
    prompts = prompts_of(run)
    if not prompts:
        yield '<p class="soft">None: the run took no samples, or was stopped before its first validation.</p>\n'
        return
    best = run.summary.get("best_step")
    all_steps = sorted({step for prompt in prompts for step in prompt.answers})
    steps = choose_steps(all_steps, best)
    losses = dict(run.held_out.known("val_loss"))
    labels = [_label(step, losses, best) for step in steps]
    yield '<div class="answers">\n'
    if len(steps) > 1:
        yield from _slider(labels)
    yield from _bounds(prompts, steps, all_steps)
    shared = _shared_beginning([prompt.prompt for prompt in prompts])
    if shared:
        yield f'<details><summary>All prompts begin alike</summary><div class="text asked said">{escape(shared)}</div>'
        yield "</details>\n"
    for prompt in prompts[:MOST_PROMPTS]:
        yield from _prompt(prompt, len(shared), steps)
    yield "</div>\n"


def _shared_beginning(prompts: Sequence[str]) -> str:
    """Gives the lines with which all prompts begin, as those of one frame do; nothing where that is little."""
    pairs = zip(min(prompts), max(prompts), strict=False)  # what the first and the last in order share, all share
    count = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    shared = prompts[0][: prompts[0][:count].rfind("\n") + 1]
    return shared if len(prompts) > 1 and len(shared) >= SHORTEST_SHARED else ""


def _label(step: int, losses: dict[int, float], best: object) -> str:
    """Says which validation it is."""
    loss = f", held-out loss {losses[step]:.4f}" if step in losses else ""
    return f"step {step:,}{loss}{', the lowest' if step == best else ''}"


def _slider(labels: Sequence[str]) -> Iterator[str]:
    """Gives the means to turn the pages."""
    told, last = escape(json.dumps(labels)), len(labels) - 1
    yield '<div class="slider"><button type="button" data-by="-1" aria-label="validation before">&larr;</button>'
    yield f'<input type="range" min="0" max="{last}" value="{last}" aria-label="validation" data-labels="{told}">'
    yield '<button type="button" data-by="1" aria-label="next validation">&rarr;</button> '
    yield f"<output>{escape(labels[-1])}</output></div>\n"


def _bounds(prompts: Sequence[Prompt], steps: Sequence[int], all_steps: Sequence[int]) -> Iterator[str]:
    """Says what is not shown, and what the marks mean."""
    notes = ["<ins>New</ins> and <del>gone</del> words since the validation before."]
    if len(steps) < len(all_steps):
        notes.append(f"{len(steps)} of {len(all_steps):,} validations, evenly chosen.")
    if len(prompts) > MOST_PROMPTS:
        notes.append(f"The first {MOST_PROMPTS} of {len(prompts):,} prompts.")
    yield f'<p class="soft">{" ".join(notes)} All answers are in samples.jsonl.</p>\n'


def _prompt(prompt: Prompt, shared: int, steps: Sequence[int]) -> Iterator[str]:
    """Gives a prompt with its answers.

    Args:
        prompt: it itself.
        shared: characters with which all prompts begin.
        steps: at which its answers are shown.
    """
    said = f"{'... ' if shared else ''}{cut(prompt.prompt[shared:])}"
    yield f'<article class="prompt">\n<div class="text asked"><b>prompt, row {prompt.row:,} of test.pt</b>'
    yield f'<div class="said">{escape(said)}</div></div>\n<div class="turning">\n'
    before: str | None = None
    for number, step in enumerate(steps):
        answer = prompt.answers.get(step)
        if answer is None:
            continue
        verdict = _verdict(prompt, before, answer)
        yield f'<div class="text answer" data-frame="{number}"><b>answer at step {step:,}{verdict}</b>'
        yield f'<div class="said">{_marked(before, answer)}</div></div>\n'
        before = answer
    expected = escape(cut(prompt.expected))
    yield f'</div>\n<div class="text"><b>expected</b><div class="said">{expected}</div></div>\n</article>\n'


def _verdict(prompt: Prompt, before: str | None, answer: str) -> str:
    """Says whether an answer is the expected one, and whether it changed."""
    right = "; as expected" if answer.strip() == prompt.expected.strip() else ""
    return f"{right}{'; unchanged' if answer == before else ''}"


def _marked(before: str | None, answer: str) -> str:
    """Gives an answer with its changes marked; the first one has none."""
    if not answer:
        return '<i class="soft">(nothing)</i>'
    if before is None or before == answer:
        return escape(cut(answer))
    tags = {SAME: "", NEW: "ins", GONE: "del"}
    parts = ((tags[piece.kind], escape(piece.text)) for piece in compare(cut(before), cut(answer)))
    return "".join(f"<{tag}>{text}</{tag}>" if tag else text for tag, text in parts)


def cut(text: str, longest: int = LONGEST) -> str:
    """Gives a text, the middle of a very long one left out, with a word that says so."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"
