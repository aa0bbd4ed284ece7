"""Fetches a model from the hub and converts it: the same as `litft download`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["download", *sys.argv[1:]]))
