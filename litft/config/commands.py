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
        first: the flag whose value may stand right behind the words, without its name.
        takes_many: whether several such values may stand there.
        flags: what the words stand for beside their config.
    """

    words: tuple[str, ...]
    config: str
    target: str
    help: str
    example: str
    bound: str | None = None
    first: str | None = None
    takes_many: bool = False
    flags: tuple[str, ...] = ()


def _finetune(method: str, help: str) -> Command:
    """A recipe: `litft.recipes.<method>` is `finetune/<method>.py`."""
    example = f"litft finetune {method} --checkpoint_dir meta-llama/Llama-2-7b-hf --data_dir data/lima --max_iters 1000"
    config = f"litft.config.run:{METHODS[method]}Run"
    return Command(("finetune", method), config, f"litft.recipes.{method}:main", help, example)


def _plan(method: str) -> Command:
    """A recipe that tells what it would do."""
    example = f"litft plan {method} --checkpoint_dir meta-llama/Llama-2-7b-hf --data_dir data/lima"
    target, help = f"litft.recipes.{method}:main", f"what litft finetune {method} would need: memory, steps, time"
    config = f"litft.config.run:{METHODS[method]}Run"
    return Command(("plan", method), config, target, help, example, flags=("--dry_run=true",))


def _check(method: str) -> Command:
    """A config tried on a few of its own rows."""
    example = f"litft check {method} --checkpoint_dir meta-llama/Llama-2-7b-hf --data_dir data/lima"
    target, help = "litft.check.command:check", f"try litft finetune {method} on a few rows: what must be equal, is it?"
    return Command(("check", method), f"litft.config.check:Check{METHODS[method]}", target, help, example, method)


@dataclass(frozen=True)
class Preparing:
    """How a dataset is prepared.

    Attributes:
        flags: for its example, after the checkpoint.
        help: what it is, in one line; None for "the NAME dataset".
        config: its class in `litft.config.prepare`; the fields that only it has reach the dataset's `read`.
    """

    flags: str = " --max_seq_length 2048"
    help: str | None = None
    config: str = "PrepareConfig"


# The datasets that are not just published files: the user's own, and those with flags of their own.
PREPARING = {
    "oasst1": Preparing(" --language en", "OpenAssistant's ranked trees", "PrepareOasst1Config"),
    "sharegpt": Preparing(
        " --data_file sharegpt.json", "your own file of from/value conversations", "PrepareFileConfig"
    ),
    "messages": Preparing(" --data_file chats.jsonl", "your own file of role/content messages", "PrepareFileConfig"),
    "csv": Preparing(" --data_file MyDataset.csv", "your own CSV file", "PrepareCsvConfig"),
    "flan": Preparing(" --data_file gsm8k_train.tsv", "files of the FLAN collection", "PrepareFlanConfig"),
    "json": Preparing(" --data_file MyDataset.json", "your own JSON, in any known shape", "PrepareJsonConfig"),
    "natural_instructions": Preparing(
        " --data_file natural-instructions/tasks --tasks 'task1146*' --rows_per_task 100",
        "tasks of Super-NaturalInstructions",
        "PrepareTasksConfig",
    ),
    "p3": Preparing(" --data_file p3.jsonl", "rows of P3, the prompts of T0", "PrepareFileConfig"),
    "tokenized": Preparing(" --data_file train.pt", "rows that are token ids already", "PrepareTokensConfig"),
    "text": Preparing(" --data_file documents.txt", "your own plain text", "PrepareFileConfig"),
}


def _prepare(dataset: str) -> Command:
    """A dataset: one file under `data/sources/`."""
    known = PREPARING.get(dataset, Preparing())
    example = f"litft prepare {dataset} --checkpoint_dir meta-llama/Llama-2-7b-hf{known.flags}"
    config, help = f"litft.config.prepare:{known.config}", known.help or f"the {dataset} dataset"
    return Command(("prepare", dataset), config, "litft.data.shards:prepare_missing", help, example, dataset)


def dataset_names() -> list[str]:
    """Gives the datasets that have a file under `data/sources/`, without importing one."""
    folder = Path(__file__).parents[1] / "data" / "sources"
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


# What commands are for, and their first words, in the order of `litft --help`.
GROUPS = {
    "begin": ("demo", "list", "copy-recipe", "completion"),
    "models": ("download", "convert"),
    "data": ("prepare", "inspect", "curate"),
    "train": ("finetune", "plan", "report"),
    "trust": ("check", "verify", "repeat"),
    "use": ("generate", "chat", "serve"),
    "measure": ("evaluate", "judge"),
    "share": ("merge", "export", "submit"),
}
# Commands that differ by a name alone share a line there.
SUMMARIES = {
    "prepare": ("prepare DATASET", "a published dataset or your own file: litft prepare --help"),
    "plan": ("plan METHOD", "what a finetuning run would need: memory, steps, time"),
    "check": ("check METHOD", "try a run on a few of its rows: gradients, resuming, merging, ids of prompts"),
    "copy-recipe": ("copy-recipe METHOD FILE", "a recipe as a file of your own, to be changed"),
    "completion": ("completion SHELL", "print a script that completes commands and flags: bash, zsh or fish"),
}
METHODS = {"full": "Full", "lora": "LoRA", "adapter": "Adapter", "adapter_v2": "Adapter"}  # and their configs
SHELLS = {
    "bash": "source <(litft completion bash)",
    "zsh": "source <(litft completion zsh)",
    "fish": "litft completion fish | source",
}


def _copy_recipe(method: str) -> Command:
    """A recipe as a file of one's own."""
    return Command(
        ("copy-recipe", method),
        "litft.config.contents:CopyRecipeConfig",
        "litft.contents.recipes:copy_recipe",
        f"write finetune/{method}.py to a file of your own, to be changed",
        f"litft copy-recipe {method} my_{method}.py",
        method,
        first="path",
    )


