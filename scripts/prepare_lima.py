"""The same as `litft prepare lima`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "lima", *sys.argv[1:]]))
