"""How many examples tests of random input try: a few in `make test`, always the same; thousands in `make fuzz`."""

from __future__ import annotations

import os

import hypothesis
from hypothesis import HealthCheck

LONG = int(os.environ.get("LITFT_FUZZ", 0))


def tried(few: int) -> hypothesis.settings:
    """Gives the settings of a test that tries so many examples in `make test`; the long form tries others each time."""
    return hypothesis.settings(
        max_examples=LONG or few,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )
