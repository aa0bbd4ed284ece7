"""The same as `litft prepare oasst1`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "oasst1", *sys.argv[1:]]))
