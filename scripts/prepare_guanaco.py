"""The same as `litft prepare guanaco`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "guanaco", *sys.argv[1:]]))
