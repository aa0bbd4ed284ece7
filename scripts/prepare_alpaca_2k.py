"""The same as `litft prepare alpaca_2k`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "alpaca_2k", *sys.argv[1:]]))
