"""Turns a folder of Lit-GPT or litgpt into a litft checkpoint: the same as `litft convert from_litgpt`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["convert", "from_litgpt", *sys.argv[1:]]))
