"""The same as `litft prepare dolly`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", "dolly", *sys.argv[1:]]))
