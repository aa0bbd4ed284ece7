"""The network: one readable GPT for every family, and how its weights are laid into memory."""
