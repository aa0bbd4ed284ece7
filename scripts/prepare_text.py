"""The same as `litft prepare text`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "text", *sys.argv[1:]]))
