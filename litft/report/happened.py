"""What a run was meant to do and what it did: its numbers, its time by what it went into, and where it ran.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from litft.checkpoint.disk import plain_size
from litft.data.view import Table
from litft.report.read import START_FILE, RunFolder

_SPENT = {
    "data": "making batches",
    "compute": "forward and backward",
    "optimizer": "optimizer step",
    "other": "rest of the steps",
    "validation": "validation and samples",
    "checkpoint": "waiting for checkpoints",
    "export": "exports",
}


def plain_seconds(seconds: float) -> str:
    """Gives a time as a person reads it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def state_of(run: RunFolder) -> str:
    """Says how a run ended, or how far it came."""
    steps = run.number("steps") if run.is_finished else run.number("step")
    planned = _plan(run).get("steps")
    if run.is_finished:
        return f"Finished after {steps or 0:,.0f} steps, by {run.summary.get('stopped_by', 'an unnamed bound')}."
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    return f"Not finished: its numbers end at step {steps or 0:,.0f}{of}; --resume auto goes on from its checkpoint."


def tiles_of(run: RunFolder) -> list[tuple[str, str, str]]:
    """Gives the numbers that matter most: a name, the number, and what is to be known of it."""
    held_out, train = run.held_out.known("val_loss"), run.train.known("loss")
    accuracy, seconds = run.held_out.known("val_accuracy"), run.number("train_seconds") or run.number("seconds")
    tiles: list[tuple[str, str, str]] = []
    if held_out:
        low, step = min((value, step) for step, value in held_out)
        tiles.append(("held-out loss", f"{held_out[-1][1]:.4f}", f"from {held_out[0][1]:.4f}"))
        tiles.append(("lowest held-out loss", f"{low:.4f}", f"at step {step:,}"))
    if accuracy:
        tiles.append(("token accuracy", f"{accuracy[-1][1]:.1%}", f"from {accuracy[0][1]:.1%}"))
    if train:
        tiles.append(("training loss", f"{train[-1][1]:.4f}", f"from {train[0][1]:.4f}"))
    if seconds:
        waited = sum(value for name, value in run.seconds().items() if name in ("validation", "checkpoint", "export"))
        tokens = run.number("tokens") or 0
        tiles.append(("training time", plain_seconds(seconds), f"and {plain_seconds(waited)} between steps"))
        tiles.append(("tokens per second", f"{tokens / seconds:,.0f}", f"{tokens:,.0f} tokens"))
    if memory := run.number("peak_memory_bytes"):
        tiles.append(("peak memory", plain_size(int(memory)), "at most"))
    if trained := run.summary.get("trainable_parameters") or _plan(run).get("trainable_parameters"):
        base = run.summary.get("parameters") or _plan(run).get("parameters")
        share = f"{trained / base:.2%} of the base's" if base else ""
        tiles.append(("trained parameters", f"{trained:,}", share))
    return tiles


