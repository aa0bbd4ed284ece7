"""The same as `litft prepare alpaca_gpt4`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "alpaca_gpt4", *sys.argv[1:]]))
