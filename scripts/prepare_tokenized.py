"""The same as `litft prepare tokenized`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "tokenized", *sys.argv[1:]]))
