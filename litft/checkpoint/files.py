"""Checkpoint folders and safe writing: finding a folder, checking it, reading and writing its files.

The layout is that of downloaded, converted and finetuned folders alike. Knows no Hugging Face tensor names.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from litft.checkpoint.disk import atomic_path
from litft.checkpoint.tensors import read_safetensors_header
from litft.config.io import dump_yaml, load_yaml
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError, did_you_mean

CHECKPOINTS_DIR = Path("checkpoints")
WEIGHTS_NAME = "lit_model.safetensors"
MODEL_CONFIG_NAME = "model_config.yaml"
ADAPTER_NAMES = ("lora.safetensors", "adapter.safetensors")

# Everything beside the weights that a model needs to be used: the tokenizer in its several forms, and the descriptions.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "prompt_style.yaml",
)


def resolve_checkpoint_dir(path: Path) -> Path:
    """Gives the folder that is meant: `path` itself, or `checkpoints/path` for an `ORG/NAME`.

    Args:
        path: what the user typed.

    Raises:
        CheckpointError: there is no such folder; with the nearest name that exists, or the model of a run's folder.
    """
    for candidate in (path, CHECKPOINTS_DIR / path):
        if (candidate / "final").is_dir() and not (candidate / "config.json").exists():
            raise CheckpointError(f"{candidate} is the folder of a run; its model is {candidate / 'final'}.")
        if (candidate / "state.yaml").exists():
            raise CheckpointError(
                f"{candidate} is a step of a run, for --resume only; the run's model is {candidate.parent / 'final'}."
            )
        if candidate.is_dir():
            return candidate
    if path.exists():
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder, such as {path.parent}.")
    known = _known_checkpoints(path)
    hint = did_you_mean(str(path), known) or did_you_mean(path.name, [Path(name).name for name in known])
    repo_id = path.relative_to(CHECKPOINTS_DIR) if path.is_relative_to(CHECKPOINTS_DIR) else path
    if not hint and not repo_id.is_absolute() and len(repo_id.parts) == 2:
        hint = f" `litft download --repo_id {repo_id}` fetches a model of that name."
    raise CheckpointError(f'No checkpoint folder "{path}", neither here nor under {CHECKPOINTS_DIR}/.{hint}')


def _known_checkpoints(path: Path) -> list[str]:
    """Gives the folders the user may have meant: those under checkpoints/ and the neighbours of the path."""
    names = [str(folder.relative_to(CHECKPOINTS_DIR)) for folder in CHECKPOINTS_DIR.glob("*/*") if folder.is_dir()]
    neighbours = path.parent.glob("*") if path.parent.is_dir() else ()
    return names + [str(folder) for folder in neighbours if folder.is_dir()]


def require_converted(checkpoint_dir: Path) -> None:
    """Makes sure that a folder holds whole weights in litft's layout and their description.

    Args:
        checkpoint_dir: as `resolve_checkpoint_dir` gave it.

    Raises:
        CheckpointError: something is missing or damaged, with the command that mends it.
    """
    if not checkpoint_dir.is_dir():
        raise CheckpointError(f'No checkpoint folder "{checkpoint_dir}".')
    weights = checkpoint_dir / WEIGHTS_NAME
    missing = [name for name in (WEIGHTS_NAME, MODEL_CONFIG_NAME) if not (checkpoint_dir / name).is_file()]
    if not missing:
        read_safetensors_header(weights)
        return
    adapter = next((name for name in ADAPTER_NAMES if (checkpoint_dir / name).is_file()), None)
    if adapter is not None:
        way = (
            f"`litft merge --checkpoint_dir {checkpoint_dir}` writes one"
            if adapter == "lora.safetensors"
            else ("adapters cannot be merged, use them with `litft generate`")
        )
        raise CheckpointError(f"{checkpoint_dir} holds only {adapter}, not a whole model; {way}.")
    way = f"run `litft convert from_hf --checkpoint_dir {checkpoint_dir}`"
    if any(checkpoint_dir.glob("lit_model*.pth*")):  # Lit-GPT leaves the weights that it converted beside its own
        has_source = any(any(checkpoint_dir.glob(pattern)) for pattern in ("*.safetensors", "*.bin"))
        if not has_source:
            way = f"run `litft convert from_litgpt --checkpoint_dir {checkpoint_dir} --out_dir ...`"
    elif not (checkpoint_dir / "config.json").is_file():
        raise CheckpointError(f"{checkpoint_dir} is not a checkpoint: it has neither {missing[0]} nor config.json.")
    raise CheckpointError(f"{checkpoint_dir} is not converted (no {missing[0]}); {way}.")


def load_model_config(checkpoint_dir: Path) -> ModelConfig:
    """Gives the architecture from a folder's model_config.yaml.

    Raises:
        CheckpointError: the file is missing, malformed, or describes no possible model.
    """
    path = checkpoint_dir / MODEL_CONFIG_NAME
    try:
        return ModelConfig.from_dict(load_yaml(path))
    except ConfigError as error:
        raise CheckpointError(f"The model's description {path} cannot be used: {error}") from error


def save_model_config(checkpoint_dir: Path, config: ModelConfig) -> None:
    """Writes a folder's model_config.yaml."""
    with atomic_path(checkpoint_dir / MODEL_CONFIG_NAME) as path:
        path.write_text(dump_yaml(config.to_dict()), encoding="utf-8")


def copy_side_files(source_dir: Path, target_dir: Path) -> list[Path]:
    """Copies tokenizer, prompt style and descriptions, everything but weights, to another checkpoint folder.

    Args:
        source_dir: a checkpoint folder.
        target_dir: is created; files of the same names are replaced.

    Returns:
        The files written.
    """
    target_dir.mkdir(parents=True, exist_ok=True)
    found = {path for pattern in SIDE_FILES for path in source_dir.glob(pattern) if path.is_file()}
    copied = []
    for path in sorted(found):
        with atomic_path(target_dir / path.name) as temporary:
            shutil.copyfile(path, temporary)
        copied.append(target_dir / path.name)
    return copied
