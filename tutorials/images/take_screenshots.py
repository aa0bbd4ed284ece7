"""Takes the pictures of the README from the folder of a `litft demo`, by the Chromium of this machine.

`python tutorials/images/take_screenshots.py out/demo tutorials/images`; needs what `pip install 'litft[dev]'` brings.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from litft.cli import main

SIZE = {"width": 1280, "height": 1000}


def take(demo: Path, folder: Path) -> None:
    """Writes the report of the demo's run, and the page of its data, and takes a picture of each.

    Args:
        demo: as `litft demo` leaves it.
        folder: where the pictures go.
    """
    pages = Path(tempfile.mkdtemp())
    report, inspect = pages / "report.html", pages / "inspect.html"
    main(["report", str(demo / "lora"), "--out", str(report)])
    main(["inspect", str(demo / "data"), "--checkpoint_dir", str(demo / "model"), "--html", str(inspect)])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(report.as_uri())
        page.screenshot(path=folder / "report.png")
        page.goto(inspect.as_uri())
        page.evaluate("document.getElementById('rows').scrollIntoView()")
        page.screenshot(path=folder / "inspect.png")
        browser.close()
    shutil.rmtree(pages)


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:3]))
