"""Makes the demo's base model and data again (`make demo-model`); takes about ten minutes."""

from litft.cli import report
from litft.demo.make import make_model

if __name__ == "__main__":
    make_model(report)
