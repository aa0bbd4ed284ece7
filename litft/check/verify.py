"""`litft verify`: what a folder holds and was made of, hashed again and compared with what was written down then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.check.compared import Compared, compare_file, table_lines
from litft.checkpoint.disk import kept_sha256, read_json
from litft.checkpoint.files import CHECKPOINTS_DIR, WEIGHTS_NAME, resolve_checkpoint_dir
from litft.checkpoint.hf_folder import REPORT_FILE
from litft.checkpoint.sealed import load_sealed
from litft.config.check import VerifyConfig
from litft.config.io import load_yaml
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE
from litft.data.vocabulary import tokenizer_dir
from litft.errors import CheckpointError, ConfigError, TokenizerError
from litft.methods.load import METHOD_FILE
from litft.text.tokenizer import Tokenizer
from litft.train.code import own_code, recipes_dir
from litft.train.provenance import PROVENANCE_FILE, START_FILE, versions
from litft.train.setup import RUN_FILE
from litft.train.step_folders import step_folders

Report = Callable[[str], None]

OURS = "litft.recipes."
OLDER = "not written down: of an older version"
# Of run.yaml: how a run was taken up, which a resumed one says anew.
PASSING = ("resume", "overwrite")


@dataclass(frozen=True)
class Places:
    """Where what a run read lies now, where a user says so."""

    base: Path | None = None
    data_dir: Path | None = None
    recipe: Path | None = None


def verify(config: VerifyConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Gives the table of what was and what is, line by line as it is known.

    Args:
        config: the folder.
        report: told what it is taken for.

    Raises:
        FaultsFoundError: something is not what it was; at the very end.
        ConfigError: it is no folder of which anything was written down.
    """
    named = CHECKPOINTS_DIR / config.folder  # ORG/NAME of a model
    folder = named if named.is_dir() and not config.folder.is_dir() else config.folder
    kind, rows = facts_of(folder, Places(config.base, config.data_dir, config.recipe))
    report(f"{folder} is {kind}")
    return table_lines(rows, f"Nothing was written down of {folder} that could be compared.")


