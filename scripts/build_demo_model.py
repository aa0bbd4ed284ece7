"""Makes the demo's base model and data again (`make demo-model`); takes some minutes."""

from litft.cli import report
from litft.demo.build import build

if __name__ == "__main__":
    build(report)
