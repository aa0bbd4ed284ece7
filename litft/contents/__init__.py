"""What the package holds: models, prompt styles and methods by name, and the recipes as files to copy."""
