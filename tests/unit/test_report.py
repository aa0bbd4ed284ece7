"""`report.html`: what it shows of real runs, of broken and old ones, of several; and that it can hurt nobody."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from run_folders import HACK, numbers_in, samples, steps, train_world, write_run
from tiny_run import make_config, make_world, methods, open_run, with_step_limit

from litft.cli import find_command, main
from litft.config.leaves import told_leaves
from litft.data.html import generator_of
from litft.report.answers import MOST_FRAMES, choose_steps, compare
from litft.report.page import UPLOT, page_of
from litft.report.read import read_run
from litft.report.rows import never_learned
from litft.report.settings import command_again, defaults_for
from litft.report.thin import MOST_POINTS, thin
from litft.report.write import write_report
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.loss import cross_entropy


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run, on rows of two sources."""
    return train_world(tmp_path_factory.mktemp("report") / "world")


def page_for(*folders: Path) -> str:
    return page_of([read_run(folder, folder.name) for folder in folders])


def said(page: str) -> str:
    """The text of a page, without its scripts and styles."""
    bare = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


def test_a_run_ends_with_its_report(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    summary = json.loads((trained / "summary.json").read_text())
    provenance = json.loads((trained / "final" / "provenance.json").read_text())
    assert generator_of("report") in page[:300] and "<h1>Report: out/lora</h1>" in page
    told = said(page)
    assert f"Finished after {summary['steps']} steps, by epochs." in told
    assert f"held-out loss {summary['val_loss']:.4f} from {summary['first_val_loss']:.4f}" in told
    for digest in (provenance["sha256"]["base"], provenance["sha256"]["train.pt"], provenance["tokenizer_hash"]):
        assert digest in told
    assert "Memory, the most so far" in told and "Padding among the positions" in told
    assert "forward and backward" in told and "validation and samples" in told
    assert "optim.learning_rate 0.01 0.0003" in told  # not the default
    assert "optim.weight_decay" not in told  # the default
    assert len(page) < 300_000


def test_the_curves_are_the_metrics(trained: Path) -> None:
    with (trained / "logs" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    numbers = numbers_in((trained / "report.html").read_text(encoding="utf-8"))
    [run] = numbers["runs"]
    for part, column in (("train", "loss"), ("train", "tokens_per_second"), ("held_out", "val_accuracy")):
        told = [line for line in lines if line["loss" if part == "train" else "val_loss"]]
        assert run[part]["step"] == [int(line["step"]) for line in told]
        assert run[part]["tokens"] == [int(line["tokens"]) for line in told]
        assert run[part][column] == pytest.approx([float(line[column]) for line in told], rel=1e-4)
    sources = [json.loads(line["val_loss_by_source"]) for line in lines if line["val_loss"]]
    assert run["held_out"]["val_loss_by_source:pears"] == pytest.approx([each["pears"] for each in sources], rel=1e-4)
    padding, tokens = (sum(int(lines[-1][name]) for _ in "1") for name in ("padding_tokens", "tokens"))
    assert 0 <= min(run["train"]["padding_share"]) <= padding / (padding + tokens) <= max(run["train"]["padding_share"])


def test_what_was_planned_stands_beside_what_happened(trained: Path) -> None:
    plan, summary = (json.loads((trained / name).read_text()) for name in ("start.json", "summary.json"))
    for name in ("steps", "examples", "tokens", "target_tokens"):
        assert plan["plan"][name] == summary[name]
    told = said((trained / "report.html").read_text(encoding="utf-8"))
    assert f"tokens {summary['tokens']:,} {summary['tokens']:,}" in told
    with (trained / "logs" / "metrics.csv").open() as file:
        validations = sum(1 for line in csv.DictReader(file) if line["val_loss"])
    assert f"validations {plan['plan']['validations']} {validations}" in told


def test_the_hardest_rows_are_named_with_their_texts(trained: Path) -> None:
    told = said((trained / "report.html").read_text(encoding="utf-8"))
    with (trained / "row_losses.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -float(row["last_loss"]))
    hardest = told.partition("Highest loss")[2].partition("Never learned")[0]
    found = re.findall(r"row (\d+) of (\w+): ([\d.]+) at step (\d+), ([\d.]+) at first", hardest)
    assert [int(row) for row, *_ in found] == [int(row["row"]) for row in rows[: len(found)]] and len(found) == 10
    assert found[0][1] == rows[0]["source"] and float(found[0][2]) == pytest.approx(
        float(rows[0]["last_loss"]), rel=1e-3
    )
    unlearned = sum(float(row["last_loss"]) >= float(row["first_loss"]) for row in rows)
    assert f"{unlearned} of {len(rows)} rows that were computed more than once" in told
    assert hardest.count(" asked ") == 10


def test_rows_of_other_data_get_no_texts(trained: Path, tmp_path: Path) -> None:
    rows = "row,source,target_tokens,first_loss,last_loss,last_step\n0,plums,999,2.0,3.0,5\n1,pears,3,2.0,1.0,5\n"
    settings = (trained / "run.yaml").read_text()
    told = said(page_for(write_run(tmp_path / "a", [], settings=settings, row_losses__csv=rows)))
    assert "is no longer what was trained on" in told and "row 0 of plums: 3 at step 5, 2 at first" in told
    assert "1 of 2 rows that were computed more than once (50.0%)" in told


def test_words_that_changed_are_marked(tmp_path: Path) -> None:
    assert compare("a red pear", "a green pear") == [
        ("same", "a "), ("gone", "red"), ("new", "green"), ("same", " pear"),
    ]  # fmt: skip
    assert compare("one", "wholly other words") == [("new", "wholly other words")]
    folder = write_run(tmp_path / "a", steps(30), samples__jsonl=samples("a red pear", "a green pear", "pear"))
    page = page_for(folder)
    assert "a <del>red</del><ins>green</ins> pear" in page
    assert page.count("data-frame=") == 3 and 'max="2" value="2"' in page
    assert "answer at step 20; as expected" in page and "as expected" not in page.partition("answer at step 20")[0]


def test_of_many_validations_some_are_shown_the_best_among_them() -> None:
    chosen = choose_steps(range(1000), kept=501)
    assert len(chosen) <= MOST_FRAMES + 1 and {0, 501, 999} <= set(chosen)
    assert choose_steps(range(5), kept=None) == list(range(5))


def test_what_comes_from_data_is_text(tmp_path: Path) -> None:
    name = "x'\"&<img src=q onerror=alert(1)>"
    lines = [{**line, "val_loss_by_source": json.dumps({HACK: 1.5}) if line["val_loss"] else ""} for line in steps(20)]
    answers = samples(HACK, f"{HACK} & more", expected=HACK, prompt=HACK + "</textarea>")
    rows = f'row,source,target_tokens,first_loss,last_loss,last_step\n0,"{HACK}",9,2.0,3.0,5\n'
    spikes = json.dumps({"step": 3, "loss": 9.0, "median": 1.0, "rows": [{"row": HACK, "loss": 1.0}]}) + "\n"
    start = json.dumps({"method": HACK, "plan": {"ends_by": HACK}, "provenance": {"device": HACK}})
    folder = write_run(
        tmp_path / name,
        lines,
        settings=f"data_dir: '{HACK}'\n'{HACK}': '{HACK}'\n",
        samples__jsonl=answers,
        row_losses__csv=rows,
        spikes__jsonl=spikes,
        start__json=start,
    )
    for page in (page_for(folder), page_for(folder, write_run(tmp_path / "other", steps(20)))):
        assert HACK not in page and "<img" not in page and "</textarea>" not in page
        assert page.count("<script") == 3  # its numbers, and the two that draw them
        assert numbers_in(page)["runs"][0]["held_out"][f"val_loss_by_source:{HACK}"] == [1.5, 1.5, 1.5]


def test_the_page_may_run_its_own_scripts_and_fetch_nothing(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; ")
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    allowed = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy[1].partition("script-src ")[2].split() == [f"'sha256-{digest}'" for digest in allowed]
    assert "uPlot" in scripts[0] and len(scripts) == 2
    assert not re.search(r"\s(src|href)=\"(?!#)", page) and "@import" not in page and "url(" not in page


def test_the_library_is_the_one_that_was_published() -> None:
    digest = hashlib.sha256(UPLOT.read_bytes()).hexdigest()
    assert digest == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"  # uplot 1.6.32 of npm
    assert "The MIT License" in (UPLOT.parent / "LICENSE").read_text()


def test_a_killed_run_says_how_far_it_came(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    run = open_run(make_config(world, train__epochs=4), methods()["lora"])
    fit(with_step_limit(run, 5), cross_entropy)
    metrics = world / "out" / "logs" / "metrics.csv"
    metrics.write_text(metrics.read_text() + "6,48,1")  # a line cut short
    told = said(page_for(world / "out"))
    assert "Not finished: its numbers end at step 5 of 5" in told
    assert "row_losses.csv is written at the end of a run" in told
    assert run.inputs.hashes["base"] in told  # known before the end


def test_runs_of_other_versions_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    lines = [{"step": step, "loss": loss} for step, loss in enumerate((3.0, math.nan, math.inf, 1.0), start=1)]
    folder = write_run(tmp_path / "old", lines, samples__jsonl='{"step": 1}\n', summary__json="{broken")
    told = said(page_for(folder))
    assert "2 values of loss are not finite and not drawn" in told and "3 to 1." in told
    assert "summary.json cannot be read and is left out" in told
    assert "The run kept no plan" in told and "None: the run took no samples" in told
    assert "Not shown: There is no data_dir nowhere." in told
    assert '<input type="radio" name="axis" value="tokens" disabled>' in page_for(folder)
    assert "None: logs/metrics.csv holds no numbers yet." in said(page_for(write_run(tmp_path / "empty", [])))


def test_a_hundred_thousand_steps_keep_their_peaks(tmp_path: Path) -> None:
    lines = [{"step": step, "tokens": step, "loss": 50.0 if step == 77_777 else 1.0} for step in range(1, 100_001)]
    folder = write_run(tmp_path / "long", lines)
    curves = thin(read_run(folder, "long").train)
    assert len(curves.step) == MOST_POINTS and curves.step[-1] == 100_000 and curves.group == 200
    assert max(value or 0 for value in curves.columns["loss:high"]) == 50.0
    page = page_for(folder)
    assert "A point is the mean of up to 200 lines of logs/metrics.csv" in said(page) and len(page) < 200_000


def test_ten_runs_lie_over_each_other(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"run-{number}", steps(2000), settings=f"seed: {number}\ndata_dir: d\nlora: {{r: 8}}\n")
        for number in range(10)
    ]
    page = page_for(*folders)
    numbers = numbers_in(page)
    assert len(page) < 1_500_000
    assert [len(chart["series"]) for chart in numbers["charts"]] == [10] * len(numbers["charts"])
    assert {chart["title"].partition(",")[0] for chart in numbers["charts"]} >= {"Held-out loss", "Training loss"}
    told = said(page)
    assert "seed 0 1 2 3 4 5 6 7 8 9" in told and "lora.r" not in told.partition("run-0 Not finished")[0]


def test_the_command_line_names_runs_finals_and_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    one, two = (write_run(sweep / name, steps(10)) for name in ("one", "two"))
    (one / "final").mkdir()
    (one / "final" / "run.yaml").write_text("seed: 1\n")
    assert main(["report", str(one / "final")]) == 0 and (one / "report.html").exists()
    assert main(["report", str(sweep), "--out", "both.html"]) == 0
    assert len(numbers_in(Path("both.html").read_text())["runs"]) == 2
    assert main(["report", str(one), str(two), str(one)]) == 0
    assert "<h1>Report: 2 runs</h1>" in Path("report.html").read_text()
    capsys.readouterr()
    Path("mine.html").write_text("mine")
    for words, sentence in (
        ([str(tmp_path / "none")], "is no run: there is no such folder; name the out_dir of litft finetune"),
        ([str(tmp_path / "sweep" / "one" / "logs")], "is no run: it has no run.yaml"),
        ([str(one), "--out", "mine.html"], "out mine.html exists and is no page of litft report"),
    ):
        assert main(["report", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert Path("mine.html").read_text() == "mine"


def test_a_report_that_cannot_be_written_loses_no_run(tmp_path: Path) -> None:
    world, told = make_world(tmp_path), []
    run = open_run(make_config(world, train__epochs=1), methods()["lora"])
    run = dataclasses.replace(run, inputs=dataclasses.replace(run.inputs, report=told.append))
    progress = fit(run, cross_entropy)
    (world / "out" / "report.html").mkdir()
    assert finish(run, progress)["steps"] == 3
    assert (world / "out" / "final" / "lora.safetensors").exists() and (world / "out" / "summary.json").exists()
    assert [line for line in told if "report.html is not written (" in line and "litft report" in line]


def test_the_page_says_how_to_repeat_the_run(trained: Path) -> None:
    words = command_again(read_run(trained, "trained")).split()
    command, rest = find_command(words[1:])
    assert command.words == ("repeat",) and rest == [f"--run={trained}"]
    assert f"litft repeat {trained}" in (trained / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["lora", "adapter", "full"])
def test_the_defaults_are_those_of_the_method(method: str) -> None:
    assert defaults_for(method)["optim.learning_rate"] == {"lora": 3e-4, "adapter": 3e-3, "full": 2e-5}[method]
    assert dict(told_leaves({"a": {"b": 1}, "c": 2})) == {"a.b": 1, "c": 2}


def test_a_page_is_replaced_whole(trained: Path) -> None:
    before = (trained / "report.html").read_bytes()
    write_report([trained], trained / "report.html")
    assert (trained / "report.html").read_bytes() == before


def test_a_row_that_was_known_from_the_start_is_not_called_unlearned(tmp_path: Path) -> None:
    lines = ["row,source,target_tokens,first_loss,last_loss,last_step", "0,a,9,0.07,0.08,9", "1,a,9,1.5,1.6,9"]
    run = write_run(tmp_path / "run", steps(9), row_losses__csv="\n".join(lines) + "\n")
    assert [row.row for row in never_learned(read_run(run, "a"))] == [1]
