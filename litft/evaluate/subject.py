"""A checkpoint that is measured: checked when it is named, loaded when it is first needed. Knows no data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from litft.api import LLM, own_precision
from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import load_model_config, resolve_checkpoint_dir
from litft.methods.load import weights_files
from litft.model.quantize import check_quantize
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer


class Subject:
    """One checkpoint.

    Attributes:
        name: as the user wrote it.
        folder: where it lies.
        tokenizer: its own.
        style: how it is asked.
        config: sizes of its model.
        precision, quantize: how its weights are kept.
    """

    def __init__(self, checkpoint_dir: Path, precision: str | None = None, quantize: str = "none") -> None:
        """Checks all that can be checked without reading weights.

        Args:
            checkpoint_dir: a folder, or ORG/NAME under checkpoints/.
            precision: of the base weights; None: that of the files.
            quantize: as in `litft generate`.

        Raises:
            CheckpointError, TokenizerError, ConfigError: it cannot be used, with the reason.
        """
        check_quantize(quantize)
        self.name, self.folder = str(checkpoint_dir), resolve_checkpoint_dir(checkpoint_dir)
        self._weights = weights_files(self.folder)
        self.config = load_model_config(self.folder)
        self.tokenizer, self.style = Tokenizer(self.folder), load_style(self.folder)
        self.precision, self.quantize = precision or own_precision(self.folder), quantize
        self._llm: LLM | None = None

    @property
    def llm(self) -> LLM:
        """The model; loaded now if it is not there yet."""
        if self._llm is None:
            self._llm = LLM.load(self.folder, self.precision, quantize=self.quantize)
        return self._llm

    def release(self) -> None:
        """Lets the model go, so that another has its memory."""
        self._llm = None

    def facts(self) -> dict[str, object]:
        """Gives what decides its numbers, as plain types."""
        return {
            "checkpoint": self.name,
            "weights_sha256": [weights_sha256(path) for path in self._weights],
            "precision": self.precision,
            "quantize": self.quantize,
        }

    def digest(self) -> str:
        """Gives 64 hex digits that change with the weights and how they are kept, not with where they lie."""
        facts = {name: value for name, value in self.facts().items() if name != "checkpoint"}
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def slug(self) -> str:
        """Gives its name as part of a file's: the last three folders."""
        parts = Path(self.name).expanduser().parts[-3:]
        return "-".join(part for part in parts if part not in ("/", "..", ".", "out", "checkpoints"))
