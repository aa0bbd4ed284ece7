"""GPT-4 Alpaca: Alpaca's instructions, answered by GPT-4, in Alpaca's form.

Source: github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM (alpaca_gpt4_data.json); on the hub as
vicgalle/alpaca-gpt4, which adds a field `text` that is not read.
"""

from __future__ import annotations

from litft.data.reading.rows import Source
from litft.data.sources.alpaca import read_alpaca

SOURCE = Source(
    name="alpaca_gpt4",
    repo_id="vicgalle/alpaca-gpt4",
    files=("data/train-00000-of-00001-6ef3991c06080e14.parquet",),
    licence="CC BY-NC 4.0",
    origin="model",
    rows=52_002,
    schema='parquet, a JSON list or JSON Lines of {"instruction", "input", "output"}; input may be empty or absent',
    read=read_alpaca,
)
