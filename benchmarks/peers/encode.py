"""One of the other ways to encode Alpaca, for `benchmarks/prepare.py`: WAY ALPACA_JSON TOKENIZER_DIR WORK_DIR.

Runs in an environment of its own, without litft. Prints rows, tokens and seconds; the file is read before the clock
starts. Sources: litgpt 0.5 `litgpt/data/json_data.py`, its README for the settings; TRL's `SFTTrainer`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

BEGIN = (
    "Below is an instruction that describes a task{context}. Write a response that appropriately completes the "
    "request.\n\n"
)
CONTEXT = ", paired with an input that provides further context"
MIDDLE = "### Instruction:\n{instruction}\n\n"
INPUT = "### Input:\n{input}\n\n"
CORES = os.cpu_count() or 1


def prompt_of(row):
    """Gives a row's prompt in Alpaca's frame."""
    frame = BEGIN.format(context=CONTEXT) + MIDDLE + INPUT if row["input"] else BEGIN.format(context="") + MIDDLE
    return frame.replace("{instruction}", row["instruction"]).replace("{input}", row["input"]) + "### Response:\n"


def sentencepiece_in_threads(texts, folder):
    """Encodes all texts at once with the library's threads."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    start = time.perf_counter()
    ids = pieces.encode(texts, num_threads=CORES)
    return sum(map(len, ids)), time.perf_counter() - start


def tokenizers_in_threads(texts, folder):
    """Encodes all texts at once with the library's threads, offsets left away, and takes the ids out."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    start = time.perf_counter()
    ids = [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    return sum(map(len, ids)), time.perf_counter() - start


def litgpt(path, folder, options):
    """Goes once through the training batches of litgpt's data module, which encodes rows as they are asked for."""
    from litgpt.data import JSON
    from litgpt.tokenizer import Tokenizer

    data = JSON(json_path=path, mask_prompt=True, val_split_fraction=0.0002, **options)
    data.connect(tokenizer=Tokenizer(folder), batch_size=4, max_seq_length=512)
    data.setup()
    start = time.perf_counter()
    rows = tokens = 0
    for batch in data.train_dataloader():
        rows += batch["input_ids"].shape[0]
        tokens += int(batch["token_counts"]["raw_plus_prompt_template"].sum())
    return rows, tokens, time.perf_counter() - start


def trl(rows, folder, work_dir, processes):
    """Lets SFTTrainer prepare a dataset, with a model as small as can be."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.unk_token
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, **small))
    source = work_dir / "trl.jsonl"
    pairs = [{"prompt": prompt_of(row), "completion": row["output"]} for row in rows]
    source.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    cache = work_dir / f"trl-{time.time_ns()}"  # what was prepared before would be taken from there
    dataset = load_dataset("json", data_files=str(source), split="train", cache_dir=str(cache))
    config = SFTConfig(
        output_dir=str(work_dir / "trl"), use_cpu=True, bf16=False, report_to="none", max_length=512,
        dataset_num_proc=processes,
    )  # fmt: skip
    start = time.perf_counter()
    trainer = SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    seconds = time.perf_counter() - start
    return sum(map(len, trainer.train_dataset["input_ids"])), seconds


def main():
    """Encodes and prints."""
    way, path, folder, work_dir = sys.argv[1], *map(Path, sys.argv[2:])
    rows = json.loads(path.read_text(encoding="utf-8"))
    count = len(rows)
    if way.startswith("litgpt"):
        count, tokens, seconds = litgpt(path, folder, {} if way.endswith("as it comes") else {"num_workers": 0})
    elif way.startswith("trl"):
        tokens, seconds = trl(rows, folder, work_dir, 2 if way.endswith("two processes") else None)
    else:
        texts = [prompt_of(row) for row in rows] + [row["output"] for row in rows]
        encode = sentencepiece_in_threads if way.startswith("sentencepiece") else tokenizers_in_threads
        tokens, seconds = encode(texts, folder)
    print(json.dumps({"rows": count, "tokens": tokens, "seconds": seconds}))


if __name__ == "__main__":
    main()
