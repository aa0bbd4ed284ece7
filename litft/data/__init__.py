"""Datasets from their published form to batches of token ids. Knows no model, only its tokenizer and prompt style."""