def facts_of(folder: Path, places: Places) -> tuple[str, Iterator[Compared]]:
    """Gives what a folder is, and what is compared of it.

    Raises:
        ConfigError: it is nothing that is known.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}; name a run, such as out/lora/lima, or prepared data.")
    kinds: dict[str, tuple[str, Callable[[], Iterator[Compared]]]] = {
        MANIFEST_FILE: ("prepared data", lambda: data_facts(folder)),
        PROVENANCE_FILE: ("the result of a run", lambda: result_facts(folder, "", places)),
        REPORT_FILE: ("an export", lambda: export_facts(folder, "")),
        "state.yaml": ("a step checkpoint", lambda: step_facts(folder, "")),
        RUN_FILE: ("a run", lambda: run_facts(folder, places)),
        WEIGHTS_NAME: ("a converted model", lambda: model_facts(folder)),
    }
    for mark, (kind, facts) in kinds.items():
        if (folder / mark).is_file():
            return kind, facts()
    raise ConfigError(
        f"{folder} holds none of {', '.join(kinds)}, so nothing was written down of it; name a run, its final folder, "
        "an export, prepared data or a converted model."
    )


def run_facts(folder: Path, places: Places) -> Iterator[Compared]:
    """Compares all that a run left, and what it was made of."""
    for step in step_folders(folder):
        yield from step_facts(step, f"{step.name}/")
    final = folder / "final"
    if (final / PROVENANCE_FILE).is_file():
        yield from file_facts(final, read_json(final / PROVENANCE_FILE).get("files"), "final/")
        yield from made_of(read_provenance(folder), final, places)
        yield _settings(folder)
    else:
        yield Compared("final/", None, None, "the run has not ended")
        if (folder / START_FILE).is_file():
            yield from made_of(read_provenance(folder), folder, places)
    for export in sorted(path.parent for path in folder.glob(f"*/{REPORT_FILE}")):
        yield from export_facts(export, f"{export.name}/")


def result_facts(folder: Path, prefix: str, places: Places) -> Iterator[Compared]:
    """Compares the files of a final folder, and what its run was made of."""
    told = read_json(folder / PROVENANCE_FILE)
    yield from file_facts(folder, told.get("files"), prefix)
    yield from made_of(told, folder, places)


def export_facts(folder: Path, prefix: str) -> Iterator[Compared]:
    """Compares the files of what merge or export wrote."""
    return file_facts(folder, read_json(folder / REPORT_FILE).get("files"), prefix)


def file_facts(folder: Path, files: object, prefix: str) -> Iterator[Compared]:
    """Compares files with the hashes of when they were written.

    Args:
        folder: where they lie.
        files: a hash for each name.
        prefix: stands before their names in the table.
    """
    if not isinstance(files, dict):
        yield Compared(f"{prefix}*", None, None, OLDER)
        return
    for name, then in files.items():
        if (folder / name).resolve().is_relative_to(folder.resolve()):
            yield compare_file(f"{prefix}{name}", str(then), folder / name)
        else:
            yield Compared(f"{prefix}{name}", str(then), "elsewhere", "its name leaves the folder; it was not read")


def step_facts(folder: Path, prefix: str) -> Iterator[Compared]:
    """Compares the files of a step checkpoint; a state.yaml that was changed cannot say what they were."""
    try:
        state = load_sealed(folder / "state.yaml")
        hashes = {f"{name}.safetensors": str(then) for name, then in state["sha256"].items()}
    except (ConfigError, KeyError, AttributeError) as error:
        yield Compared(f"{prefix}state.yaml", "whole", "damaged", str(error))
        return
    yield from file_facts(folder, hashes, prefix)


def data_facts(folder: Path) -> Iterator[Compared]:
    """Compares prepared files with their manifest."""
    try:
        manifest = load_sealed(folder / MANIFEST_FILE)
        files = {str(name): told["sha256"] for name, told in manifest["files"].items()}
    except (ConfigError, KeyError, AttributeError, TypeError) as error:
        yield Compared(MANIFEST_FILE, "whole", "damaged", str(error))
        return
    yield from file_facts(folder, files, "")
    own = tokenizer_dir(folder, folder)
    if own != folder:
        then = ((manifest.get("settings") or {}).get("tokenizer") or {}).get("hash")
        yield Compared("tokenizer", then, _tokenizer_hash(own))


def model_facts(folder: Path) -> Iterator[Compared]:
    """Compares converted weights with the hash that was kept when they were written or first used."""
    then = kept_sha256(folder / WEIGHTS_NAME)
    if then is None:
        yield Compared(WEIGHTS_NAME, None, None, "no hash was kept of it")
    else:
        yield compare_file(WEIGHTS_NAME, then, folder / WEIGHTS_NAME)


def read_provenance(run: Path) -> dict[str, Any]:
    """Gives what a run wrote down of itself: at its end, else at its start; nothing in runs that kept nothing.

    Raises:
        CheckpointError: it cannot be read.
    """
    if (run / "final" / PROVENANCE_FILE).is_file():
        return read_json(run / "final" / PROVENANCE_FILE)
    told = read_json(run / START_FILE).get("provenance") if (run / START_FILE).is_file() else None
    return told if isinstance(told, dict) else {}


def made_of(told: Mapping[str, Any], folder: Path, places: Places) -> Iterator[Compared]:
    """Compares what a run read and was computed by with what is here now.

    Args:
        told: its provenance.
        folder: where that stands, from which the base can be found too.
        places: where a user says that something lies.
    """
    yield from inputs_facts(told, folder, places)
    mine = own_code()
    theirs = told.get("litft") or {}
    yield Compared("litft", theirs.get("version"), mine["version"], "" if theirs else OLDER)
    differs = theirs.get("sha256") != mine["sha256"]
    yield Compared("litft's code", theirs.get("sha256"), mine["sha256"], _commit(theirs) if differs else "")
    here = versions()
    for name, then in (told.get("versions") or {}).items():
        if name != "litft":
            yield Compared(name, str(then), here.get(name, "not installed"))


def inputs_facts(told: Mapping[str, Any], folder: Path, places: Places) -> Iterator[Compared]:
    """Compares what a run read: base, tokenizer, data, recipe."""
    sums = told.get("sha256") or {}
    base = _base_of(told, folder, places.base)
    data_dir = places.data_dir or Path(str(told.get("data", "")))
    if "base" in sums:
        yield _read_file("base", sums["base"], base and base / WEIGHTS_NAME, told.get("base"))
    yield from (_read_file(name, sums.get(name), data_dir / name, data_dir) for name in (TRAIN_FILE, TEST_FILE))
    tokens = tokenizer_dir(data_dir, base or data_dir)
    now = _tokenizer_hash(tokens)
    yield Compared("tokenizer", told.get("tokenizer_hash"), now, "" if now else f"no tokenizer in {tokens}")
    yield from _recipe_facts(told.get("recipe"), places.recipe)


def _read_file(what: str, then: object, path: Path | None, place: object) -> Compared:
    """Compares a file that a run read and that may lie elsewhere now."""
    known = None if then is None else str(then)
    if path is None or not path.is_file():
        return Compared(what, known, None, f"not found in {place}")
    return compare_file(what, known, path)


def _recipe_facts(recipe: object, given: Path | None) -> Iterator[Compared]:
    """Compares the recipe, and what it imported from beside itself."""
    if not isinstance(recipe, dict) or not recipe.get("file"):
        yield Compared("recipe", None, None, OLDER if recipe is None else "the run was no file's")
        return
    place = find_recipe(recipe["file"], given)
    yield _read_file(f"recipe {recipe['file']}", recipe["sha256"], place, "this folder")
    for name, then in (recipe.get("imports") or {}).items():
        yield _read_file(f"recipe's {name}", then, Path(name), "this folder")


def find_recipe(name: str, given: Path | None = None) -> Path:
    """Gives where a recipe lies now, by the name that was written down of it.

    Args:
        name: `litft.recipes.lora`, or a path as it was seen from where it was run.
        given: where a user says that it lies.
    """
    if given is not None:
        return given
    return recipes_dir() / f"{name.removeprefix(OURS)}.py" if name.startswith(OURS) else Path(name)


def _base_of(told: Mapping[str, Any], folder: Path, given: Path | None) -> Path | None:
    """Gives the folder of the base: as a user says, as the run named it, or as seen from its result; None if not."""
    method = folder / METHOD_FILE
    beside = load_yaml(method).get("base_from_here") if method.is_file() else None
    for named in (given, told.get("base"), beside and folder / str(beside)):
        try:
            if named:
                return resolve_checkpoint_dir(Path(str(named)))
        except CheckpointError:  # the next one may be there
            continue
    return None


def _tokenizer_hash(folder: Path) -> str | None:
    """Gives the hash of a folder's tokenizer; None where there is none that can be read."""
    try:
        return Tokenizer(folder).hash
    except TokenizerError:
        return None


def _commit(theirs: Mapping[str, Any]) -> str:
    """Says which commit a run was made with."""
    if not theirs.get("commit"):
        return ""
    differs = " and what differed from it" if theirs.get("diff_sha256") else ""
    return f"then commit {theirs['commit'][:12]}{differs}"


def _settings(run: Path) -> Compared:
    """Compares run.yaml with the settings that the run had."""
    then = read_provenance(run).get("config")
    now = hash_settings(load_yaml(run / RUN_FILE))
    return Compared(RUN_FILE, hash_settings(then) if isinstance(then, dict) else None, now)


def hash_settings(values: Mapping[str, Any]) -> str:
    """Gives one hash of settings, whatever their order."""
    kept = {name: value for name, value in values.items() if name not in PASSING}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
