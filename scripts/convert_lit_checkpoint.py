"""Writes a litft checkpoint as a Hugging Face folder: the same as `litft convert to_hf`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["convert", "to_hf", *sys.argv[1:]]))
