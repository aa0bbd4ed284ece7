"""`make parity`: every family against the installed transformers, the largest difference of each check in its cell."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from parity_checks import CHECKS, build_pair
from parity_models import FAMILIES
from tqdm import tqdm

from litft.errors import LitftError


def main() -> int:
    """Prints the table; gives 1 if a cell is above what is allowed."""
    warnings.simplefilter("error")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    cells = {name: measure_family(name) for name in tqdm(FAMILIES, desc="Comparing families", disable=None)}
    header = f"{'family':<12}{'variations':>11}" + "".join(f"{check:>14}" for check in CHECKS)
    print(
        f"litft against transformers {transformers.__version__}, torch {torch.__version__}, float32", header, sep="\n"
    )
    for family, worst in cells.items():
        shown = "".join(f"{_cell(check, value):>14}" for check, value in worst.items())
        print(f"{family:<12}{len(FAMILIES[family]):>11}{shown}")
    allowed = "".join(f"{limit:>14.3g}" for _, limit in CHECKS.values())
    print(f"{'allowed':<23}{allowed}")
    bad = [f"{family}: {check}" for family, worst in cells.items() for check in worst if not _is_green(check, worst)]
    print("all green" if not bad else f"RED: {', '.join(bad)}")
    return int(bool(bad))


def measure_family(family: str) -> dict[str, float]:
    """Gives the largest difference of each check over a family's variations; infinite where one cannot be built."""
    worst = dict.fromkeys(CHECKS, 0.0)
    for variation in FAMILIES[family]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                pair = build_pair(family, variation, folder / "model")
            except LitftError as error:
                print(f"{family}, {variation}: {error}", file=sys.stderr)
                return dict.fromkeys(CHECKS, float("inf"))
            for check, (measure, _) in CHECKS.items():
                scratch = folder / check
                scratch.mkdir()
                worst[check] = max(worst[check], measure(pair, scratch))
    return worst


def _is_green(check: str, worst: dict[str, float]) -> bool:
    return worst[check] <= CHECKS[check][1]


def _cell(check: str, value: float) -> str:
    """Gives a difference as text, marked where it is too large."""
    return f"{value:.2g}" if value <= CHECKS[check][1] else f"{value:.2g} RED"


if __name__ == "__main__":
    sys.exit(main())
