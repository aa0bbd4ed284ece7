"""The same as `litft prepare self_instruct`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "self_instruct", *sys.argv[1:]]))
