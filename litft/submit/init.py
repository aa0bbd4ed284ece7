"""`litft submit init`: writes the folder that is handed in, whole or not at all."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litft
from litft.checkpoint.disk import atomic_folder, require_free
from litft.config.io import dump_yaml
from litft.config.submit import SubmitInitConfig
from litft.data.publish import damaged_file
from litft.errors import CheckpointError, ConfigError, DataError
from litft.submit.data_steps import FILES, data_steps
from litft.submit.files import Parts, evaluation_dockerfile, readme, train_script, training_dockerfile
from litft.submit.pins import BUILDER, QUANTIZING, SERVING, builder_version, pinned, python_version
from litft.submit.record import MANIFEST_FILE, RUN_FILE, Record, open_record
from litft.submit.rules import spent_seconds

Report = Callable[[str], None]

MARK = "Dockerfile.train"
ADVICE = "name another folder, or replace a submission by --overwrite true"
WHOLE = ("full", "lora")  # methods whose result is whole weights, once merged
LEFT_OUT = ("__pycache__", "demo")  # the demo's model is weights
PLACE = re.compile(r"~?(/[\w.@+ -]+){2,}/?|[A-Za-z]:\\.+")

PYPROJECT = """[build-system]
requires = ["{builder}=={version}"]
build-backend = "setuptools.build_meta"

[project]
name = "litft"
version = "{litft}"
requires-python = ">=3.10"

[project.scripts]
litft = "litft.cli:main"

[tool.setuptools.packages.find]
include = ["litft*"]

[tool.setuptools.package-data]
litft = ["py.typed", "config/*.csv"]
"litft.report" = ["page.css", "page.js", "uplot/*"]
"""


def init(config: SubmitInitConfig, report: Report = lambda message: None) -> Path:
    """Writes a submission.

    Args:
        config: the checkpoint, and where its weights will be.
        report: told what was written, and what is left to do.

    Returns:
        The folder.

    Raises:
        ConfigError: out_dir is taken, or the base is not known.
        CheckpointError: the checkpoint is no finished run, or its result is no whole weights.
        DataError: the manifest of its data is missing, or of other data.
    """
    record = open_record(config.checkpoint_dir, config.data_dir, config.base_repo)
    final, base = _require_run(record)
    inputs = (record.checkpoint_dir, final, *([record.data_dir] if record.data_dir else []))
    require_free(config.out_dir, config.overwrite, MARK, ADVICE, inputs)
    _require_data(record)
    parts = _parts(config, record, base)
    with atomic_folder(config.out_dir) as folder:
        for name, text in _texts(parts, record).items():
            (folder / name).write_text(text, encoding="utf-8")
        _copy_package(folder / "package")
    report(f"{config.out_dir} holds the submission; README.md there has the commands.")
    _advise(config, record, report)
    return config.out_dir


def _require_run(record: Record) -> tuple[Path, str]:
    """Gives the run's folder and its base on the hub.

    Raises:
        CheckpointError: there was no run, or its result is no whole weights.
        ConfigError: nobody says what the base is.
    """
    if record.final is None:
        raise CheckpointError(
            f"{record.checkpoint_dir} has no {RUN_FILE}, so nothing says how it was trained; give the final folder of "
            "a run, or what litft merge made of it."
        )
    if record.method not in WHOLE:
        raise CheckpointError(
            f"{record.checkpoint_dir} is a run of {record.method}, whose prompts are no weights; a submission needs "
            f"whole weights, as the methods {' and '.join(WHOLE)} give them."
        )
    if "base" not in record.provenance.get("sha256", {}):
        raise CheckpointError(f"{record.final} does not say what base it began from, so it cannot be made again.")
    if record.base is None:
        raise ConfigError(
            f"The base was {record.provenance.get('base')}, which is no ORG/NAME under checkpoints/; say what it is on "
            "the hub by --base_repo ORG/NAME."
        )
    return record.final, record.base


def _require_data(record: Record) -> None:
    """Makes sure that the manifest is of the data that was trained on.

    Raises:
        DataError: it is missing, or of other data.
    """
    if not record.manifest:
        raise DataError(f"There is no {MANIFEST_FILE} in {record.data_dir}; name the run's data with --data_dir.")
    files = {name: {"sha256": record.provenance["sha256"].get(name)} for name in FILES}
    assert record.data_dir is not None
    if damaged := damaged_file(record.data_dir, files):
        raise DataError(f"{damaged} is not what the run was trained on (its sha256 differs); prepare it as it was.")


def _parts(config: SubmitInitConfig, record: Record, base: str) -> Parts:
    """Gives what the texts are made of."""
    assert record.final is not None
    assert record.data_dir is not None
    name = re.sub(r"[^\w.-]", "-", record.final.resolve().parent.name)
    versions = record.provenance.get("versions", {})
    return Parts(
        config=config,
        base=base,
        method=_command_of(record),
        name=name,
        image=config.base_image or f"python:{python_version(versions)}-slim-bookworm",
        device=str(record.provenance.get("device", "one card")),
        hours=spent_seconds(record.summary) / 3600 if record.summary else 0.0,
        data=data_steps(record, base, name),
    )


def _command_of(record: Record) -> str:
    """Gives the recipe that trained."""
    return "lora" if "lora" in record.run else "full"


def _texts(parts: Parts, record: Record) -> dict[str, str]:
    """Gives all files that are texts, by name."""
    sums, versions = record.provenance["sha256"], record.provenance.get("versions", {})
    weights = f"{sums['base']}  checkpoints/{parts.base}/lit_model.safetensors\n"
    extra = (*SERVING, *(QUANTIZING if {record.run.get("quantize"), parts.config.quantize} - {"none", None} else ()))
    pins = pinned(extra, versions)
    texts = {
        "Dockerfile": evaluation_dockerfile(parts),
        MARK: training_dockerfile(parts),
        "train.sh": train_script(parts),
        "README.md": readme(parts),
        "requirements.txt": "".join(f"{name}=={version}\n" for name, version in pins.items()),
        RUN_FILE: dump_yaml(_portable_run(record.run, parts)),
        MANIFEST_FILE: dump_yaml(without_places(record.manifest)),
        "base.sha256": weights,
        "data.sha256": "".join(f"{sums[name]}  data/{parts.name}/{name}\n" for name in FILES),
    }
    if parts.data.sums:
        texts["raw.sha256"] = "".join(f"{line}\n" for line in parts.data.sums)
    return texts


def _portable_run(run: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """Gives the run's settings with the folders of the image."""
    folders = {"checkpoint_dir": parts.base, "data_dir": f"data/{parts.name}", "out_dir": f"out/{parts.name}"}
    moved: dict[str, Any] = without_places({**run, **folders})
    return {**moved, "resume": False, "overwrite": True, "dry_run": False}


