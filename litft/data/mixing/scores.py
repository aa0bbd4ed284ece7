"""The scores of rows that come together: what they are, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from litft.config.mix import MixConfig
from litft.data.mixing.parts import Part, Rows
from litft.errors import DataError


def check_scores(config: MixConfig, parts: Sequence[Part]) -> None:
    """Refuses to choose or order rows by scores that are not there, or that mean different things.

    Raises:
        DataError: so it is.
    """
    scored = [part for part in parts if part.train.score is not None]
    if config.needs_score and not scored:
        raise DataError(
            f"No row of {', '.join(part.name for part in parts)} has a score, and the mix chooses by scores; "
            "`litft curate score` gives them."
        )
    instead = _instead_of_comparing(config)
    kinds = {str(_kind(part)): part.name for part in scored}
    if instead and len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise DataError(
            f"The scores of {first} are {one}, those of {second} {other}: they cannot be compared; score the folders "
            f"alike, or {instead}."
        )


def _instead_of_comparing(config: MixConfig) -> str:
    """Says what can be done with scores that mean different things; nothing where none are compared."""
    filters = config.filters
    if config.order in ("score", "score_descending"):
        return f"take another order than {config.order}"
    if filters.min_score is not None or filters.max_score is not None:
        return "mix each folder by itself with its own filters.min_score and filters.max_score, and then the results"
    return "keep a share of each with filters.keep_of source" if filters.keeps_by_score_of_all else ""


def is_one_kind(rows: Sequence[Rows]) -> bool:
    """Says whether all scores that there are mean the same."""
    return len({_kind(there.part) for there in rows if there.part.train.score is not None}) == 1


def scores_meta(parts: Sequence[Part]) -> dict[str, Any]:
    """Gives what `meta` says of the scores: as the parts say it; where they differ, of each folder; else nothing."""
    said = {part.name: part.train.meta.get("score", {}) for part in parts if part.train.score is not None}
    if not said:
        return {}
    first = next(iter(said.values()))
    if all(each == first for each in said.values()):
        return {"score": first}
    kinds = {str(each.get("kind")) for each in said.values()}
    return {"score": {"kind": kinds.pop() if len(kinds) == 1 else "mixed", "of": said}}


def joined_scores(rows: Sequence[Rows]) -> dict[str, torch.Tensor]:
    """Gives the scores of all rows, part by part, under their name in the file; nothing where no row can have one."""
    if all(there.data.score is None for there in rows):
        return {}
    return {"score": torch.cat([there.scores for there in rows])}


def _kind(part: Part) -> object:
    """Gives what the scores of a folder are called; folders of no word on that are alike."""
    return part.train.meta.get("score", {}).get("kind")
