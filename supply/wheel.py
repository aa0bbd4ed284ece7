"""Builds the wheel from the last commit alone, twice, and writes it only where both have the same bytes.

What is not committed is not in it. Its times are those of the commit, so that everybody who builds it gets these bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a wheel must not have: tests, benchmarks, caches, and what makes files that are shipped.
UNWANTED = r"(^|/)(tests?|benchmarks|scripts|supply|maker|__pycache__|\.[^/]*)(/|$)|\.(py[co]|ya?ml~|orig|log)$"


def main() -> int:
    """Builds, compares, looks inside; gives the exit code."""
    wheels = [build(), build()]
    (name, content), (_, again) = wheels
    if content != again:
        sys.stderr.write(f"Two builds of {name} differ.\n")
        return 1
    unwanted = [path for path in zipfile.ZipFile(io.BytesIO(content)).namelist() if re.search(UNWANTED, path)]
    if unwanted:
        sys.stderr.write(f"{name} has what no user needs: {', '.join(unwanted)}.\n")
        return 1
    (ROOT / "dist").mkdir(exist_ok=True)
    (ROOT / "dist" / name).write_bytes(content)
    sys.stdout.write(f"{hashlib.sha256(content).hexdigest()}  dist/{name}\n")
    return 0


def build() -> tuple[str, bytes]:
    """Gives the wheel's name and bytes, built in a folder of its own."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    told = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, check=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder)
        env = {**os.environ, "SOURCE_DATE_EPOCH": told.stdout.strip()}
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "."], cwd=folder, env=env, check=True, capture_output=True
        )
        (wheel,) = Path(folder, "dist").glob("*.whl")
        return wheel.name, wheel.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
