"""A checkpoint behind HTTP: one model, one thread that drives it, and the APIs that ask it."""
