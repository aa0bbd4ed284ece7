"""litft's own part of `benchmarks/finetune.py`."""
