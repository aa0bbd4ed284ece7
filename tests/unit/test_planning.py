"""`litft plan`: memory beside what the allocator hands out, FLOPs beside torch's counter, sizes that fit.

The allocator's own count of a real step is what the forecast must meet; the two share no code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_run import CPU, make_config, make_world, methods, open_run, variants
from torch import Tensor
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from litft.cli import main
from litft.config.model import ModelConfig
from litft.config.plan import TrainPlan, build_plan
from litft.config.run import LoRAConfig
from litft.data.batches import iter_micro_batches
from litft.errors import ConfigError
from litft.methods.base import Full, freeze
from litft.methods.lora import LoRA
from litft.model.load import build_empty, build_random
from litft.train.counting import count_batches
from litft.train.describe import describe
from litft.train.flops import model_flops
from litft.train.forecast import forecast_memory, shorten
from litft.train.loop import backward, fit, train_step, window_rows
from litft.train.planning import changes_to_fit, plan_run
from litft.train.rehearsal import rehearse
from litft.train.room import free_memory
from litft.train.setup import open_inputs
from litft.train.sizing import bytes_needed, size_batches, with_size
from litft.train.state import Inputs, Run

SMALL = LoRA(LoRAConfig(r=4, targets=("q",)))  # few operations to be told
WIDE = {"n_embd": 64, "intermediate_size": 128}
ONE_BATCH = {"train__global_batch_size": 4}  # a micro-batch a step: half the operations
ONE_ROW = {"train__global_batch_size": 1, "train__micro_batch_size": 1}  # gradients are more than activations


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


def tensor_bytes(run: Run) -> int:
    """What the model holds, each storage once."""
    tensors = [*run.gpt.parameters(), *run.gpt.buffers()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def allocated_bytes(work: Callable[[], object]) -> int:
    """What the CPU's allocator hands out at most while something is done, above what it had handed out before."""
    with profile(profile_memory=True, use_kineto=True) as told:  # torch.profiler's own would sort them all for us
        work()
    events = [event for event in told.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", {}),
        ("full", {"optim__in_backward": True, "optim__clip_norm": None, **ONE_ROW}),
        ("lora", {"precision": "bf16-true"}),
        ("adapter", {"train__pack": "padded", **ONE_BATCH}),
        ("adapter_v2", {"precision": "bf16-mixed", "train__checkpoint": "block", **ONE_BATCH}),
        ("lora", {"quantize": "bnb.nf4-dq", "precision": "bf16-true", **ONE_BATCH}),
        ("dora", {"precision": "bf16-true", **ONE_BATCH}),
        ("dora", {"quantize": "bnb.nf4", "precision": "bf16-mixed", **ONE_BATCH}),
        ("lora", {"precision": "bf16-true", "n_expert": 4, "n_expert_per_token": 2, **ONE_BATCH}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(part) for part in value.values()),
)
def test_the_forecast_of_a_step_is_what_the_allocator_hands_out(
    tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    if "quantize" in settings:
        pytest.importorskip("bitsandbytes")
    model = {name: settings[name] for name in settings if name.startswith("n_expert")}
    settings = {name: settings[name] for name in settings if name not in model}
    world = make_world(tmp_path, **WIDE, **model)
    run = open_run(
        make_config(world, **{"train__micro_batch_size": 4, **settings}), {**methods(), **variants()}[method]
    )
    batches = count_batches(run.inputs, run.plan)
    forecast = forecast_memory(run.inputs, run.plan, token_loss, batches)

    def steps() -> None:
        for _ in range(2):  # the optimizer's state is there in the second
            train_step(run, batches.largest_step, 1e-3, token_loss)

    before = tensor_bytes(run)
    measured = before + allocated_bytes(steps)
    assert sum(forecast.values()) == pytest.approx(measured, rel=0.05)
    assert forecast["weights"] + forecast.get("quantisation", 0) == pytest.approx(before, rel=0.01)
    assert forecast["optimizer"] > 0


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", {"train__save_interval": 3}),
        ("lora", {"precision": "bf16-true"}),
        ("adapter", {"precision": "bf16-mixed", "train__checkpoint": "block"}),  # whose validation takes the most
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(part) for part in value.values()),
)
def test_one_block_stands_for_those_that_are_alike_to_the_byte(
    tmp_path: Path, method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, n_layer=6)
    config = make_config(world, train__global_batch_size=2, **settings)  # few operations to be told
    inputs = open_inputs(config, methods()[method], lambda message: None)
    plan = plan_of(inputs)
    batches = count_batches(inputs, plan)
    short, _, times = shorten(inputs)
    first = 1 if method.startswith("adapter") else 0  # the first block has no prompt
    assert (short.model_config.n_layer, times) == (first + 4, 6 - first - 3)
    quick = forecast_memory(inputs, plan, token_loss, batches)
    monkeypatch.setattr("litft.train.forecast.BLOCKS_ALIKE", 6)  # as many as there are: nothing is left out
    assert forecast_memory(inputs, plan, token_loss, batches) == quick


