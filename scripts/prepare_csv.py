"""The same as `litft prepare csv`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "csv", *sys.argv[1:]]))
