"""litgpt's finetuning, for `benchmarks/finetune.py`: convert CHECKPOINT, or lora | full CHECKPOINT DATA_DIR WORK_DIR.

Runs in an environment of its own, without litft. `lora` and `full` run litgpt's own command and print real tokens,
positions computed, and the seconds of its loop: the sum of the times that it prints for its iterations.
Source: litgpt 0.5.13, `litgpt/finetune/lora.py`, `litgpt/scripts/convert_hf_checkpoint.py`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SETTINGS = shlex.split("""
--precision bf16-true --devices 1 --logger_name csv --data JSON --data.mask_prompt true --data.prompt_style alpaca
--train.global_batch_size 16 --train.micro_batch_size 4 --train.max_seq_length 512 --train.epochs 1
--train.lr_warmup_steps 2 --train.log_interval 1 --train.save_interval 100000
--eval.interval 100000 --eval.max_new_tokens 1 --eval.max_iters 1
--eval.initial_validation false --eval.final_validation false
""")
LORA = shlex.split("""
--lora_r 8 --lora_alpha 16 --lora_dropout 0.05 --lora_query true --lora_key false --lora_value true
""")


def convert(checkpoint: Path) -> None:
    """Writes litgpt's weights beside those of Hugging Face."""
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

    if checkpoint.name.startswith("pythia"):
        convert_hf_checkpoint(checkpoint, model_name=checkpoint.name)
    else:
        convert_llama(checkpoint)


def convert_llama(checkpoint: Path) -> None:
    """Does the same for a Llama whose sizes litgpt has no name for."""
    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import save_config
    from safetensors.torch import load_file

    theirs = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    heads, width = theirs["num_attention_heads"], theirs["hidden_size"]
    sizes = {"n_layer": theirs["num_hidden_layers"], "n_head": heads, "n_query_groups": heads, "n_embd": width}
    sizes |= {"intermediate_size": theirs["intermediate_size"], "head_size": width // heads}
    known = Config.from_name("tiny-llama-1.1b").__dict__ | sizes | {"rope_n_elem": width // heads}
    names = {field.name for field in dataclasses.fields(Config) if field.init} - {"hf_config"}
    config = Config(**{name: value for name, value in known.items() if name in names} | {"name": checkpoint.name})
    weights: dict[str, torch.Tensor] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(checkpoint / "model.safetensors"))
    torch.save(weights, checkpoint / "lit_model.pth")
    save_config(config, checkpoint)


def finetune(method: str, checkpoint: str, data_dir: str, work_dir: str) -> dict[str, object]:
    """Runs the command and reads what it printed."""
    command = [str(Path(sys.executable).parent / "litgpt"), f"finetune_{method}", checkpoint, *SETTINGS]
    command += ["--out_dir", f"{work_dir}/litgpt", "--data.json_path", data_dir, *(LORA if method == "lora" else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    seconds = sum(float(found) for found in re.findall(r"iter time: ([\d.]+) ms", done.stdout)) / 1000
    return {
        "tokens": count(r"Tokens w/ Prompt\s*:\s*(\d+)", done.stdout),
        "positions": count(r"Total Tokens \(w/ Padding\)\s*:\s*(\d+)", done.stdout),
        "seconds": seconds,
        "versions": {name: metadata.version(name) for name in ("torch", "litgpt")},
    }


def count(pattern: str, text: str) -> int:
    """Gives a number that litgpt prints."""
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"litgpt printed nothing like {pattern}: {text[-2000:]}")
    return int(found[1])


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(Path(sys.argv[2]))
    else:
        print(json.dumps(finetune(*sys.argv[1:5])))