def test_few_steps_and_a_folder_in_use_are_told(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    (world / "out").mkdir()
    (world / "out" / "run.yaml").write_text("")
    inputs = open_inputs(make_config(world, train__epochs=1, dry_run=True), SMALL, lambda message: None)
    told = describe(inputs, plan_of(inputs))
    assert "3 steps may teach little; --epochs 20 makes about 60" in told
    assert "a run is there already" in told


def test_blocks_that_differ_are_all_forecast(tmp_path: Path) -> None:
    world = make_world(tmp_path, n_layer=9, sliding_window=8, full_attention_layers=(1, 3, 5, 7))
    inputs = open_inputs(make_config(world), SMALL, lambda message: None)
    assert shorten(inputs) == (inputs, 0, 1)


def test_a_recipes_own_loss_counts(tmp_path: Path) -> None:
    world = make_world(tmp_path, **WIDE)
    inputs = open_inputs(make_config(world), SMALL, lambda message: None)

    def greedy_loss(logits: Tensor, targets: Tensor) -> Tensor:
        return sum((token_loss(logits * scale, targets) for scale in (1.0, 2.0, 3.0, 4.0)), torch.zeros(()))

    large = bytes_needed(with_size(inputs, 8), token_loss)
    assert bytes_needed(with_size(inputs, 8), greedy_loss) > 1.05 * large


def test_positions_are_counted_as_the_loop_batches_them(tmp_path: Path) -> None:
    for pack in ("padded", "packed", "shared_prefix"):
        world = make_world(tmp_path / pack)
        run = open_run(make_config(world, train__micro_batch_size=4, train__pack=pack), methods()["lora"])
        for start in run.inputs.train.offsets[:-1].tolist():
            run.inputs.train.input_ids[start : start + 30] = 5  # rows share what stands before their targets
        found = [
            batch
            for step in range(run.plan.steps_per_epoch)
            for batch in iter_micro_batches(run.inputs.train, window_rows(run, step), run.inputs.batching)
        ]
        batches = count_batches(run.inputs, run.plan)
        assert batches.positions == sum(batch.input_ids.numel() for batch in found)
        assert batches.tokens == sum(batch.tokens for batch in found) == int(run.inputs.train.lengths.sum())
        assert batches.targets == sum(batch.target_tokens for batch in found)
        assert batches.padding == sum(batch.padding_tokens for batch in found)
        assert (batches.micro_batches, batches.examples) == (len(found), 24)
        longest = max(batch.input_ids.numel() for batch in found)
        assert longest in [batch.input_ids.numel() for batch in found if sorted(batch.rows) == sorted(batches.longest)]
    assert batches.positions < batches.tokens  # of the last: what rows share is computed once


@pytest.mark.parametrize("method", ["full", "adapter"])
def test_model_flops_are_those_that_torch_counts(method: str) -> None:
    sizes = {"n_layer": 6, "n_head": 4, "n_query_groups": 2, "head_size": 32, "n_embd": 128, "intermediate_size": 256}
    config = dataclasses.replace(ModelConfig.from_name("Llama-2-7b-hf"), padded_vocab_size=128, vocab_size=128, **sizes)
    chosen = methods()[method]
    model = build_random(config, "32-true", CPU, 1)
    chosen.apply(model)
    freeze(model, chosen)
    ids = torch.arange(48)[None]
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model.head(model(ids))[0], ids[0], reduction="sum").backward()
    ours = model_flops(config, chosen, torch.tensor([48]), 48)
    assert ours == pytest.approx(
        counter.get_total_flops(), rel=0.08
    )  # q, k, v of the first trained block go no further down


def test_the_published_rules_of_thumb_hold_for_a_7b_model() -> None:
    config = ModelConfig.from_name("Llama-2-7b-hf")
    weights = sum(p.numel() for name, p in build_empty(config).named_parameters() if p.ndim == 2 and "wte" not in name)
    lengths = torch.full((10,), 32)
    full, lora = (model_flops(config, method, lengths, 320) / 320 / weights for method in (Full(), methods()["lora"]))
    assert full == pytest.approx(6.0, rel=0.01)
    assert lora == pytest.approx(4.0, rel=0.03)


def flags(world: Path, *more: str) -> list[str]:
    paths = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "data")]
    return [*paths, "--out_dir", str(world / "out"), "--precision", "32-true", *more]


