"""What all datasets are read with: rows, files of lines and JSON, and the hub."""
