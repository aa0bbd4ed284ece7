"""Text to token ids and back, and the frames that prompts stand in. Knows no tensors and no weights."""
