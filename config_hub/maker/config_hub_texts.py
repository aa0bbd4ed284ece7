"""What the files of `config_hub/finetune` say: the models, and the settings of each method with their sources. Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Base:
    """A base model of the hub.

    Attributes:
        folder: of its files.
        name: in `litft/config/named_models.csv`.
        title: as people write it.
        data: what it is finetuned on here.
        gated: whether its weights are behind a licence on the hub.
        large: whether it has 33 billion parameters or more, for which the QLoRA paper has other settings.
    """

    folder: str
    name: str
    title: str
    data: str = "lima"
    gated: Literal["", "the model", "perhaps the model"] = ""
    large: bool = False


BASES = (
    Base("falcon-7b", "falcon-7b", "Falcon 7B", "alpaca"),
    Base("gemma-2b", "Gemma-2b", "Gemma 2B", "alpaca", gated="the model"),
    Base("gemma-2-9b", "Gemma-2-9b", "Gemma 2 9B", gated="the model"),
    Base("gemma-3-4b", "Gemma-3-4b-pt", "Gemma 3 4B", gated="the model"),
    Base("llama-2-7b", "Llama-2-7b-hf", "Llama 2 7B", gated="the model"),
    Base("llama-2-13b", "Llama-2-13b-hf", "Llama 2 13B", gated="the model"),
    Base("llama-3.1-8b", "Llama-3.1-8B", "Llama 3.1 8B", gated="the model"),
    Base("mistral-7b", "Mistral-7B-v0.3", "Mistral 7B v0.3", gated="perhaps the model"),
    Base("mixtral-8x7b", "Mixtral-8x7B-v0.1", "Mixtral 8x7B", gated="perhaps the model", large=True),
    Base("mpt-7b", "mpt-7b", "MPT 7B", "alpaca"),
    Base("olmo-7b", "OLMo-7B-hf", "OLMo 7B"),
    Base("olmo-2-7b", "OLMo-2-1124-7B", "OLMo 2 7B"),
    Base("opt-6.7b", "opt-6.7b", "OPT 6.7B", "alpaca"),
    Base("phi-2", "phi-2", "Phi-2", "alpaca"),
    Base("phi-4", "phi-4", "Phi-4"),
    Base("pythia-160m", "pythia-160m", "Pythia 160M", "alpaca"),
    Base("pythia-6.9b", "pythia-6.9b", "Pythia 6.9B", "alpaca"),
    Base("qwen2.5-7b", "Qwen2.5-7B", "Qwen2.5 7B"),
    Base("qwen3-8b", "Qwen3-8B-Base", "Qwen3 8B"),
    Base("stablelm-3b", "stablelm-3b-4e1t", "StableLM 3B", "alpaca"),
    Base("tiny-llama-1.1b", "tiny-llama-1.1b", "TinyLlama 1.1B", "alpaca"),
)

DATA = {
    "lima": "LIMA (1,030 conversations written by people)",
    "alpaca": "Alpaca (51,760 instructions, answered by a model)",
}
METHODS = {"full": "Every weight of", "lora": "LoRA on", "qlora": "QLoRA on", "adapter": "LLaMA-Adapter on"}
FULL_LIMA = """\
train:
  epochs: 15  # as in the LIMA paper, arXiv 2305.11206, section 3
  global_batch_size: 64  # the paper's, for models below 65B
{micro}
{longest}
  save_interval: 0.5  # one checkpoint on the way
  keep: 1  # each holds weights and both moments

optim:
{optim}  learning_rate: 1e-5  # the paper's
  min_learning_rate: 1e-6  # the paper's
  schedule: linear  # the paper's
  lr_warmup_steps: 0  # the paper's: none
  weight_decay: 0.1  # the paper's
"""
FULL_ALPACA = """\
train:
  epochs: 3  # as Stanford Alpaca
  global_batch_size: 128  # as Stanford Alpaca
{micro}
{longest}
  save_interval: 0.5  # one checkpoint on the way
  keep: 1  # each holds weights and both moments

