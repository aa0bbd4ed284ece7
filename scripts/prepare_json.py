"""The same as `litft prepare json`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "json", *sys.argv[1:]]))
