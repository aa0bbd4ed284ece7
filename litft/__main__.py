"""`python -m litft` is `litft`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    sys.exit(main())
