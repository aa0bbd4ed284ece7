"""The engine of a finetuning run: loss, optimizer, loop, validation, checkpoints."""
