"""The door of `litft serve`: says what is missing before anything is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from litft.config.serve import ServeConfig
from litft.errors import ConfigError

NEEDED = ("fastapi", "uvicorn")


def serve(config: ServeConfig, report: Callable[[str], None]) -> None:
    """Answers until the process is told to end: by Ctrl-C or SIGTERM, a second one ending it at once.

    Args:
        config: the checkpoint, the address and the limits.
        report: told where the server is, and of each request.

    Raises:
        ConfigError, CheckpointError, TokenizerError: it cannot start, with the reason.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"litft serve needs {' and '.join(missing)}; pip install 'litft[serve]' brings them.")
    from litft.serve.run import run  # imports the libraries

    run(config, report)