optim:
{optim}  learning_rate: 2e-5  # as Stanford Alpaca
  lr_warmup_steps: 0.03  # as Stanford Alpaca
  weight_decay: 0.0  # as Stanford Alpaca
"""
LORA_LIMA = """\
train:
  epochs: 3  # passes over the rows; watch val_loss, the best may come earlier
  global_batch_size: 16  # examples a step
{micro}
{longest}

optim:
  learning_rate: 3e-4  # as Alpaca-LoRA; LoRA bears ten times the rate of full finetuning
"""
LORA_ALPACA = """\
train:
  epochs: 3  # as Alpaca-LoRA
  global_batch_size: 128  # as Alpaca-LoRA
{micro}
{longest}

optim:
  learning_rate: 3e-4  # as Alpaca-LoRA; LoRA bears ten times the rate of full finetuning
"""
QLORA_LIMA = """\
train:
  epochs: 3  # passes over the rows; watch val_loss, the best may come earlier
  global_batch_size: 16  # as the QLoRA paper, arXiv 2305.14314, appendix B
{micro}
{longest}

optim:
  learning_rate: {rate}  # the paper's, for models {size}
  schedule: constant  # the paper's
  lr_warmup_steps: 0.03  # the paper's code
  clip_norm: 0.3  # the paper's
  weight_decay: 0.0  # the paper's code
"""
ADAPTER = """\
train:
  epochs: 5  # as LLaMA-Adapter, arXiv 2303.16199
  global_batch_size: 64  # as LLaMA-Adapter
{micro}
{longest}

optim:
  learning_rate: 3e-3  # gates start at zero and need a high rate
  weight_decay: 0.02  # as LLaMA-Adapter
"""
SETTINGS = {
    ("full", "lima"): FULL_LIMA,
    ("full", "alpaca"): FULL_ALPACA,
    ("lora", "lima"): LORA_LIMA,
    ("lora", "alpaca"): LORA_ALPACA,
    ("qlora", "lima"): QLORA_LIMA,
    ("qlora", "alpaca"): QLORA_LIMA,
    ("adapter", "lima"): ADAPTER,
    ("adapter", "alpaca"): ADAPTER,
}
EVAL = {
    "lima": "\neval:\n  interval: epoch  # the held-out loss after each pass\n",
    "alpaca": "\neval:\n  interval: 0.25  # 2,000 rows are held out; validating them takes a while\n",
}
OWN = {
    "full": "",
    "lora": """
lora:
  r: 8  # rank
  alpha: 16  # scale alpha / r = 2
  dropout: 0.05  # on the adapter's input
  targets: [q, v]  # add k, proj and mlp to learn more at once
""",
    "qlora": """
lora:
  r: 64  # rank; the QLoRA paper's
  alpha: 16  # the paper's: scale alpha / r = 0.25
  dropout: {dropout}  # the paper's, for models {size}
  targets: [q, k, v, proj, mlp]  # the paper's: on all linear layers, or it falls behind full finetuning
""",
    "adapter": """
adapter:
  prompt_length: 10  # learned vectors in each block
  start_layer: 2  # blocks 2 to {last} of {layers}, counted from 0
""",
}
# What the QLoRA paper chose by size: arXiv 2305.14314, appendix B.2.
QLORA = {
    False: {"rate": "2e-4", "dropout": "0.1", "size": "of up to 13B"},
    True: {"rate": "1e-4", "dropout": "0.05", "size": "of 33B and more"},
}
PAGE = """\
# What fits where

The smallest card on which a file of [finetune](finetune) runs, and the memory of its smallest micro-batch there by
`litft plan`: rows of up to 2,048 tokens, packed. `litft plan` tells it of your own rows. No number was measured on a
GPU; `-` is more than 141 GB. Each file says which sizes of micro-batches, and which flags, fit cards of 24, 40, 80 and
141 GB.
"""
PRECISION = {
    "full": "bf16 weights, rounded stochastically after a float32 step",
    "lora": "frozen weights and computation; what is trained stays float32",
    "qlora": "of the computation and of what is not quantised; what is trained stays float32",
    "adapter": "frozen weights and computation; what is trained stays float32",
}
