"""The same as `litft prepare messages`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "messages", *sys.argv[1:]]))
