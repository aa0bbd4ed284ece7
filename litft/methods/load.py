"""Opens any checkpoint directory as a model: base weights, or a finished run's adapters on the base they name.

The table of methods stands here. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import WEIGHTS_NAME, load_model_config, require_converted, resolve_checkpoint_dir
from litft.config.io import load_yaml
from litft.config.run import AdapterConfig
from litft.errors import CheckpointError, did_you_mean
from litft.methods.adapter import Adapter, AdapterV2
from litft.methods.base import Full, Method, trainable_state, weights_path
from litft.methods.lora import LoRA
from litft.methods.merged import inner_method
from litft.methods.new_tokens import with_new_tokens
from litft.model.gpt import GPT
from litft.model.load import assign_weights, load_model

METHODS: dict[str, Callable[[dict[str, Any]], Method]] = {
    "full": lambda settings: Full(),
    "lora": lambda settings: LoRA.from_settings(settings),
    "adapter": lambda settings: Adapter(AdapterConfig(**settings)),
    "adapter_v2": lambda settings: AdapterV2(AdapterConfig(**settings)),
}
METHOD_FILE = "method.yaml"


def load_finetuned(checkpoint_dir: Path, precision: str, device: torch.device, quantize: str = "none") -> GPT:
    """Gives the model of a checkpoint directory, with the adapters of a finished run applied where it holds some.

    Args:
        checkpoint_dir: a converted checkpoint, a merged one, or the `final` folder of a run.
        precision: of the base weights and the computation; adapters stay float32.
        device: where the model goes.
        quantize: how the base is kept, as in `load_model`; whether the adapters were trained so does not matter.

    Raises:
        CheckpointError: a part is missing or damaged, or the base is not the one the adapters were trained on.
    """
    if not (checkpoint_dir / METHOD_FILE).exists():
        return load_model(checkpoint_dir, precision, device, quantize)
    base_dir, method = load_method(checkpoint_dir)
    check_base(checkpoint_dir)
    path, plain = weights_path(checkpoint_dir, method), inner_method(method)
    reader = None
    if isinstance(plain, LoRA) and quantize != "none":
        reader = plain.taken_out(path, load_model_config(base_dir), device)
    model = load_model(base_dir, precision, device, quantize, reader)
    method.apply(model)
    assign_weights(model, path, set(trainable_state(model, method)), torch.float32, device)
    if reader:
        reader.drop(model)
    return model.eval()


def weights_files(checkpoint_dir: Path) -> list[Path]:
    """Gives the files that `load_finetuned` reads weights from, the base's first.

    Raises:
        CheckpointError: a part is missing or damaged.
    """
    if not (checkpoint_dir / METHOD_FILE).exists():
        require_converted(checkpoint_dir)
        return [checkpoint_dir / WEIGHTS_NAME]
    base_dir, method = load_method(checkpoint_dir)
    return [base_dir / WEIGHTS_NAME, weights_path(checkpoint_dir, method)]


def load_method(checkpoint_dir: Path) -> tuple[Path, Method]:
    """Reads `method.yaml`: the folder of the base and the method with its settings.

    Raises:
        CheckpointError: no such file, an unknown method, or a base that is missing.
    """
    path = checkpoint_dir / METHOD_FILE
    if not path.exists():
        raise CheckpointError(
            f"{checkpoint_dir} holds no adapters ({METHOD_FILE}); a base, a merged model and the result of a full run "
            "are whole already. Name the final folder of a LoRA run."
        )
    saved = load_yaml(path)
    try:
        name, base_dir = saved["method"], _find_base(checkpoint_dir, saved["base"], saved["base_from_here"])
        if name not in METHODS:
            raise CheckpointError(f'{path} names the method "{name}".{did_you_mean(name, METHODS)}')
        settings = saved["settings"]
        own = {key: value for key, value in settings.items() if key != "new_tokens"}
        method = with_new_tokens(METHODS[name](own), settings)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is incomplete or damaged: {error}.") from error
    weights = base_dir / WEIGHTS_NAME
    if not weights.exists():
        raise CheckpointError(f"{path} names the base {base_dir}, which holds no {WEIGHTS_NAME}; convert it again.")
    return base_dir, method


def quantized_in_training(checkpoint_dir: Path) -> str:
    """Says how the base of a finished run was kept while it trained: `none`, or a form such as `bnb.nf4`."""
    path = checkpoint_dir / METHOD_FILE
    return str(load_yaml(path).get("quantize", "none")) if path.exists() else "none"


def check_base(checkpoint_dir: Path) -> None:
    """Makes sure that the base which `method.yaml` names still has the weights that the adapters were trained on.

    Raises:
        CheckpointError: it has others.
    """
    weights = load_method(checkpoint_dir)[0] / WEIGHTS_NAME
    if weights_sha256(weights) != load_yaml(checkpoint_dir / METHOD_FILE).get("base_sha256"):
        raise CheckpointError(
            f"{weights} is not the base that {checkpoint_dir} was trained on: its sha256 differs from the one in "
            f"{METHOD_FILE}; put the model of that run back."
        )


def _find_base(checkpoint_dir: Path, typed: str, from_here: str) -> Path:
    """Gives the base's folder: as it was typed for the run, or, from another working folder, as seen from its result.

    Raises:
        CheckpointError: it is neither here nor there.
    """
    try:
        return resolve_checkpoint_dir(Path(typed))
    except CheckpointError:
        beside = checkpoint_dir / from_here
        if beside.is_dir():
            return beside
    path = checkpoint_dir / METHOD_FILE
    raise CheckpointError(
        f'No checkpoint folder "{typed}", which {path} names as the base of the run; put that model back, or write its '
        "new place under `base` there."
    )
