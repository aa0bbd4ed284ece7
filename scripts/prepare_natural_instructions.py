"""The same as `litft prepare natural_instructions`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "natural_instructions", *sys.argv[1:]]))
