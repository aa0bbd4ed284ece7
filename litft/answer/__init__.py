"""Commands that answer: one prompt, a file of prompts, a conversation at the terminal."""
