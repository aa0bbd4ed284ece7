"""`litft submit check`: a sound server passes, each classic fault is named, the rules hold against the manifests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import folder_of, serving
from tiny_challenge import tiny_server

from litft.cli import main
from litft.config.io import dump_yaml
from litft.submit.approved import judge_base
from litft.submit.budget import REQUESTS, RUN_LIST, Pace, judge_pace
from litft.submit.helm import FaultError
from litft.submit.play import CHECKS
from litft.submit.record import Record, open_record
from litft.submit.rules import check_rules

Run = Callable[..., tuple[int, dict[str, dict[str, str]]]]
UNTOUCHED = set(CHECKS) | {"two hours"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Checks, and gives the exit code and the findings by name."""

    def checked(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
        file = tmp_path / "found.json"
        code = main(["submit", "check", *words, "--out_file", str(file)])
        found = json.loads(file.read_text())
        assert found["passed"] == (code == 0)
        return code, {finding["name"]: finding for finding in found["findings"]}

    return checked


def test_the_demo_passes_in_a_process_of_its_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run("--checkpoint_dir", str(folder_of("demo")))
    shown = capsys.readouterr()
    assert code == 0, shown
    assert {name for name, finding in found.items() if finding["verdict"] == "pass"} == UNTOUCHED
    assert {finding["verdict"] for name, finding in found.items() if name.startswith("rule: ")} == {"?"}
    assert "four at once         pass  all are answered, 4 of 4 as alone" in shown.out
    assert shown.out.endswith("13 pass, 0 fail, 4 not known\n")


def test_the_demo_passes_behind_its_address(run: Run) -> None:
    with serving() as running:
        code, found = run("--url", running.url)
    assert code == 0 and set(found) == UNTOUCHED
    assert "2,024 of 2,248+ tokens are left" in found["prompt over 2048"]["reason"]
    assert f"of 2:00 hours for {REQUESTS:,} requests" in found["two hours"]["reason"]


def test_a_sound_server_of_others_passes(run: Run) -> None:
    with tiny_server() as url:
        code, found = run("--url", url)
    assert code == 0, found
    assert {finding["verdict"] for finding in found.values()} == {"pass"}


@pytest.mark.parametrize(
    ("fault", "failing", "reason", "recorded"),
    [
        ("no stops", {"stop sequences"}, "the answer goes on past it", "as it stands"),
        ("keeps stops", {"stop sequences"}, "keeps it", "an exact match"),
        ("echo", {"echo_prompt"}, "echo_prompt was false, and the answer begins with the prompt", "unmapped"),
        ("never echoes", {"echo_prompt"}, "echo_prompt was true, and the prompt does not come back", ""),
        ("bos", {"ids without BOS"}, "adds a token before each text (id 1)", "counted too long"),
        ("no decode", {"tokenize, decode", "prompt over 2048"}, "/decode: status 404", "an empty prompt"),
        ("loses spaces", {"tokenize, decode"}, "comes back as", "changed"),
        ("required", {"health check"}, "a prompt alone is refused, so some other field is required", "refused"),
        ("spelling", {"tokens spell text"}, "the tokens spell", "another text"),
        ("one at a time", {"four at once"}, "of four requests at once one fails: /process: no reply within", "ends"),
        ("crash", {"malformed requests"}, "{prompt} to /process: the connection broke", "every later request"),
        ("500", {"malformed requests"}, "gives status 500", ""),
        ("no truncation", {"prompt over 2048"}, "was told to cut at 2024 tokens and gives", "one character"),
        ("no candidates", {"top_k_per_token"}, "a token's top_logprob is empty", ""),
        ("chance", {"temperature 1e-7"}, "three answers at a temperature of 1e-7 differ", "another answer"),
    ],
)
def test_each_fault_is_named(run: Run, fault: str, failing: set[str], reason: str, recorded: str) -> None:
    with tiny_server(fault) as url:
        code, found = run("--url", url, "--timeout_seconds", "0.5" if fault == "one at a time" else "20")
    failed = {name: finding for name, finding in found.items() if finding["verdict"] == "fail"}
    assert code == 1
    assert failing <= set(failed), found
    if fault != "chance":  # where all answers differ, more than one check sees it
        assert set(failed) == failing, failed
    named = [finding for name, finding in failed.items() if name in failing]
    assert all(reason in finding["reason"] and recorded in finding["recorded"] for finding in named), named


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("no top_logprob", "a token of the reply has no top_logprob"), ("no request_time", "has no request_time")],
)
def test_a_field_that_helm_reads_must_be_there(run: Run, fault: str, reason: str) -> None:
    with tiny_server(fault) as url:
        code, found = run("--url", url)
    assert code == 1 and reason in found["health check"]["reason"]
    assert "KeyError" in found["health check"]["recorded"] and "five times" in found["health check"]["recorded"]


