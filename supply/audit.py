"""Asks pip-audit for known weaknesses of the packages that litft needs; says so where it could ask nobody.

Takes the versions from stdin, as `versions.py --runtime` writes them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Prints what is known; gives the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "versions.txt"
        listed.write_text(sys.stdin.read(), encoding="utf-8")
        words = [
            "--requirement",
            str(listed),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run([sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["dependencies"] if done.stdout.startswith("{") else []
    asked = [package for package in found if "vulns" in package]
    if not asked:
        sys.stderr.write("The index's list of weaknesses could not be reached: no package was audited.\n")
        return 1
    bad = [(package, weak) for package in asked for weak in package["vulns"]]
    for package, weak in bad:
        mended = ", ".join(weak["fix_versions"]) or "no version yet"
        sys.stdout.write(f"{package['name']} {package['version']}: {weak['id']}, mended in {mended}\n")
    left = [package["name"] for package in found if "vulns" not in package]
    sys.stdout.write(
        f"{len(asked)} packages audited, {len(bad)} weaknesses known; not found: {', '.join(left) or 'none'}\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
