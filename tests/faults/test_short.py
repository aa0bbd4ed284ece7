"""The short form of `make faults`: some of each fault, in forked processes, each survived without a loss."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest
from corrupt import damage_input, damage_result, damage_step, make_cut_run
from forked import after, before_operation, preload
from full_disk import can_mount, limited_files, make_sources, prepare_out_of_space, run_out_of_space, space_out
from kill import kill_and_resume
from ranks import lose_one
from signals import signal_run
from tiny_runs import World, make_faults_world, train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Base, rows, and the run that nothing strikes."""
    preload()
    world = World(make_faults_world(tmp_path_factory.mktemp("world")), {})
    started = time.monotonic()
    ended = train(world.folder, "lora", world.straight("lora"))
    assert ended.code == 0, ended.said
    world.seconds["lora"] = time.monotonic() - started
    made = {path.name for path in world.straight("lora").iterdir()}
    assert {"samples.jsonl", "spikes.jsonl", "row_losses.csv", "step-00000020", "step-00000025"} <= made
    return world


@pytest.fixture
def chance() -> random.Random:
    return random.Random(5)


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(world: World, chance: random.Random) -> None:
    places = Counter[str]()
    ways = [before_operation(80, world.folder / "struck"), after(chance.uniform(0.3, 0.5) * world.seconds["lora"])]
    assert kill_and_resume(world, "lora", iter(ways), places) == []
    assert places.total() >= 1  # the second may have come too late


def test_a_disk_that_fills_loses_nothing(world: World, chance: random.Random) -> None:
    if can_mount():
        assert run_out_of_space(world, "lora", space_out, chance.randint(60, 120)) == []
        make_sources(world.folder)
        assert prepare_out_of_space(world, 3, overwrite=True) == []
    else:
        assert limited_files(world, "lora", 6000) == []


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(world: World, chance: random.Random) -> None:
    make_cut_run(world, "lora")
    assert damage_step(world, "lora", "state.yaml", "flip", chance) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("model/lit_model.safetensors", "flip"), ("data/test.pt", "swap"), ("data/manifest.yaml", "flip")],
)
def test_damaged_inputs_are_found_before_they_are_used(
    world: World, name: str, kind: str, chance: random.Random
) -> None:
    assert damage_input(world, name, kind, chance) == []


def test_a_damaged_result_is_found_before_it_is_used(world: World, chance: random.Random) -> None:
    assert damage_result(world, "lora", "flip", chance) == []


def test_a_batch_system_gets_a_checkpoint_and_the_command_to_go_on(world: World, chance: random.Random) -> None:
    assert signal_run(world, "lora", signal.SIGUSR1, False, chance) == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="processes watch each other on Linux")
def test_a_process_that_hangs_is_named_and_the_other_ends(world: World, chance: random.Random) -> None:
    assert lose_one(world, "stopped", 0, chance, goes_on=False) == []
