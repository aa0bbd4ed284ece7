"""The same as `litft prepare magpie`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "magpie", *sys.argv[1:]]))
