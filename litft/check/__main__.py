"""`python -m litft.check JOB`: what the check of processes starts."""

from __future__ import annotations

import sys
from pathlib import Path

from litft.check.worker import work_as_two

raise SystemExit(work_as_two(Path(sys.argv[1])))
