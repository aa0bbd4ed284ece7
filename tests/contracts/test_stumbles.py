"""What users stumbled over: what is left out, cut, kept, empty or out of reach is said, once and in few lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import tiny_hf
from tiny_run import make_config, make_world, methods
from tiny_text import write_checkpoint

from litft.asking.asker import Reply
from litft.cli import main
from litft.config.plan import build_plan
from litft.data.listing import _lengths
from litft.data.reading.lines import iter_prompts
from litft.errors import GenerationError
from litft.evaluate.judge import _refuse_unreadable
from litft.evaluate.tasks import quietly
from litft.evaluate.verdicts import outcome_of, read_verdict
from litft.train.describe import describe
from litft.train.setup import open_inputs


def plan_of(tmp_path: Path, **changes: object) -> str:
    inputs = open_inputs(make_config(tmp_path, **changes), methods()["lora"], lambda message: None)
    config = inputs.config
    return describe(inputs, build_plan(len(inputs.train_rows), config.train, config.optim, config.eval))


def test_more_steps_than_the_epochs_give_are_remarked(tmp_path: Path) -> None:
    make_world(tmp_path)
    assert "--max_steps 500 is not reached, as --epochs 4 gives 12; raise --epochs" in plan_of(
        tmp_path, train__max_steps=500
    )
    assert "is not reached" not in plan_of(tmp_path, train__max_steps=5)
    assert "is not reached" not in plan_of(tmp_path, train__epochs=None, train__max_steps=500)


def test_each_step_is_no_step_of_several(tmp_path: Path) -> None:
    make_world(tmp_path)
    told = plan_of(tmp_path, eval__interval=1, train__save_interval=2)
    assert "every step and before each checkpoint, every 2 steps" in told


def test_rows_that_do_not_fit_and_other_faults_are_told_with_the_first_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model")
    rows = [*tiny_hf.csv_lines(60), *("Say nothing,",) * 5, ",orphan", f"Say much,{'a' * 300}", f"More,{'b' * 400}"]
    Path("rows.csv").write_text("\n".join(rows) + "\n")
    words = ["prepare", "csv", "--checkpoint_dir", "model", "--data_file", "rows.csv", "--max_rejected_fraction", "1"]
    assert main([*words, "--max_seq_length", "200"]) == 0
    said = capsys.readouterr().err
    assert 'rejected line 62: "output" is empty, as 4 more' in said
    assert 'rejected line 67: "instruction" is empty\n' in said  # not hidden behind rows like the first
    assert "\n2 of 62 rows (3%) are longer than 200 tokens and were left out, the first of them line 68 with " in said


def test_the_list_of_datasets_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_lengths_that_no_row_has_are_not_drawn_one_by_one() -> None:
    counts = [3, 0, 0, 0, 0, 5, 0, 0, 0]
    lines = list(_lengths([(f"{number}", count) for number, count in enumerate(counts)]))
    assert [line.split()[0] for line in lines] == ["0", "1", "...", "4", "5", "6", "..."]
    assert sum(int(line.split()[1]) for line in lines if "..." not in line) == 8


def test_prompts_are_lines_of_text_or_json_everywhere(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": "Say red\n\n  Say blue\n",
        "a.jsonl": '{"prompt": "Say red"}\n\n{"prompt": "  Say blue"}\n',
        "a.lines": '{"prompt": "Say red"}\n{"prompt": "  Say blue"}',
    }.items():
        (tmp_path / name).write_text(content)
        assert [row["prompt"] for _, row in iter_prompts(tmp_path / name)] == ["Say red", "  Say blue"], name


def test_empty_replies_of_a_judge_have_advice_of_their_own() -> None:
    empty = [outcome_of((read_verdict(Reply(text), False), read_verdict(Reply(""), True))) for text in ("", " \n")]
    with pytest.raises(GenerationError, match="all are empty: a base model without a chat template"):
        _refuse_unreadable(empty, "judge-1", Path("kept"))
    rubbish = [*empty, outcome_of((read_verdict(Reply("Both."), False), read_verdict(Reply(""), True)))]
    with pytest.raises(GenerationError, match="let another model judge, or give it more room") as told:
        _refuse_unreadable(rubbish, "judge-1", Path("kept"))
    assert "all are empty" not in str(told.value)


def test_notices_of_the_harness_stay_out_of_the_way(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lm_eval.evaluator")
    with quietly():
        logger.warning("an inside matter")
        logger.error("no dataset")
    logger.warning("after")
    assert [record.message for record in caplog.records] == ["no dataset", "after"]


def test_answers_that_were_kept_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_hf.write_hf_folder(tmp_path / "tiny")
    tiny_hf.write_csv(tmp_path / "rows.csv")
    assert main(["convert", "from_hf", "--checkpoint_dir", "tiny"]) == 0
    assert main(["prepare", "csv", "--checkpoint_dir", "tiny", "--data_file", "rows.csv"]) == 0
    words = [
        "evaluate",
        "--checkpoint_dir",
        "tiny",
        "--data_dir",
        "data/csv",
        "--generate",
        "2",
        "--max_new_tokens",
        "2",
    ]
    capsys.readouterr()
    assert main(words) == 0
    assert "were kept" not in capsys.readouterr().err
    assert main(words) == 0
    assert "2 of 2 answers of tiny were kept in out/evaluate/" in capsys.readouterr().err


def test_the_task_of_the_page_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="needs litft[eval]")
    page = (Path(__file__).parents[2] / "tutorials" / "evaluate.md").read_text(encoding="utf-8")
    task, questions = page.split("```text\n")[1].split("```")[0], page.split("```json\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("my_tasks").mkdir()
    Path("my_tasks/my_task.yaml").write_text(task)
    Path("my_tasks/questions.jsonl").write_text(questions)
    tiny_hf.write_hf_folder(tmp_path / "tiny")
    assert main(["convert", "from_hf", "--checkpoint_dir", "tiny"]) == 0
    words = ["--tasks", "my_task", "--tasks_dir", "my_tasks", "--out_dir", "out"]
    assert main(["evaluate", "--checkpoint_dir", "tiny", *words]) == 0
    [model] = json.loads(Path("out/tasks.json").read_text())["models"]
    assert model["tasks"]["my_task"].keys() >= {"acc"} and len(questions.splitlines()) == 2
