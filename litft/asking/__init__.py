"""Models that are asked questions in words: a checkpoint of this machine, or one behind an endpoint."""
