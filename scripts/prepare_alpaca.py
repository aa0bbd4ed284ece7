"""The same as `litft prepare alpaca`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "alpaca", *sys.argv[1:]]))
