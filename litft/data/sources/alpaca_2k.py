"""Two thousand rows of Alpaca, in its form: small enough to try a whole run.

Source: huggingface.co/datasets/mhenrichsen/alpaca_2k_test.
"""

from __future__ import annotations

from litft.data.reading.rows import Source
from litft.data.sources.alpaca import read_alpaca

SOURCE = Source(
    name="alpaca_2k",
    repo_id="mhenrichsen/alpaca_2k_test",
    files=("alpaca_2000.parquet",),
    licence="Apache-2.0 by its page; the rows are Alpaca's, CC BY-NC 4.0",
    origin="model",
    rows=2_000,
    schema='parquet, a JSON list or JSON Lines of {"instruction", "input", "output"}; input may be empty or absent',
    read=read_alpaca,
)