def tiles_part(tiles: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Gives the tiles."""
    yield '<dl class="tiles">\n'
    for name, value, note in tiles:
        yield f"<div><dt>{escape(name)}</dt><dd><b>{escape(value)}</b> <small>{escape(note)}</small></dd></div>\n"
    yield "</dl>\n"


def numbers_table(runs: Sequence[RunFolder]) -> Table:
    """Gives the tiles of several runs as a table, a column for each."""
    tiles = [{name: f"{value}" for name, value, _ in tiles_of(run)} for run in runs]
    names = dict.fromkeys(name for each in tiles for name in each)
    rows = [("state", *("finished" if run.is_finished else "not finished" for run in runs))]
    rows += [(name, *(each.get(name, "-") for each in tiles)) for name in names]
    return Table("Numbers", ("", *(run.name for run in runs)), rows)


def _plan(run: RunFolder) -> dict[str, Any]:
    """Gives what the run planned; nothing in runs of older versions."""
    plan = run.start.get("plan")
    return plan if isinstance(plan, dict) else {}


def planned_table(run: RunFolder) -> Table:
    """Gives what was planned beside what happened."""
    plan, count = _plan(run), "{:,.0f}".format
    steps = run.number("steps") if run.is_finished else run.number("step")
    epochs = run.number("epochs") if run.is_finished else run.number("epoch")
    work = _work(run, plan)
    seconds = run.number("train_seconds") or run.number("seconds")
    rate = f"{work / seconds / 1e12:.3g} TFLOP/s" if work and seconds else "-"
    told: list[tuple[str, object, object, Callable[[Any], str]]] = [
        ("steps", plan.get("steps"), steps, count),
        ("examples", plan.get("examples"), run.number("examples"), count),
        ("epochs", plan.get("epochs"), epochs, "{:.2f}".format),
        ("tokens", plan.get("tokens"), run.number("tokens"), count),
        ("tokens with loss", plan.get("target_tokens"), run.number("target_tokens"), count),
        ("padding", None, run.number("padding_tokens"), count),
        ("validations", plan.get("validations"), len(run.held_out.step) or None, count),
        ("work in the model", plan.get("flops"), work, "{:.3g} FLOPs".format),
        ("end", plan.get("ends_by"), run.summary.get("stopped_by"), str),
    ]
    rows = [
        (name, *("-" if value is None else write(value) for value in (planned, done)))
        for name, planned, done, write in told
        if planned is not None or done is not None
    ]
    if rate != "-":
        rows.append(("work per second of training", "-", rate))
    notes = () if plan else (f"The run kept no plan: there is no {START_FILE}, as in runs of older versions.",)
    return Table("The plan, and what happened", ("", "planned", "happened"), rows, notes)


def _work(run: RunFolder, plan: dict[str, Any]) -> float | None:
    """Gives the FLOPs that were done: those of the plan, by the share of its examples that were computed."""
    flops, planned, done = plan.get("flops"), plan.get("examples"), run.number("examples")
    return flops * done / planned if flops and planned and done else None


def times_of(run: RunFolder) -> list[tuple[str, str, float]]:
    """Gives the seconds of a run by what they went into: a key, what it is, and seconds; the largest part first."""
    spent = run.seconds()
    whole = run.number("train_seconds") or run.number("seconds") or 0.0
    within = sum(spent.get(name, 0.0) for name in ("data", "compute", "optimizer"))
    if within:
        spent["other"] = max(whole - within, 0.0)
    told = [(name, _SPENT[name], seconds) for name, seconds in spent.items()]
    return sorted(told, key=lambda each: -each[2])


def times_part(run: RunFolder) -> Iterator[str]:
    """Gives a bar whose parts are as long as their times, and the times themselves."""
    times = times_of(run)
    total = sum(seconds for *_, seconds in times)
    if not total:
        yield '<p class="soft">The run kept no times.</p>\n'
        return
    told = ", ".join(f"{what} {seconds / total:.1%}" for _, what, seconds in times)
    yield f'<div class="split" role="img" aria-label="{escape(told)}">'
    yield "".join(f'<i class="{name}" style="flex: {seconds / total:.5f} 0 0"></i>' for name, _, seconds in times)
    yield '</div>\n<ul class="split-key">\n'
    for name, what, seconds in times:
        yield f'<li><i class="swatch {name}"></i> {what} <b>{plain_seconds(seconds)}</b> {seconds / total:.1%}</li>\n'
    yield "</ul>\n"


def environment(run: RunFolder) -> list[tuple[str, str]]:
    """Gives where a run ran, and of what it was made."""
    told = run.provenance
    system = told.get("system")
    facts = [("device", told.get("device")), *(system.items() if isinstance(system, dict) else ())]
    facts += [("processes", run.summary.get("processes")), ("seed", told.get("seed", run.settings.get("seed")))]
    versions = told.get("versions")
    facts += versions.items() if isinstance(versions, dict) else []
    facts += [("base", told.get("base", run.settings.get("checkpoint_dir")))]
    facts += [("data", told.get("data", run.settings.get("data_dir"))), ("tokenizer hash", told.get("tokenizer_hash"))]
    sums = told.get("sha256")
    facts += [(f"sha256 of {name}", value) for name, value in sums.items()] if isinstance(sums, dict) else []
    return [(name, str(value)) for name, value in facts if value is not None]
