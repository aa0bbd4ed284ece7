"""The orders of a mix: what each means, and that a run without shuffling meets the rows in just that order."""

from __future__ import annotations

import dataclasses
import math
from itertools import chain
from pathlib import Path

import pytest
from tiny_mix import give_scores, make_folder, mixed, pairs_in
from tiny_run import make_config, make_world, methods, open_run

from litft.config.mix import Order
from litft.data.batches import Batching, iter_micro_batches
from litft.data.mixing.order import ORDERS
from litft.data.store import PreparedData
from litft.train.loop import window_rows

# Questions name their folder and their place there; the lengths and the scores are of no order.
A = [(f"a{place}", "x" * length) for place, length in enumerate((9, 2, 7, 1, 8, 3, 5, 4, 6, 10))]
B = [(f"b{place}", "y" * length) for place, length in enumerate((15, 11, 14, 12, 13))]
SCORES = {"a": [0.5, 0.1, math.nan, 0.9, 0.2, 0.8, 0.3, math.nan, 0.6, 0.7], "b": [0.55, 0.95, 0.05, math.nan, 0.45]}

EXPECTED: dict[str, str] = {
    "given": "b0 b1 b2 b3 b4 a0 a1 a2 a3 a4 a5 a6 a7 a8 a9",
    "length": "a3 a1 a5 a7 a6 a8 a2 a4 a0 a9 b1 b3 b4 b2 b0",
    "score": "b2 a1 a4 a6 b4 a0 b0 a8 a9 a5 a3 b1",
    "score_descending": "b1 a3 a5 a9 a8 b0 a0 b4 a6 a4 a1 b2",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a model, and folders `a` and `b` of rows with and without scores."""
    root = make_world(tmp_path_factory.mktemp("order"))
    for name, rows in (("a", A), ("b", B)):
        give_scores(make_folder(root, name, rows, prompt_style="plain"), SCORES[name])
    (make_folder(root, "c", [("c0", "z"), ("c1", "z")], prompt_style="plain") / "train.pt").rename(
        root / "a" / "test.pt"
    )
    return root


def questions(world: Path, folder: Path) -> list[str]:
    return [question for question, _ in pairs_in(world, folder / "train.pt")]


def test_all_orders_are_looked_at() -> None:
    assert ORDERS.keys() == EXPECTED.keys() | {"source", "shuffled"}


@pytest.mark.parametrize("order", EXPECTED)
def test_what_an_order_means(world: Path, tmp_path: Path, order: Order) -> None:
    messages = mixed(world, tmp_path, "b", "a", order=order)
    found = " ".join(questions(world, tmp_path))
    assert found.startswith(EXPECTED[order]) and len(found.split()) == 15
    assert messages[-1].endswith("--train.shuffle false")


def test_sources_stay_together(world: Path, tmp_path: Path) -> None:
    mixed(world, tmp_path / "m", "b", "a", order="source")
    found = questions(world, tmp_path / "m")
    assert "".join(question[0] for question in found) == "b" * 5 + "a" * 10 and found != EXPECTED["given"].split()


def test_what_is_repeated_comes_again_as_it_stands(world: Path, tmp_path: Path) -> None:
    mixed(world, tmp_path, "b", "a", order="given", repeats={"b": 2})
    assert questions(world, tmp_path)[:11] == [
        *(f"b{place}" for place in range(5)),
        *(f"b{place}" for place in range(5)),
        "a0",
    ]


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "shuffled"])
def test_a_run_meets_rows_in_their_order(world: Path, tmp_path: Path, order: Order) -> None:
    """Window by window; within one, which is one step, the loop puts the longest first."""
    mixed(world, tmp_path / "m", "b", "a", order=order)
    config = make_config(world, out_dir=tmp_path / "out", train__shuffle=False, train__global_batch_size=4)
    run = open_run(dataclasses.replace(config, data_dir=tmp_path / "m"), methods()["lora"])
    assert run.plan.steps_per_epoch == 4
    for epoch in (0, 1):
        windows = [window_rows(run, 4 * epoch + step) for step in range(4)]
        assert list(chain(*windows)) == list(range(15))
        data = PreparedData.load(tmp_path / "m" / "train.pt")
        met = [
            [*chain(*(batch.rows for batch in iter_micro_batches(data, rows, Batching(2, 2048, packed=False))))]
            for rows in windows
        ]
        assert [sorted(rows) for rows in met] == windows
