"""The table of commands: what each is called, what it is told and which function answers. Names only, no imports.

A new command is one row here. Every function takes its config and a `report` for what a person should read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        words: what is typed after `litft`.
        config: `module:class` of its config.
        target: `module:function` that runs it.
        help: one line for `litft --help`.
        example: a whole command line for its own `--help`.
        bound: a first argument of the function that the words decide, such as the dataset of `prepare`.
    """

    words: tuple[str, ...]
    config: str
    target: str
    help: str
    example: str
    bound: str | None = None


def _finetune(method: str, config: str, help: str) -> Command:
    """A recipe: `litft.recipes.<method>` is `finetune/<method>.py`."""
    example = f"litft finetune {method} --checkpoint_dir meta-llama/Llama-2-7b-hf --data_dir data/lima --max_iters 1000"
    return Command(("finetune", method), f"litft.config.run:{config}", f"litft.recipes.{method}:main", help, example)


# Datasets that are the user's own file: the flags to show, the help, the config.
OWN_FILES = {
    "csv": (" --data_file MyDataset.csv", "your own CSV file", "PrepareCsvConfig"),
    "text": (" --data_file documents.txt --prompt_style plain", "your own plain text", "PrepareFileConfig"),
}


def _prepare(dataset: str) -> Command:
    """A dataset: one file under `data/sources/`."""
    published = (" --max_seq_length 2048", f"the {dataset} dataset", "PrepareConfig")
    flags, help, kind = OWN_FILES.get(dataset, published)
    example = f"litft prepare {dataset} --checkpoint_dir meta-llama/Llama-2-7b-hf{flags}"
    words = ("prepare", dataset)
    return Command(words, f"litft.config.prepare:{kind}", "litft.data.prepare:prepare", help, example, dataset)


def dataset_names() -> list[str]:
    """Gives the datasets that have a file under `data/sources/`, without importing one."""
    folder = Path(__file__).parents[1] / "data" / "sources"
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


COMMANDS = (
    Command(
        ("download",),
        "litft.config.download:DownloadConfig",
        "litft.checkpoint.download:download",
        "fetch a model from the Hugging Face hub and convert it",
        "litft download --repo_id meta-llama/Llama-2-7b-hf",
    ),
    Command(
        ("convert", "from_hf"),
        "litft.config.convert:FromHfConfig",
        "litft.checkpoint.convert:from_hf",
        "turn a Hugging Face folder into litft's layout, in place",
        "litft convert from_hf --checkpoint_dir meta-llama/Llama-2-7b-hf",
    ),
    Command(
        ("convert", "from_litgpt"),
        "litft.config.convert:FromLitGPTConfig",
        "litft.methods.from_litgpt:from_litgpt",
        "turn a folder of Lit-GPT or litgpt into a litft checkpoint",
        "litft convert from_litgpt --checkpoint_dir lit-gpt/falcon-7b --out_dir checkpoints/tiiuae/falcon-7b",
    ),
    Command(
        ("convert", "to_hf"),
        "litft.config.convert:ToHfConfig",
        "litft.export.hf:to_hf",
        "write a Hugging Face folder from litft's layout",
        "litft convert to_hf --checkpoint_dir out/lora/lima/final --out_dir out/lora/lima/hf",
    ),
    *(_prepare(name) for name in dataset_names()),
    _finetune("full", "FullRun", "train every weight"),
    _finetune("lora", "LoRARun", "train low-rank adapters"),
    _finetune("adapter", "AdapterRun", "train LLaMA-Adapter v1"),
    _finetune("adapter_v2", "AdapterRun", "train LLaMA-Adapter v2"),
    Command(
        ("merge",),
        "litft.config.answer:MergeConfig",
        "litft.export.merge:merge",
        "add LoRA adapters into their base model",
        "litft merge --checkpoint_dir out/lora/lima/final",
    ),
    Command(
        ("export", "hf"),
        "litft.config.convert:ToHfConfig",
        "litft.export.hf:to_hf",
        "write a Hugging Face folder, LoRA merged in (the same as convert to_hf)",
        "litft export hf --checkpoint_dir out/lora/lima/final --out_dir out/lora/lima/hf",
    ),
    Command(
        ("export", "peft"),
        "litft.config.export:ExportPeftConfig",
        "litft.export.peft:export_peft",
        "write LoRA as an adapter folder that PEFT and vLLM load",
        "litft export peft --checkpoint_dir out/lora/lima/final --out_dir out/lora/lima/peft",
    ),
    Command(
        ("generate",),
        "litft.config.answer:GenerateConfig",
        "litft.api:generate",
        "answer an instruction or continue a prompt",
        "litft generate --checkpoint_dir out/lora/lima/final --instruction 'Name three primes.'",
    ),
    Command(
        ("demo",),
        "litft.config.answer:DemoConfig",
        "litft.demo.run:demo",
        "the whole way on the tiny model inside the package",
        "litft demo",
    ),
)
