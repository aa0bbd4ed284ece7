"""What a person at a terminal sees while a command works: bars, lines and tables."""
