"""Writes `tests/golden/ids` anew: `python tests/golden/write_ids.py [NAME ...]`. See README.md beside it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from golden_ids import IDS, NAMES, golden_text


def main(names: list[str]) -> int:
    """Writes the files of the styles named, or of all; says which of them changed."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"No style {', '.join(unknown)}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    IDS.mkdir(exist_ok=True)
    for name in names or NAMES:
        path = IDS / f"{name}.txt"
        with tempfile.TemporaryDirectory() as scratch:
            text = golden_text(name, Path(scratch))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"changed {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
