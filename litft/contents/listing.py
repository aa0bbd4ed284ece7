"""`litft list`: what has a name here. Reads no model and needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from litft.config.commands import COMMANDS
from litft.config.contents import ListConfig, ListModelsConfig
from litft.config.model import ModelConfig, named_models
from litft.config.shipped import shipped_configs
from litft.errors import ConfigError, did_you_mean
from litft.text.styles import STYLES

Report = Callable[[str], None]
Row = tuple[str, ...]
WIDEST_FRAME = 64  # characters of a style's frame


def list_models(config: ListModelsConfig, report: Report) -> Iterator[str]:
    """Gives the table of named models, line by line, smallest first within a family.

    Args:
        config: which.
        report: told where a model that is not among them may come from.

    Raises:
        ConfigError: no model has that family, or none is left.
    """
    models = named_models()
    families = sorted({model.family for model in models.values()})
    if config.family is not None and config.family not in families:
        raise ConfigError(
            f'family is "{config.family}"; the families are {", ".join(families)}.'
            f"{did_you_mean(config.family, families)}"
        )
    sizes = sorted((model.family, parameters(model), repo_id) for repo_id, model in models.items())
    rows = [
        (repo_id, family, f"{size / 1e9:,.1f} B", f"{models[repo_id].block_size:,}")
        for family, size, repo_id in sizes
        if config.family in (None, family) and (config.min_size or 0) * 1e9 <= size <= _most(config)
    ]
    yield from _table(("on the hub", "family", "size", "context"), rows, config)
    report("Any other model of these families works too: litft download --repo_id ORG/NAME reads its config.json.")


def list_styles(config: ListConfig, report: Report) -> Iterator[str]:
    """Gives the table of prompt styles, line by line: how a first turn without an input looks."""
    rows = [(name, _shortened(repr(style.first)[1:-1])) for name, style in sorted(STYLES.items())]
    yield from _table(("name", "a first turn"), rows, config)


def list_methods(config: ListConfig, report: Report) -> Iterator[str]:
    """Gives the table of methods, line by line."""
    rows = [(each.words[1], each.help, f"litft {' '.join(each.words)}") for each in COMMANDS if _finetunes(each.words)]
    yield from _table(("name", "what", "command"), rows, config)


def list_configs(config: ListConfig, report: Report) -> Iterator[str]:
    """Gives the table of the files that litft brings, line by line: the name to type, and what each is for."""
    found = sorted(shipped_configs().items())
    rows = [(name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for name, path in found]
    yield from _table(("for --config", "what"), rows, config)
    report("Each says at its top what to run before, and what memory it takes; --print_config shows all its settings.")


def parameters(model: ModelConfig) -> int:
    """Gives how many parameters a model has, but for norms and biases: less than a thousandth of them."""
    width, heads = model.n_embd, model.n_head * model.head_size
    attention = (heads + 2 * model.n_query_groups * model.head_size) * width + heads * width
    mlp = (3 if model.mlp == "gated" else 2) * width * model.intermediate_size
    experts = mlp if not model.n_expert else model.n_expert * (mlp + width)
    tables = (1 if model.tie_embeddings else 2) * model.padded_vocab_size * width
    places = model.block_size * width if model.positions == "learned" else 0
    return model.n_layer * (attention + experts) + tables + places


def _finetunes(words: Sequence[str]) -> bool:
    """Says whether a command trains."""
    return words[0] == "finetune"


def _most(config: ListModelsConfig) -> float:
    """Gives the largest size that is shown, in parameters."""
    return float("inf") if config.max_size is None else config.max_size * 1e9


def _shortened(text: str) -> str:
    """Gives a text that fits its column, cut in the middle: both ends of a frame tell it from others."""
    half = (WIDEST_FRAME - 5) // 2
    return text if len(text) <= WIDEST_FRAME else f"{text[:half]} ... {text[-half:]}"


def _table(head: Row, rows: Sequence[Row], config: ListConfig) -> Iterator[str]:
    """Gives aligned lines of the rows that match.

    Raises:
        ConfigError: none does.
    """
    wanted = (config.match or "").lower()
    found = [row for row in rows if wanted in " ".join(row).lower()]
    if not found:
        hint = did_you_mean(config.match or "", [row[0] for row in rows])
        raise ConfigError(f"No row fits what was asked for{f' (match {config.match})' if wanted else ''}.{hint}")
    widths = [max(len(row[column]) for row in (head, *found)) for column in range(len(head))]
    for row in (head, *found):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
