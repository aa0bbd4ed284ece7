"""The pages that litft writes, in Chromium: what a reader sees and does, no errors, no requests, and no barriers.

Barriers are found by axe-core. The tests are skipped where there is no Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from run_folders import HACK, samples, steps, train_world, write_run

from litft.config.inspect import InspectConfig
from litft.data.inspect import inspect
from litft.data.view import Table
from litft.evaluate.page import Comparison, Text
from litft.evaluate.page import page_of as evaluate_page
from litft.report.write import write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    run = train_world(folder / "world")
    write_report([run], folder / "report.html")
    answers = samples("a red pear", f"a green pear {HACK}", f"a pear {HACK}", expected=HACK)
    others = [write_run(folder / name, steps(60), samples__jsonl=answers) for name in ("one", "numbers")]
    write_report([run, *others], folder / "several.html")
    write_report([others[0]], folder / "by-hand.html")
    list(
        inspect(
            InspectConfig(
                data_dir=folder / "world" / "fruit",
                html=folder / "inspect.html",
                checkpoint_dir=folder / "world" / "model",
            )
        )
    )
    texts = [Text("a", "said", is_chosen=True), Text("b", "other")]
    table = Table("Loss", ("model", "loss"), [("a", "1.5"), ("b", "1.6")], ("a note",))
    comparisons = [Comparison("row 0", "Why?", texts, ("a note",))]
    told = "".join(evaluate_page("fruit", "evaluate", [("data", "fruit")], [table], "Answers", comparisons))
    (folder / "evaluate.html").write_text(told, encoding="utf-8")
    return folder


class Opened(NamedTuple):
    """A page, what its console said, and what it asked for."""

    page: Any
    said: list[str]
    asked: list[str]


def open_page(browser: Any, path: Path, size: dict[str, int], scheme: str = "light") -> Opened:
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    return Opened(page, said, asked)


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("report", PHONE, "dark"),
        ("report", DESKTOP, "light"),
        ("several", PHONE, "light"),
        ("by-hand", DESKTOP, "dark"),
    ],
    ids=["phone", "desktop", "several", "by hand"],
)
def test_it_is_drawn_without_errors_and_without_requests(
    browser: Any, pages: Path, tmp_path: Path, name: str, size: dict[str, int], scheme: str
) -> None:
    path = pages / f"{name}.html"
    page, said, asked = open_page(browser, path, size, scheme)
    charts = page.locator("figure[data-chart]").count()
    assert charts >= 4 and page.locator("canvas").count() == charts
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(
        "[...document.querySelectorAll('canvas')].every((each) => each.getBoundingClientRect().width > 200)"
    )
    shot = page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(shot) > 20_000
    assert page.evaluate("window.hacked") is None
    assert said == [] and asked == [path.as_uri()]
    page.close()


def test_the_keyboard_reads_and_zooms_and_the_switch_counts_tokens(browser: Any, pages: Path) -> None:
    page = open_page(browser, pages / "by-hand.html", DESKTOP).page
    figure = page.locator("figure[data-chart]").first
    plot, read = figure.locator(".plot"), figure.locator(".read")
    plot.focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 60), ("ArrowLeft", 59)):
        page.keyboard.press(key)
        page.wait_for_function(
            "([at, start]) => at.textContent.startsWith(start)", arg=[read.element_handle(), f"step {step}: "]
        )
    assert "held out 2.167" in read.text_content()  # of step 50, the last one before
    page.keyboard.press("+")
    assert page.locator("[data-all]").is_enabled()
    page.keyboard.press("Escape")
    assert page.locator("[data-all]").is_disabled()
    page.get_by_label("tokens", exact=True).check()
    plot.focus()
    page.keyboard.press("End")
    page.wait_for_function("(at) => at.textContent.startsWith('tokens 6,000: ')", arg=read.element_handle())


def test_a_name_hides_its_line_in_each_chart(browser: Any, pages: Path) -> None:
    page = open_page(browser, pages / "several.html", DESKTOP).page
    buttons = page.locator("button[data-key='run 1']")
    assert buttons.count() >= 4
    buttons.first.click()
    assert page.locator("button[data-key='run 1'][aria-pressed=false]").count() == buttons.count()
    assert page.locator("button[data-key='run 0'][aria-pressed=false]").count() == 0


def test_the_slider_turns_to_what_was_answered_before(browser: Any, pages: Path) -> None:
    page = open_page(browser, pages / "by-hand.html", PHONE).page
    shown = page.locator("[data-frame]:visible .said")
    assert shown.count() == 1 and shown.locator("del").count()
    page.locator("button[data-by='-1']").click()
    assert shown.locator("ins").first.text_content() == "green"
    page.locator("input[type=range]").press("Home")
    assert shown.all_text_contents() == ["a red pear"]
    assert page.locator("output").text_content() == "step 0, held-out loss 3.0000"


@pytest.mark.parametrize("name", ["report", "several", "inspect", "evaluate"])
def test_axe_finds_no_barrier(browser: Any, pages: Path, name: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    size, scheme = (PHONE, "dark") if name in ("report", "inspect") else (DESKTOP, "light")
    page = open_page(browser, pages / f"{name}.html", size, scheme).page
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []
    page.close()
