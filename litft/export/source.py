"""What an export begins from: any checkpoint folder as whole weights, and the refusal of one that is its base again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from litft.checkpoint.disk import read_json, weights_sha256
from litft.checkpoint.files import WEIGHTS_NAME, load_model_config, require_converted
from litft.checkpoint.hf_folder import HfSource, Read
from litft.checkpoint.tensors import load_weights, tensor_specs
from litft.errors import CheckpointError
from litft.methods.load import METHOD_FILE, check_base, load_method, quantized_in_training
from litft.methods.lora import LoRA
from litft.methods.merged import inner_method, load_changes, merged_weights, require_effect
from litft.text.encoding import Style
from litft.text.style_files import STYLE_FILE, saved_style

PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True)
class Exportable:
    """A checkpoint folder that can be written as whole weights.

    Attributes:
        checkpoint_dir: the folder itself.
        base_dir: where the weights lie: the folder, or the base of a LoRA run.
        source: the weights, with what was trained put in.
        unrounded: the same in float32, where they are computed from a base and adapters.
    """

    checkpoint_dir: Path
    base_dir: Path
    source: HfSource
    unrounded: Read | None = None

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(spec.n_bytes // spec.dtype.itemsize for spec in self.source.specs.values())


def open_exportable(checkpoint_dir: Path) -> Exportable:
    """Opens a converted, merged or finetuned checkpoint; of a whole one nothing but headers is read yet.

    Args:
        checkpoint_dir: as `resolve_checkpoint_dir` gave it.

    Raises:
        CheckpointError: a part is missing or damaged, the base is another one, the method's result is no weights, or it
            changes nothing.
    """
    if (checkpoint_dir / METHOD_FILE).exists():
        return _open_lora(checkpoint_dir)
    require_converted(checkpoint_dir)
    _refuse_unmoved(checkpoint_dir)
    return Exportable(checkpoint_dir, checkpoint_dir, open_weights_of(checkpoint_dir, checkpoint_dir))


def open_weights_of(base_dir: Path, side_dir: Path) -> HfSource:
    """Gives the weights of a converted folder as they are.

    Args:
        base_dir: where they lie.
        side_dir: where config.json, tokenizer and prompt style are taken from.
    """
    weights = load_weights(base_dir / WEIGHTS_NAME)
    read = {name: partial(weights.__getitem__, name) for name in weights}
    return HfSource(load_model_config(base_dir), tensor_specs(weights), read, side_dir, trained_style(side_dir))


def trained_style(folder: Path) -> Style | None:
    """Gives the prompt style saved with a checkpoint; None where none was."""
    return saved_style(folder) if (folder / STYLE_FILE).is_file() else None


def _open_lora(checkpoint_dir: Path) -> Exportable:
    """Opens a LoRA run on its base."""
    base_dir, method = load_method(checkpoint_dir)
    if not isinstance(inner_method(method), LoRA):
        raise CheckpointError(
            f"{checkpoint_dir} is a run of {method.name}, whose prompts are no weights and cannot be merged; "
            "use it as it is with `litft generate`."
        )
    check_base(checkpoint_dir)
    base = open_weights_of(base_dir, checkpoint_dir)
    changes = load_changes(checkpoint_dir, base.model, method)
    require_effect(base.read, base.specs, changes, checkpoint_dir)
    read, specs = merged_weights(base.read, base.specs, changes)
    unrounded, _ = merged_weights({name: partial(_float32, get) for name, get in base.read.items()}, specs, changes)
    source = replace(base, model=load_model_config(checkpoint_dir), read=read, specs=specs)
    return Exportable(checkpoint_dir, base_dir, source, unrounded)


def report_quantized(checkpoint_dir: Path, report: Callable[[str], None]) -> None:
    """Tells of adapters that were trained beside another base than the one they are exported with."""
    form = quantized_in_training(checkpoint_dir)
    if form != "none":
        report(
            f"The adapters were trained on a base in {form}; they go with the base as it is on disk, which answers a "
            "little differently."
        )


def _float32(get: Callable[[], Tensor]) -> Tensor:
    """Reads a weight as float32."""
    return get().float()


def _refuse_unmoved(checkpoint_dir: Path) -> None:
    """Refuses a full run whose weights are bit for bit those that it began from."""
    if not (checkpoint_dir / PROVENANCE_FILE).is_file():
        return
    base = read_json(checkpoint_dir / PROVENANCE_FILE).get("sha256", {}).get("base")
    if base is not None and weights_sha256(checkpoint_dir / WEIGHTS_NAME) == base:
        raise CheckpointError(
            f"The weights of {checkpoint_dir} are those of its base, bit for bit: the run changed nothing; train "
            "longer or at a higher rate."
        )
