"""Is this run right, and can it be repeated? Hashes compared, a run run again, a config tried on a few rows."""
