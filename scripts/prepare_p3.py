"""The same as `litft prepare p3`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "p3", *sys.argv[1:]]))