def _list(what: str, help: str, flags: str = "") -> Command:
    """A table of what has a name here."""
    target, example = f"litft.contents.listing:list_{what}", f"litft list {what} {flags}".rstrip()
    return Command(("list", what), "litft.config.contents:ListConfig", target, help, example)


def _completion(shell: str) -> Command:
    """The script of one shell."""
    config, target = "litft.config.contents:NothingConfig", "litft.config.completion:complete"
    help, example = f"a script for {shell}: {SHELLS[shell]}", f"litft completion {shell}"
    return Command(("completion", shell), config, target, help, example, shell)


COMMANDS = (
    Command(
        ("list", "models"),
        "litft.config.contents:ListModelsConfig",
        "litft.contents.listing:list_models",
        "models that have a name here; others of their families work too",
        "litft list models --match mistral --max_size 8",
    ),
    Command(
        ("list", "datasets"),
        "litft.config.prepare:PrepareListConfig",
        "litft.data.catalogue:list_sources",
        "all datasets: rows, licence, who wrote the answers (the same as prepare --list)",
        "litft list datasets --match alpaca",
    ),
    _list("styles", "prompt styles, for prepare --prompt_style"),
    _list("configs", "files of settings that litft brings, for --config", "--match qlora"),
    _list("methods", "ways to finetune, and what each trains"),
    *map(_copy_recipe, METHODS),
    *map(_completion, SHELLS),
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
    Command(
        ("prepare", "--list"),
        "litft.config.prepare:PrepareListConfig",
        "litft.data.catalogue:list_sources",
        "show all datasets: rows, licence, who wrote the answers",
        "litft prepare --list",
    ),
    *(_prepare(name) for name in dataset_names()),
    Command(
        ("prepare", "mix"),
        "litft.config.mix:MixConfig",
        "litft.data.mix:mix",
        "filter, mix and order prepared folders",
        "litft prepare mix --data_dirs data/lima,data/dolly --weights data/lima=2,data/dolly=1 "
        "--destination_path data/mix",
    ),
    Command(
        ("prepare", "join"),
        "litft.config.mix:JoinConfig",
        "litft.data.shards:join",
        "join prepared folders, every row of them",
        "litft prepare join --data_dirs data/part-1,data/part-2 --destination_path data/whole",
    ),
    Command(
        ("inspect",),
        "litft.config.inspect:InspectConfig",
        "litft.data.inspect:inspect",
        "show prepared data: ledger, lengths, rows token by token",
        "litft inspect data/lima --grep 'prime numbers?' --html lima.html",
        first="data_dir",
    ),
    Command(
        ("report",),
        "litft.config.report:ReportConfig",
        "litft.report.write:report",
        "write the page that shows what a run did, or several beside each other",
        "litft report out/lora/lima out/full/lima --out lima.html",
        first="runs",
        takes_many=True,
    ),
    Command(
        ("curate", "score"),
        "litft.config.curate:ScoreConfig",
        "litft.curate.score:score",
        "score prepared rows with a model: loss, or IFD",
        "litft curate score --data_dir data/alpaca --checkpoint_dir meta-llama/Llama-2-7b-hf "
        "--destination_path data/alpaca-ifd",
    ),
    Command(
        ("curate", "judge"),
        "litft.config.curate:JudgeConfig",
        "litft.curate.judge:judge",
        "score prepared rows from 0 to 5 by a model behind an endpoint",
        "litft curate judge --data_dir data/alpaca --endpoint https://api.openai.com/v1 --model gpt-4o-mini "
        "--api_key_env OPENAI_API_KEY --destination_path data/alpaca-judged",
    ),
    Command(
        ("curate", "grow"),
        "litft.config.curate:GrowConfig",
        "litft.curate.grow:grow",
        "grow new tasks from seeds, as Self-Instruct does",
        "litft curate grow --seeds seed_tasks.jsonl --checkpoint_dir meta-llama/Llama-2-7b-hf --count 1000 "
        "--out grown.jsonl",
    ),
    Command(
        ("curate", "backtranslate"),
        "litft.config.curate:BacktranslateConfig",
        "litft.curate.backtranslate:backtranslate",
        "write the instruction that each of your texts answers",
        "litft curate backtranslate --documents texts.jsonl --checkpoint_dir out/lora/lima/final --score true "
        "--min_score 4.5 --out pairs.jsonl",
    ),
    _finetune("full", "train every weight"),
    _finetune("lora", "train low-rank adapters"),
    _finetune("adapter", "train LLaMA-Adapter v1"),
    _finetune("adapter_v2", "train LLaMA-Adapter v2"),
    *map(_plan, METHODS),
    *map(_check, METHODS),
    Command(
        ("verify",),
        "litft.config.check:VerifyConfig",
        "litft.check.verify:verify",
        "compare a run, an export or prepared data with the hashes written when it was made",
        "litft verify out/lora/lima",
        first="folder",
    ),
    Command(
        ("repeat",),
        "litft.config.check:RepeatConfig",
        "litft.check.repeat:repeat",
        "run a finished run again, and compare weights and metrics",
        "litft repeat out/lora/lima",
        first="run",
    ),
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
        ("export", "data"),
        "litft.config.export:ExportDataConfig",
        "litft.export.data:export_data",
        "write prepared rows for other programs: JSON Lines or a `datasets` folder",
        "litft export data --data_dir data/lima --out_dir export/lima --form jsonl",
    ),
    Command(
        ("generate",),
        "litft.config.answer:GenerateConfig",
        "litft.answer.prompt:generate",
        "answer an instruction, continue a prompt, or a file of both",
        "litft generate --checkpoint_dir out/lora/lima/final --instruction 'Name three primes.'",
    ),
    Command(
        ("chat",),
        "litft.config.answer:ChatConfig",
        "litft.answer.chat:chat",
        "talk to a model at the terminal",
        "litft chat --checkpoint_dir out/lora/lima/final --system 'Answer in one sentence.'",
    ),
    Command(
        ("serve",),
        "litft.config.serve:ServeConfig",
        "litft.serve.command:serve",
        "answer over HTTP: OpenAI's API and that of the LLM Efficiency Challenge",
        "litft serve --checkpoint_dir out/lora/lima/final --port 8000",
    ),
    Command(
        ("evaluate",),
        "litft.config.evaluate:EvaluateConfig",
        "litft.evaluate.command:evaluate",
        "measure a model: held-out rows, answers beside the base's, published tasks",
        "litft evaluate --checkpoint_dir out/lora/lima/final --data_dir data/lima --beside meta-llama/Llama-2-7b-hf "
        "--generate 20",
    ),
    Command(
        ("judge",),
        "litft.config.evaluate:PairwiseConfig",
        "litft.evaluate.judge:judge",
        "have a model say whose answers are better, each pair asked in both orders",
        "litft judge --a out/lora/lima/final --b out/adapter/lima/final --judge http://localhost:8000/v1 "
        "--model llama-3-70b --data_dir data/lima",
    ),
    Command(
        ("submit", "init"),
        "litft.config.submit:SubmitInitConfig",
        "litft.submit.init:init",
        "write a submission to the LLM Efficiency Challenge: both Dockerfiles, and what they need",
        "litft submit init --checkpoint_dir out/lora/lima/final --weights_repo my-team/lima-7b --out_dir submission",
    ),
    Command(
        ("submit", "check"),
        "litft.config.submit:SubmitCheckConfig",
        "litft.submit.check:check",
        "ask a server all that HELM asks, project the two hours, check the challenge's rules",
        "litft submit check --checkpoint_dir out/lora/lima/final",
    ),
    Command(
        ("demo",),
        "litft.config.answer:DemoConfig",
        "litft.demo.run:demo",
        "the whole way on the tiny model inside the package",
        "litft demo",
    ),
)
