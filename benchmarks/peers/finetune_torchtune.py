"""torchtune's LoRA finetuning, packed, for `benchmarks/finetune.py`: CHECKPOINT DATA_DIR WORK_DIR.

Runs in an environment of its own, without litft: torchtune's own command on its recipe for one device, with rows of
512 packed tokens, one at a time, four to a step, and torch's cross-entropy, the fastest of its settings on a CPU.
Prints real tokens, positions computed, and the seconds from the last line of its set-up to the first of its saving.
Tokens are counted afterwards, with torchtune's own dataset. Source: torchtune 0.6.1, `recipes/configs/llama2`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

STEP = 4  # packs to a step of the optimizer; what is left over at the end is computed, but never stepped
BEGINS, ENDS = "Profiler config after instantiation", "Starting checkpoint save"
TOKENIZER, DATASET = "torchtune.models.llama2.llama2_tokenizer", "torchtune.datasets.alpaca_dataset"


def settings(checkpoint: Path, data_dir: Path, out_dir: Path) -> dict[str, object]:
    """Gives the whole config of the recipe."""
    theirs = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    model = {
        "_component_": "torchtune.models.llama2.lora_llama2", "vocab_size": theirs["vocab_size"],
        "num_layers": theirs["num_hidden_layers"], "num_heads": theirs["num_attention_heads"],
        "num_kv_heads": theirs["num_key_value_heads"], "embed_dim": theirs["hidden_size"],
        "intermediate_dim": theirs["intermediate_size"], "max_seq_len": 512, "norm_eps": theirs["rms_norm_eps"],
        "lora_attn_modules": ["q_proj", "v_proj"], "apply_lora_to_mlp": False, "apply_lora_to_output": False,
        "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.05,
    }  # fmt: skip
    files = {
        "_component_": "torchtune.training.FullModelHFCheckpointer", "checkpoint_dir": str(checkpoint),
        "checkpoint_files": ["model.safetensors"], "adapter_checkpoint": None, "recipe_checkpoint": None,
        "output_dir": str(out_dir), "model_type": "LLAMA2",
    }  # fmt: skip
    rows = {"source": "json", "data_files": str(data_dir / "train.json"), "cache_dir": str(out_dir / "cache")}
    return {
        "output_dir": str(out_dir), "model": model, "checkpointer": files,
        "tokenizer": {"_component_": TOKENIZER, **tokens(checkpoint)},
        "dataset": {"_component_": DATASET, **rows, "train_on_input": False, "packed": True},
        "resume_from_checkpoint": False, "save_adapter_weights_only": True, "seed": 1, "shuffle": True,
        "batch_size": 1, "gradient_accumulation_steps": STEP, "epochs": 1, "max_steps_per_epoch": None,
        "optimizer": {"_component_": "torch.optim.AdamW", "fused": True, "weight_decay": 0.0, "lr": 3e-4},
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup", "num_warmup_steps": 2,
        },
        "loss": {"_component_": "torch.nn.CrossEntropyLoss"}, "clip_grad_norm": None, "compile": False,
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": f"{out_dir}/logs"},
        "log_every_n_steps": 1, "log_peak_memory_stats": False, "device": "cpu", "dtype": "bf16",
        "enable_activation_checkpointing": False, "enable_activation_offloading": False,
        "profiler": {"_component_": "torchtune.training.setup_torch_profiler", "enabled": False},
    }  # fmt: skip


def tokens(checkpoint: Path) -> dict[str, object]:
    """Gives what its tokenizer is told; without a template, as its own would frame Alpaca's frame."""
    return {"path": str(checkpoint / "tokenizer.model"), "max_seq_len": 512, "prompt_template": None}


def count(config: dict[str, dict[str, object]]) -> tuple[int, int]:
    """Gives real tokens and positions of the packs."""
    from torchtune.datasets import alpaca_dataset
    from torchtune.models.llama2 import llama2_tokenizer

    choices = [
        {name: value for name, value in config[section].items() if name != "_component_"}
        for section in ("tokenizer", "dataset")
    ]
    tokenizer = llama2_tokenizer(**choices[0])
    ids = [pack["tokens"] for pack in alpaca_dataset(tokenizer, **choices[1])]
    return sum(int((each != tokenizer.pad_id).sum()) for each in ids), sum(each.numel() for each in ids)


def finetune(checkpoint: Path, data_dir: Path, work_dir: Path) -> dict[str, object]:
    """Runs the command and notes when it begins and ends its loop."""
    work_dir.mkdir(parents=True, exist_ok=True)
    config = settings(checkpoint, data_dir, work_dir / "torchtune")
    file = work_dir / "torchtune.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = [str(Path(sys.executable).parent / "tune"), "run", "lora_finetune_single_device", "--config", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, seen = [], {}
    for line in process.stdout:
        said.append(line)
        seen |= {mark: time.perf_counter() for mark in (BEGINS, ENDS) if mark in line}
    if process.wait() or len(seen) < 2:
        raise SystemExit("".join(said[-40:]))
    real, positions = count(config)
    versions = {name: metadata.version(name) for name in ("torch", "torchtune", "torchao")}
    return {"tokens": real, "positions": positions, "seconds": seen[ENDS] - seen[BEGINS], "versions": versions}


if __name__ == "__main__":
    print(json.dumps(finetune(*map(Path, sys.argv[1:4]))))
