"""Converts downloaded Hugging Face weights to litft's layout: the same as `litft convert from_hf`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["convert", "from_hf", *sys.argv[1:]]))