@pytest.mark.parametrize("words", [("plan", "lora"), ("finetune", "full", "--dry_run", "true")])
def test_a_plan_is_told_and_nothing_is_written(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    command, method, *dry = words
    assert main([command, method, *flags(world, "--measure", "true", *dry)]) == 0
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    said = capsys.readouterr().err
    for part in ("trained ", "tokens ", "padding", "FLOPs", "weights", "optimizer", "it fits", "time ", "measured "):
        assert part in said


def test_without_a_measured_step_no_time_is_told_and_no_weight_is_read(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    config = make_config(world, dry_run=True)
    inputs = open_inputs(config, SMALL, lambda message: None)
    (world / "model" / "lit_model.safetensors").unlink()
    numbers = plan_run(inputs, plan_of(inputs), token_loss)
    assert "seconds" not in numbers
    assert numbers["tokens"] == 4 * int(inputs.train.lengths.sum())
    assert numbers["memory_bytes"] == sum(numbers["memory"].values()) < numbers["free_bytes"]


def plan_of(inputs: Inputs) -> TrainPlan:
    """What the recipes make of it."""
    return build_plan(len(inputs.train_rows), inputs.config.train, inputs.config.optim, inputs.config.eval)


@pytest.mark.parametrize(("strategy", "method"), [("ddp", "full"), ("fsdp", "full"), ("fsdp", "lora")])
def test_a_plan_for_several_processes_says_what_each_takes_at_least(tmp_path: Path, strategy: str, method: str) -> None:
    world, said = make_world(tmp_path, **WIDE), list[str]()
    config = make_config(world, devices=4, strategy=strategy, dry_run=True)
    inputs = open_inputs(config, methods()[method], said.append)
    numbers = plan_run(inputs, plan_of(inputs), token_loss)
    memory, parts = numbers["memory"], 1 if strategy == "ddp" else 4
    held = [memory.get(part, 0) for part in ("weights", "gradients", "optimizer")]
    cut = sum(held) if method == "full" else held[0] - 4 * inputs.trainable_parameters
    assert numbers["at_least_bytes"] == numbers["memory_bytes"] - cut + cut // parts
    assert (numbers["processes"], numbers["cut_into"]) == (4, parts)
    assert ("is not forecast" in said[-1]) == (strategy == "fsdp") and "each of   4 processes: " in said[-1]


def test_what_would_make_a_run_fit_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path, **WIDE)
    saving = {"precision": "bf16-true", "quantize": "bnb.int8", "train__checkpoint": "block"}  # all but one thing
    inputs = open_inputs(make_config(world, train__micro_batch_size=8, **saving), SMALL, lambda message: None)
    small = bytes_needed(with_size(inputs, 1), token_loss)
    told = changes_to_fit(inputs, plan_of(inputs), token_loss, small)
    assert told.startswith("it would fit with --micro_batch_size 1:")
    assert "not even with" in changes_to_fit(inputs, plan_of(inputs), token_loss, 1000)


def test_auto_takes_the_largest_size_that_fits(tmp_path: Path) -> None:
    world = make_world(tmp_path, **WIDE)
    said: list[str] = []
    inputs = open_inputs(
        make_config(world, train__global_batch_size=2, train__micro_batch_size="auto"), SMALL, said.append
    )
    needed = bytes_needed(with_size(inputs, 2), token_loss)
    for share, size, warns in ((0.89, 2, False), (0.91, 1, False), (100, 1, True)):
        sized = size_batches(inputs, token_loss, int(needed / share))
        assert sized.config.train.micro_batch_size == sized.batching.micro_batch_size == size
        assert said[-1].startswith("Warning") == warns
    assert size_batches(sized, token_loss) is sized


def test_a_resumed_run_keeps_the_size_that_auto_chose(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    fit(open_run(make_config(world, train__micro_batch_size=2, train__save_interval=2), methods()["lora"]), token_loss)
    config = make_config(world, train__micro_batch_size="auto", train__save_interval=2, resume="auto")
    inputs = open_inputs(config, methods()["lora"], lambda message: None)
    assert size_batches(inputs, token_loss).config.train.micro_batch_size == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train__micro_batch_size": "auto", "train__max_iters": 5}, "max_iters counts micro-batches"),
        ({"train__micro_batch_size": "auto", "devices": 2}, "a number for several processes"),
        ({"measure": True}, "which is for --dry_run true"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(tmp_path, **settings)


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    run = open_run(make_config(world), methods()["lora"])
    seen: list[int] = []

    def counting_loss(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return token_loss(logits, targets)

    chance = torch.get_rng_state()
    before = {name: parameter.clone() for name, parameter in run.gpt.named_parameters()}
    rehearse(run, lambda batch: backward(run, batch, batch.target_tokens, counting_loss))
    longest = count_batches(run.inputs, run.plan).longest
    assert sum(seen) == int(run.inputs.train.target_counts[longest].sum())
    assert torch.equal(chance, torch.get_rng_state())
    assert all(torch.equal(before[name], parameter) for name, parameter in run.gpt.named_parameters())
    assert all(parameter.grad is None for parameter in run.gpt.parameters())


def test_the_free_memory_of_this_machine_is_known() -> None:
    assert 1e7 < free_memory(CPU) < 1e15