def without_places(value: Any) -> Any:
    """Gives plain values in which a path of this machine is only its last name."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    return Path(value.replace("\\", "/")).name if isinstance(value, str) and PLACE.fullmatch(value) else value


def _copy_package(target: Path) -> None:
    """Copies litft as it is installed here, the recipes in it and no weights."""
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(Path(litft.__file__).parent, target / "litft", ignore=ignore)
    found = importlib.util.find_spec("litft.recipes")
    if found is not None and found.submodule_search_locations and not (target / "litft" / "recipes").exists():
        shutil.copytree(found.submodule_search_locations[0], target / "litft" / "recipes", ignore=ignore)
    text = PYPROJECT.format(builder=BUILDER, version=builder_version(), litft=litft.__version__)
    (target / "pyproject.toml").write_text(text, encoding="utf-8")


def _advise(config: SubmitInitConfig, record: Record, report: Report) -> None:
    """Tells what is left to do."""
    if config.weights_repo is None:
        whole = record.checkpoint_dir if record.is_whole else "the folder that litft merge writes"
        report(f"No weights are in it: mount {whole} at /weights, or publish them and name --weights_repo.")
    elif config.weights_revision is None:
        report(f"{config.weights_repo} is fetched as it is on the day; pin a commit with --weights_revision.")
    if config.base_revision is None:
        report(
            f"{record.base} is fetched as it is on the day, and refused if its sha256 differs; --base_revision pins."
        )
    report(f"Next: litft submit check --checkpoint_dir {record.checkpoint_dir}")
