"""`litft evaluate --tasks`: the harness's numbers for our model are those for its own, on the exported checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from tiny_export import add_tokenizer, write_base, write_final
from tiny_text import BOS, EOS

from litft.cli import main
from litft.config.convert import ToHfConfig
from litft.config.evaluate import EvaluateConfig
from litft.config.run import LoRAConfig
from litft.errors import ConfigError, DataError, GenerationError
from litft.evaluate.command import evaluate
from litft.evaluate.subject import Subject
from litft.evaluate.tasks import check_names
from litft.export.hf import to_hf
from litft.methods.lora import LoRA
from litft.text.conversation import dialogue
from litft.text.encoding import encode_conversation, encode_prompt

pytest.importorskip("lm_eval", reason="needs litft[eval]")

from litft.evaluate.harness import HarnessModel

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)

COLOURS = ("red", "green", "blue", "black")
CONTEXT = 160


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `base/`, `final/` of a LoRA run, `hf/` exported from it, and `tasks/`."""
    folder = tmp_path_factory.mktemp("harness")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    sizes = {"vocab_size": 320, "max_position_embeddings": CONTEXT, "bos_token_id": BOS, "eos_token_id": EOS}
    base = add_tokenizer(write_base(folder / "base", "llama", "gqa", **sizes))
    write_final(folder / "final", base, LoRA(LoRAConfig(r=3, alpha=5, targets=("q", "v"))))
    to_hf(ToHfConfig(checkpoint_dir=folder / "final", out_dir=folder / "hf", certificate="off"))
    write_tasks(folder / "tasks")
    return folder


def write_tasks(folder: Path) -> None:
    """Writes four tasks, one of each kind of output and one whose choices are the contexts, with their questions."""
    folder.mkdir()
    rows = [
        {"question": f"Which box is {COLOURS[number % 4]}?", "answer": number % 4, "said": f"Box {number} is it."}
        for number in range(10)
    ]
    (folder / "rows.json").write_text("\n".join(json.dumps(row) for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "{{question}}\nAnswer:",
        "metadata": {"version": 1},
    }
    choice = {"output_type": "multiple_choice", "doc_to_target": "answer", "metric_list": metrics("acc", "acc_norm")}
    tasks: dict[str, dict[str, Any]] = {
        "box_letters": {**choice, "doc_to_choice": ["A", "B", "C", "D"]},
        "box_words": {**choice, "doc_to_choice": list(COLOURS), "description": "Boxes and their colours.\n\n"},
        "box_texts": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}} {{said}} " + "Nobody knows why. " * 12,
            "metric_list": metrics("word_perplexity", "bits_per_byte"),
        },
        "box_answers": {
            "output_type": "generate_until",
            "doc_to_target": "{{said}}",
            "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 12},
            "metric_list": metrics("exact_match"),
        },
        "box_begun": {**choice, "doc_to_choice": list(COLOURS), "gen_prefix": "The box is"},
    }
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}))


def metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name} for name in names]


TASKS = ("box_letters", "box_words", "box_texts", "box_answers", "box_begun")


@pytest.fixture(scope="module")
def manager(world: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(world / "tasks"), include_defaults=False)


def samples_of(model: Any, manager: Any, **options: Any) -> dict[str, Any]:
    """Gives all that the harness computes, down to the answer to each question."""
    from lm_eval.evaluator import simple_evaluate

    results = simple_evaluate(model=model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, **options)
    return {
        name: [(sample["arguments"], sample["resps"]) for sample in samples]
        for name, samples in results["samples"].items()
    } | {"results": results["results"]}


def theirs(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2, max_length=CONTEXT)


def close(found: Any, expected: Any) -> bool:
    """Says whether two results are the same but for the rounding of numbers."""
    if isinstance(expected, float) and not isinstance(expected, bool):
        return bool(found == pytest.approx(expected, abs=2e-4, rel=2e-5))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(found == expected)


@pytest.mark.parametrize("options", [{}, {"num_fewshot": 2}, {"apply_chat_template": True, "num_fewshot": 1}])
def test_the_numbers_are_those_of_the_harness_itself(world: Path, manager: Any, options: dict[str, Any]) -> None:
    ours = samples_of(HarnessModel(Subject(world / "final"), 2, 3, 0), manager, **options)
    expected = samples_of(theirs(world / "hf"), manager, **options)
    for task in TASKS:
        for mine, their in zip(ours[task], expected[task], strict=True):
            assert close(mine, their), (task, mine, their)
    assert close(ours["results"], expected["results"])
    assert ours["results"]["box_letters"].keys() >= {"acc,none", "acc_norm,none"}
    answers = {answer for _, [[answer]] in ours["box_answers"]}
    assert any(answers) and (options or len(answers) > 1)


