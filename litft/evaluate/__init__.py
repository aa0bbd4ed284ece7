"""How good a finished model is: held-out rows, published tasks, and a model that judges answers."""