def test_a_server_that_dies_of_a_request_is_named(run: Run) -> None:
    with tiny_server("dies") as url:
        code, found = run("--url", url)
    assert code == 1
    assert "the connection broke" in found["malformed requests"]["reason"]
    assert found["four at once"]["verdict"] == "fail"
    assert found["two hours"] | {"verdict": "?"} == found["two hours"]


def test_nothing_there_is_said_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with tiny_server() as url:
        pass
    code, found = run("--url", url)
    assert code == 1 and list(found) == ["health check", "all other checks", "two hours"]
    assert "litft: 2 of 3 checks failed: health check, all other checks." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give --checkpoint_dir (it is served here) or --url"),
        (["--url", "somewhere"], 'url is "somewhere"; it must be an address'),
        (["--url", "http://127.0.0.1:1", "--quantize", "bnb.nf4"], "leave them out with --url"),
        (["--url", "http://127.0.0.1:1", "--timeout_seconds", "0"], "timeout_seconds is 0.0"),
        (["--url", "http://127.0.0.1:1", "--out_file", "no/such/f.json"], "out_file no/such/f.json lies in no folder"),
        (["--url", "http://127.0.0.1:1", "--out_file", "."], "is a folder"),
        (["--checkpoint_dir", "no/where"], 'No checkpoint folder "no/where"'),
        (["--checkpoint_dir", "."], "is not a checkpoint"),
        (["--url", "http://127.0.0.1:1", "--base_repo", "one"], 'base_repo is "one"; it must be ORG/NAME'),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "check", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and said in shown.err


def test_a_server_that_cannot_start_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint_dir", str(folder_of("demo")), "--max_seq_length", "9999"]
    assert main(["submit", "check", *words]) == 2
    assert "litft: The server did not start: max_seq_length is 9999; this model reads" in capsys.readouterr().err


def test_the_run_list_is_the_published_one() -> None:
    """run_specs_full_coarse_600_budget.conf: 88 entries, whose max_eval_instances are 600 together."""
    assert sum(runs.specs for runs in RUN_LIST) == 88
    assert sum(runs.instances for runs in RUN_LIST) == 600
    assert REQUESTS == 600 + 4 * 216


def test_the_two_hours_are_of_all_requests() -> None:
    assert Pace(0, 1, 0).total() == REQUESTS
    tokens = 1080 * 4 + 329 * 63 + 9 * 4 + 18 * 4 + 19 * 399 + 9 * 127
    assert Pace(0, 0, 0.1).total() == pytest.approx(0.1 * tokens)
    assert judge_pace(Pace(0.1, 1.0, 0.01)).startswith("at most 0:32 of 2:00 hours for 1,464 requests")
    with pytest.raises(FaultError, match=r"at most 4:04 of 2:00 .*; MMLU alone 3:00"):
        judge_pace(Pace(0, 10, 0))


def record(**changes: Any) -> Record:
    """Gives what a run wrote that keeps all rules."""
    sums = {"train.pt": "1" * 64, "test.pt": "2" * 64}
    made = Record(
        checkpoint_dir=Path("final"),
        final=Path("final"),
        run={"devices": 1, "num_nodes": 1},
        method="lora",
        provenance={"sha256": sums, "device": "NVIDIA A100-PCIE-40GB"},
        summary={"processes": 1, "train_seconds": 7200.0, "spent_seconds": {"compute": 7000.0, "validation": 600.0}},
        manifest={
            "sources": {"lima": {"origin": "human"}, "dolly": {}},
            "files": {name: {"sha256": digest} for name, digest in sums.items()},
        },
        data_dir=Path("data"),
        base="mistralai/Mistral-7B-v0.1",
    )
    return dataclasses.replace(made, **changes)


def verdicts(made: Record) -> dict[str, tuple[str, str]]:
    return {finding.name.removeprefix("rule: "): (finding.verdict, finding.reason) for finding in check_rules(made)}