def test_a_chat_is_asked_with_the_ids_of_training(world: Path) -> None:
    subject = Subject(world / "final")
    model = HarnessModel(subject, 2, 3, 0)
    told = [
        {"role": "user", "content": "Hi </s>"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "?"},
    ]
    text = model.apply_chat_template(told)
    conversation = dialogue("Hi </s>", "Ho", "?")
    prompt = encode_prompt(subject.tokenizer, subject.style, conversation)
    assert model.tok_encode(text) == prompt != subject.tokenizer.encode(text)
    whole = encode_conversation(subject.tokenizer, subject.style, dialogue("Hi </s>", "Ho", "?", "A box"))
    assert model._encode_pair(text, "A box") == (prompt, whole[-1][1][:-1])
    begun = model.apply_chat_template([*told, {"role": "assistant", "content": "A "}], add_generation_prompt=False)
    context, rest = model._encode_pair(begun, "box")
    assert context + rest == prompt + whole[-1][1][:-1] and subject.tokenizer.decode(rest) == " box"


def config_of(world: Path, **changes: Any) -> EvaluateConfig:
    given: dict[str, Any] = {"checkpoint_dir": world / "final", "tasks_dir": world / "tasks", "out_dir": Path("out")}
    return EvaluateConfig(**{**given, "tasks": ("box_letters", "box_answers"), "limit": 4, **changes})


def test_two_runs_give_the_same_file(world: Path) -> None:
    table = "".join(evaluate(config_of(world, beside=world / "base")))
    first = Path("out/tasks.json").read_bytes()
    assert "".join(evaluate(config_of(world, beside=world / "base"))) == table
    assert Path("out/tasks.json").read_bytes() == first
    [final, base] = json.loads(first)["models"]
    assert final["tasks"]["box_letters"].keys() == {"acc", "acc stderr", "acc_norm", "acc_norm stderr"}
    assert (final["limit"], final["seed"], final["n-shot"]["box_letters"]) == (4, 1234, 0)
    assert base["weights_sha256"] == final["weights_sha256"][:1]
    lines = [line.split() for line in table.splitlines() if line.startswith("  box_letters")]
    assert [line[1:3] for line in lines] == [
        [metric, str(world / name)] for metric in ("acc", "acc_norm") for name in ("final", "base")
    ]


def test_mistakes_are_told_before_weights_are_read(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "llm", property(lambda self: pytest.fail("a model was loaded")))
    with pytest.raises(ConfigError, match=r'no task "box_leters" in .* or in .*tasks. Did you mean "box_letters"'):
        check_names(config_of(world, tasks=("box_letters", "box_leters")), {"mmlu", "box_letters"})
    with pytest.raises(ConfigError, match="tasks_dir is nowhere, which is no folder"):
        evaluate(config_of(world, tasks_dir=Path("nowhere")))
    broken = Path("broken")
    broken.mkdir()
    task = yaml.safe_load((world / "tasks" / "box_letters.yaml").read_text())
    task["dataset_kwargs"]["data_files"] = {"test": "nowhere.json"}
    (broken / "lost.yaml").write_text(yaml.safe_dump({**task, "task": "lost"}))
    with pytest.raises(DataError, match="The questions of lost cannot be read"):
        evaluate(config_of(world, tasks=("lost",), tasks_dir=broken))
    with pytest.raises(GenerationError, match=r"wants answers of 1000 tokens, but .*final reads at most 160"):
        HarnessModel(Subject(world / "final"), 1, 1, 0)._request("x", {"max_gen_toks": 1000})


def test_the_command_line_prints_the_numbers(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint_dir", str(world / "final"), "--tasks_dir", str(world / "tasks"), "--tasks", "box_letters"]
    assert main(["evaluate", *words, "--limit", "2", "--out_dir", "out"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Tasks\n  task ") and "By lm-evaluation-harness" in out and "Traceback" not in out
    assert os.environ["HF_HUB_OFFLINE"] == "1"
