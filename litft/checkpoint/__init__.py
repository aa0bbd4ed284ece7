"""Checkpoint folders: where they are, what they hold, how they come from the hub and go between the two layouts."""
