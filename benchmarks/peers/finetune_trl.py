"""TRL's and PEFT's finetuning, for `benchmarks/finetune.py`: padded | packed | padding-free, lora | full, FOLDERS.

The folders are CHECKPOINT DATA_DIR WORK_DIR. Runs in an environment of its own, without litft. Weights and computation
are bfloat16, without autocast and without checkpointing, which is faster than what TRL comes with. Prints real tokens,
positions computed, and the seconds from the begin of training to the end of the last step.
Source: TRL 1.16, `SFTTrainer` and `SFTConfig`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path

import torch
from datasets import load_dataset
from encode import prompt_of
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

PACKING = {"padded": {}, "packed": {"packing": True}, "padding-free": {"padding_free": True, "max_length": None}}


class Clock(TrainerCallback):
    """Notes when training began and when its last step ended."""

    began = ended = 0.0

    def on_train_begin(self, args, state, control, **others):
        """Is called once all is set up."""
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **others):
        """Is called after each step of the optimizer."""
        self.ended = time.perf_counter()


class Counting:
    """A collator that counts the positions of its batches."""

    def __init__(self, collator):
        self.collator, self.positions = collator, 0

    def __call__(self, rows):
        """Gives what the collator gives."""
        batch = self.collator(rows)
        self.positions += batch["input_ids"].numel()
        return batch


def settings(packing: str, work_dir: Path) -> SFTConfig:
    """Gives the same training as the other ways have."""
    return SFTConfig(**{
        "output_dir": str(work_dir / "trl"), "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
        "max_length": 512, "num_train_epochs": 1, "learning_rate": 3e-4, "lr_scheduler_type": "cosine",
        "warmup_steps": 2, "weight_decay": 0.0, "completion_only_loss": True, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "seed": 1,
    } | PACKING[packing])  # fmt: skip


def adapters(model_type: str) -> LoraConfig:
    """Gives LoRA on queries and values, or, of GPT-NeoX's one matrix, on all three: PEFT cannot take a part."""
    targets = ["query_key_value"] if model_type == "gpt_neox" else ["q_proj", "v_proj"]
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, task_type="CAUSAL_LM", target_modules=targets)


def load_pairs(data_dir: Path, work_dir: Path):
    """Gives the training rows as prompts and completions."""
    rows = json.loads((data_dir / "train.json").read_text(encoding="utf-8"))
    work_dir.mkdir(parents=True, exist_ok=True)
    source = work_dir / "pairs.jsonl"
    pairs = [{"prompt": prompt_of(row), "completion": row["output"]} for row in rows]
    source.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    return load_dataset("json", data_files=str(source), split="train", cache_dir=str(work_dir / "cache"))


def finetune(packing: str, method: str, checkpoint: str, data_dir: Path, work_dir: Path) -> dict[str, object]:
    """Trains for one epoch."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
    clock = Clock()
    trainer = SFTTrainer(
        model=model, args=settings(packing, work_dir), train_dataset=load_pairs(data_dir, work_dir), callbacks=[clock],
        processing_class=tokenizer, peft_config=adapters(model.config.model_type) if method == "lora" else None,
    )  # fmt: skip
    trainer.data_collator = counting = Counting(trainer.data_collator)
    trainer.train()
    return {
        "tokens": int([line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line][-1]),
        "positions": counting.positions,
        "seconds": clock.ended - clock.began,
        "versions": {name: metadata.version(name) for name in ("torch", "trl", "peft", "transformers")},
    }


if __name__ == "__main__":
    print(json.dumps(finetune(*sys.argv[1:4], *map(Path, sys.argv[4:6]))))