def test_a_run_that_keeps_the_rules_passes() -> None:
    found = verdicts(record())
    assert {verdict for verdict, _ in found.values()} == {"pass"}
    assert found["24 hours"][1].startswith("the run took 2.17 of 24 hours")
    assert found["data"][1] == "people wrote the answers of lima, dolly"


@pytest.mark.parametrize(
    ("rule", "changes", "verdict", "said"),
    [
        ("base model", {"base": "mistralai/Mistral-7B-Instruct-v0.1"}, "fail", "is tuned on instructions"),
        ("base model", {"base": "google/gemma-2-9b"}, "fail", "google/gemma-2-9b is not on the list of October 2023"),
        ("base model", {"base": None}, "?", "--base_repo"),
        ("one card", {"summary": {"processes": 2, "train_seconds": 1.0}}, "fail", "2 processes trained"),
        ("one card", {"provenance": {"device": "NVIDIA H100"}}, "fail", "trained on NVIDIA H100"),
        ("24 hours", {"summary": {"train_seconds": 90000.0}}, "fail", "the run took 25.0 hours; 24 are allowed"),
        ("24 hours", {"summary": {}}, "?", "no summary.json"),
        ("data", {"provenance": {"sha256": {"train.pt": "3" * 64}}}, "fail", "is not the one that was trained on"),
        ("data", {"manifest": {}}, "?", "no manifest.yaml in data"),
        ("data", {"final": None}, "?", "not trained by litft"),
    ],
)
def test_a_rule_that_is_broken_is_named(rule: str, changes: dict[str, Any], verdict: str, said: str) -> None:
    found = verdicts(record(**changes))
    assert found[rule][0] == verdict and said in found[rule][1]


@pytest.mark.parametrize(
    ("source", "values", "verdict", "said"),
    [
        ("alpaca", {}, "fail", "a model wrote the answers of alpaca"),
        ("self_instruct", {"origin": "model"}, "fail", "a model wrote the answers of self_instruct"),
        ("oasst1", {}, "pass", "oasst1"),
        ("mine", {}, "?", "nothing says who wrote the answers of mine"),
        ("csv", {"origin": "unknown"}, "?", "nothing says who wrote the answers of csv"),
    ],
)
def test_who_wrote_the_data_is_known_by_its_source(
    source: str, values: dict[str, str], verdict: str, said: str
) -> None:
    manifest = {**record().manifest, "sources": {"lima": {"origin": "human"}, source: values}}
    found = verdicts(record(manifest=manifest))["data"]
    assert found[0] == verdict and said in found[1]


@pytest.mark.parametrize(
    ("repo_id", "verdict"),
    [
        ("meta-llama/Llama-2-7b-hf", "pass"),
        ("EleutherAI/pythia-160m-deduped", "pass"),
        ("tiiuae/falcon-7b", "pass"),
        ("openlm-research/open_llama_3b", "pass"),
        ("togethercomputer/RedPajama-INCITE-Base-3B-v1", "pass"),
        ("Qwen/Qwen-14B", "pass"),
        ("facebook/opt-1.3b", "pass"),
        ("Qwen/Qwen2.5-7B", "?"),
        ("mistralai/Mixtral-8x7B-v0.1", "?"),
        ("meta-llama/Llama-2-7b-chat-hf", "fail"),
        ("google/flan-t5-xl", "fail"),
        ("meta-llama/Meta-Llama-3-8B", "fail"),
    ],
)
def test_bases_are_sought_on_the_list(repo_id: str, verdict: str) -> None:
    assert judge_base(repo_id)[0] == verdict


def test_the_run_behind_a_merged_model_is_found(tmp_path: Path) -> None:
    final, merged = tmp_path / "run" / "final", tmp_path / "run" / "merged"
    for folder in (final, merged):
        folder.mkdir(parents=True)
    (final / "run.yaml").write_text(dump_yaml({"data_dir": "nowhere"}))
    (final / "provenance.json").write_text(json.dumps({"base": "checkpoints/facebook/opt-125m", "data": "nowhere"}))
    (final.parent / "summary.json").write_text(json.dumps({"train_seconds": 5.0}))
    (merged / "merge.json").write_text(json.dumps({"adapters": "out/run/final"}))  # as seen from another folder
    found = open_record(merged)
    assert (found.final, found.base, found.summary) == (final, "facebook/opt-125m", {"train_seconds": 5.0})
    assert found.data_dir == Path("nowhere") and not found.manifest
