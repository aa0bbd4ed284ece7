"""Filters of `litft prepare mix`: each is its fields in `litft/config/filters.py` and one function in `BUILDERS`.

Cheap ones come first: a row counts under the first that takes it. `near.py` alone compares rows, and comes last.
"""

from __future__ import annotations

from collections.abc import Callable

from litft.config.filters import FiltersConfig
from litft.data.filters import benchmarks, bounds, languages, patterns, quality
from litft.data.filters.row import Filter

# Each gives the filters that its fields ask for.
BUILDERS: tuple[Callable[[FiltersConfig], list[Filter]], ...] = (
    bounds.build,
    patterns.build,
    languages.build,
    quality.build,
    benchmarks.build,
)


def build_filters(config: FiltersConfig) -> list[Filter]:
    """Gives all filters that are asked for, in the order in which they judge.

    Args:
        config: what leaves.

    Raises:
        LitftError: a library or a file that one needs is missing, or a value cannot be used.
    """
    return [made for build in BUILDERS for made in build(config)]
