"""`python scripts/merge_lora.py --checkpoint_dir out/lora/lima/final` is `litft merge`."""

import sys

from litft.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["merge", *sys.argv[1:]]))
