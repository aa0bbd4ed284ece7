"""The same as `litft prepare longform`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "longform", *sys.argv[1:]]))
