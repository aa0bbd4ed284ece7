"""The rules of the challenge, checked against what a run wrote of itself: base, data, card and hours.

Source: challenge.md and rules.md of llm-efficiency-challenge.github.io. Who wrote the answers of a dataset is said in
`data/sources/NAME.py`, each with its source, and from there in the manifest of what was prepared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from litft.data.sources import SOURCES
from litft.submit.approved import LIST, judge_base
from litft.submit.helm import FaultError
from litft.submit.play import Finding, find
from litft.submit.record import MANIFEST_FILE, PROVENANCE_FILE, SUMMARY_FILE, Record

HOURS = 24
CARDS = re.compile(r"4090|A100")
HASHED = ("train.pt", "test.pt")


def check_rules(record: Record) -> Iterator[Finding]:
    """Gives what each rule comes to."""
    checks: dict[str, Callable[[Record], str]] = {
        "rule: base model": check_base,
        "rule: data": check_data,
        "rule: one card": check_card,
        "rule: 24 hours": check_hours,
    }
    for name, check in checks.items():
        yield find(name, partial(check, record))


def check_base(record: Record) -> str:
    """Looks the base up in the approved list."""
    if record.base is None:
        reason = f"nothing says which model the base is; name it with --base_repo ORG/NAME, and it is sought on {LIST}"
        raise FaultError(reason, verdict="?")
    verdict, sentence = judge_base(record.base)
    if verdict != "pass":
        raise FaultError(sentence, verdict=verdict)
    return sentence


def check_data(record: Record) -> str:
    """Looks for rows that a model wrote."""
    if record.final is None:
        raise FaultError("this checkpoint was not trained by litft, so its data is not known", verdict="?")
    sources: dict[str, dict[str, Any]] = record.manifest.get("sources", {})
    if not sources:
        raise FaultError(f"no {MANIFEST_FILE} in {record.data_dir}; name the data with --data_dir", verdict="?")
    _require_same(record)
    origins = {name: values.get("origin") or _origin_of(name) for name, values in sources.items()}
    written = [name for name, origin in origins.items() if origin == "model"]
    if written:
        raise FaultError(
            f"a model wrote the answers of {', '.join(written)}; the rules leave generated data out, unless that "
            "model's licence allows it"
        )
    unknown = [name for name, origin in origins.items() if origin != "human"]
    if unknown:
        raise FaultError(f"nothing says who wrote the answers of {', '.join(unknown)}; no model may have", verdict="?")
    return f"people wrote the answers of {', '.join(origins)}"


def _origin_of(name: str) -> str:
    """Gives who wrote the answers of a dataset that the manifest says nothing of."""
    return SOURCES[name].origin if name in SOURCES else "unknown"


def _require_same(record: Record) -> None:
    """Refuses a manifest of other data than was trained on.

    Raises:
        FaultError: a hash differs.
    """
    trained, files = record.provenance.get("sha256", {}), record.manifest.get("files", {})
    for name in HASHED:
        if trained.get(name) != files.get(name, {}).get("sha256"):
            raise FaultError(f"the {name} of {record.data_dir} is not the one that was trained on: its sha256 differs")


def check_card(record: Record) -> str:
    """Looks at what the run was trained on."""
    if record.final is None:
        raise FaultError("this checkpoint was not trained by litft, so its card is not known", verdict="?")
    processes = int(record.summary.get("processes", record.run.get("devices", 1) * record.run.get("num_nodes", 1)))
    device = str(record.provenance.get("device", "a device that is not named"))
    if processes > 1:
        raise FaultError(f"{processes} processes trained; the challenge allows one card")
    if not CARDS.search(device):
        raise FaultError(f"it was trained on {device}; the challenge allows one RTX 4090 or one A100 of 40 GB")
    return f"it was trained on one {device}"


def check_hours(record: Record) -> str:
    """Adds up what the run took."""
    if not record.summary:
        raise FaultError(
            f"there is no {SUMMARY_FILE} beside a {PROVENANCE_FILE}, so its time is not known", verdict="?"
        )
    seconds = spent_seconds(record.summary)
    if seconds > HOURS * 3600:
        raise FaultError(f"the run took {seconds / 3600:.1f} hours; {HOURS} are allowed")
    return f"the run took {seconds / 3600:.2f} of {HOURS} hours, validations and checkpoints included"


def spent_seconds(summary: dict[str, Any]) -> float:
    """Gives the seconds of a run: its steps, and what came between them."""
    within = ("data", "compute", "optimizer")  # of a step, which train_seconds counts
    between = (float(value) for name, value in summary.get("spent_seconds", {}).items() if name not in within)
    return float(summary["train_seconds"]) + sum(between)
