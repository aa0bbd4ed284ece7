"""The same as `litft prepare flan`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "flan", *sys.argv[1:]]))
