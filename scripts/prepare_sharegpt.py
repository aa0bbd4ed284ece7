"""The same as `litft prepare sharegpt`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "sharegpt", *sys.argv[1:]]))
