"""What other programs call a flag of litft. Knows no flag's type."""

from __future__ import annotations

# Spellings of Lit-GPT that the field's tutorials use, and the leaf they mean.
LIT_GPT_NAMES = {"csv_dir": "data_file", "csv_path": "data_file", "override_max_seq_length": "max_seq_length"}
# Names that other programs have for a leaf, some meaning it in another unit: a hint, never taken.
OTHERS_NAMES = {
    "lr": "optim.learning_rate",
    "optimizer": "optim.name",
    "lr_scheduler_type": "optim.schedule",
    "warmup_steps": "optim.lr_warmup_steps",
    "warmup_ratio": "optim.lr_warmup_steps",
    "max_grad_norm": "optim.clip_norm",
    "max_norm": "optim.clip_norm",
    "batch_size": "train.global_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_length": "train.max_seq_length",
    "packing": "train.pack",
    "save_steps": "train.save_interval",
    "eval_steps": "eval.interval",
    "gradient_checkpointing": "train.checkpoint",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target_modules": "lora.targets",
    "target_modules": "lora.targets",
    "output_dir": "out_dir",
    "model": "checkpoint_dir",
    "model_name_or_path": "checkpoint_dir",
    "dataset": "data_dir",
    "dataset_name": "data_dir",
    "report_to": "logger",
}
