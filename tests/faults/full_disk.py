"""A disk that is full or may only be read, for real: a small tmpfs of the process's own, or a limit on its files.

The mount lies in a name space of the process, so it ends with it, and nobody else sees it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forked import Ended, Strike, fork, litft, watching
from safetensors.torch import save_file
from tiny_runs import World, differences, fresh, hurt, words
from tiny_text import write_checkpoint, write_json

from litft.checkpoint.disk import sha256_file
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, check_hashes

NEW_NAMES, NEW_USER = 0x00020000, 0x10000000  # Source: linux/sched.h, CLONE_NEWNS and CLONE_NEWUSER
PRIVATE, READ_ONLY, REMOUNT = 0x44000, 1, 32  # Source: linux/mount.h, MS_REC | MS_PRIVATE, MS_RDONLY, MS_REMOUNT
SIZE = "24m"
FEW_LINES = 1  # of a mistake: one sentence
HF_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
_C = ctypes.CDLL(None, use_errno=True)


def can_mount() -> bool:
    """Says whether a process here may mount a tmpfs that only it sees."""
    place = fresh(Path("/tmp") / f"litft-mount-{os.getpid()}")
    place.mkdir()
    try:
        return fork(lambda: 0 if mount(place) else 1).wait().code == 0
    finally:
        place.rmdir()


def mount(place: Path) -> bool:
    """Puts an empty tmpfs there, for this process and those that it starts; says whether that could be done."""
    user = os.getuid()
    if _C.unshare(NEW_NAMES if user == 0 else NEW_NAMES | NEW_USER):
        return False
    if user:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    if _C.mount(b"none", b"/", None, PRIVATE, None):
        return False
    return not _C.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, f"size={SIZE}".encode())


def remount(place: Path, flags: int) -> None:
    """Changes how it is mounted."""
    if _C.mount(b"none", str(place).encode(), None, REMOUNT | flags, None):
        raise OSError(ctypes.get_errno(), "mount", str(place))


def fill(place: Path) -> None:
    """Takes all the space that is left."""
    with (place / "ballast").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def space_out(place: Path, number: int, folder: Path) -> Callable[[Strike], None]:
    """Fills the disk before the file operation of this number."""

    def arm(strike: Strike) -> None:
        watching(folder, lambda count: fill(place) if count == number else None)

    return arm


def read_only_at(place: Path, number: int, folder: Path) -> Callable[[Strike], None]:
    """Lets nobody write any more before the file operation of this number, as a disk that fails does."""

    def try_until_done(count: int) -> None:
        if count >= number:
            try:
                remount(place, READ_ONLY)
            except OSError:
                return  # a file is open for writing; at the next one

    return lambda strike: watching(folder, try_until_done)


def limit_files(n_bytes: int) -> Callable[[Strike], None]:
    """Lets no file grow beyond this, where nothing can be mounted; Python ignores the signal that comes with it."""
    return lambda strike: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def on_own_disk(place: Path, work: Callable[[], list[str]]) -> list[str]:
    """Does the work in a process that has a small disk of its own there, and gives what was not as promised."""
    told = fresh(place.with_suffix(".told"))
    told.unlink(missing_ok=True)

    def mounted() -> int:
        place.mkdir(exist_ok=True)
        if not mount(place):
            return 71
        told.write_text(json.dumps(work()), encoding="utf-8")
        return 0

    ended = fork(mounted).wait()
    return json.loads(told.read_text()) if ended.code == 0 else [f"{ended.code}: {ended.said[-800:]}"]


def run_out_of_space(
    world: World, method: str, strike: Callable[[Path, int, Path], Callable[[Strike], None]], number: int
) -> list[str]:
    """Lets a run meet a full or failing disk, gives the space back, lets it go on, and says what was lost."""
    place = world.folder / "small"

    def work() -> list[str]:
        out_dir = place / "out"
        command = words(world.folder, method, out_dir)
        ended = litft(command, strike(place, number, out_dir)).wait()
        remount(place, 0)
        (place / "ballast").unlink(missing_ok=True)
        faults = _one_sentence(ended) + hurt(out_dir) + (_halves(out_dir) if strike is space_out else [])
        if ended.code == 0 or "has ended" in litft(command).wait().said:
            litft(["report", str(out_dir)]).wait()
        return faults + differences(world.straight(method), out_dir)

    return on_own_disk(place, work)


def _one_sentence(ended: Ended) -> list[str]:
    """Says what of the end of a command was not as promised."""
    if ended.code == 0 and not ended.sentences:
        return []
    if ended.code == 2 and len(ended.sentences) == FEW_LINES and "Traceback" not in ended.said:
        return []
    return [f"it ended with {ended.code}: {ended.said[-800:]}"]


def _halves(folder: Path) -> list[str]:
    """Says what of a full disk a command still takes with what it could not finish."""
    found = [*folder.rglob(".*.partial"), *folder.rglob(".*.tmp")]
    return [f"{path} is left" for path in found]


def make_sources(world: Path) -> None:
    """Makes what a preparation and a conversion read: `rows.csv`, and a downloaded model in `hf`."""
    lines = [f"Say {number},{number} {number}" for number in range(200)]
    (world / "rows.csv").write_text("\n".join(["instruction,output", *lines]) + "\n", encoding="utf-8")
    write_checkpoint(world / "hf")
    (world / "hf" / "model_config.yaml").unlink()
    write_json(world / "hf" / "config.json", HF_CONFIG)
    block = {f"self_attn.{part}_proj": (64, 64) for part in "qkvo"} | {"mlp.down_proj": (64, 96)}
    block |= {f"mlp.{part}_proj": (96, 64) for part in ("gate", "up")}
    block |= {"input_layernorm": (64,), "post_attention_layernorm": (64,)}
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in block.items()}
    shapes |= {"model.norm.weight": (64,), "model.embed_tokens.weight": (320, 64), "lm_head.weight": (320, 64)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, world / "hf" / "model.safetensors")


def prepare_out_of_space(world: World, number: int, overwrite: bool) -> list[str]:
    """Prepares data on a disk that is full before the file operation of this number; what was there before stays."""
    place = world.folder / "small"
    made, command = place / "data", _preparing(world, place / "data")

    def work() -> list[str]:
        if overwrite:
            litft(command).wait()
        before = sha256_file(made / MANIFEST_FILE) if overwrite else None
        again = [*command, "--seed=7", "--overwrite=true"] if overwrite else command
        faults = _meet(place, again, number)
        if overwrite and not faults:  # the old rows whole, or the new ones
            check_hashes(made, {name: sha256_file(made / name) for name in (TRAIN_FILE, TEST_FILE)})
            if sha256_file(made / MANIFEST_FILE) == before and (place / "ended").read_text() == "0":
                faults.append("nothing was written, and nobody said so")
        return faults + _do_again(again, allowed="already holds")

    return on_own_disk(place, work)


def convert_out_of_space(world: World, number: int) -> list[str]:
    """Converts a model on a disk that is full before the file operation of this number."""
    place = world.folder / "small"
    command = ["convert", "from_hf", f"--checkpoint_dir={place / 'hf'}"]

    def work() -> list[str]:
        shutil.copytree(world.folder / "hf", place / "hf")
        faults = _meet(place, command, number)
        return faults + _do_again(command)

    return on_own_disk(place, work)


def report_out_of_space(world: World, number: int) -> list[str]:
    """Draws the report of a run on a full disk."""
    place = world.folder / "small"
    command = ["report", str(world.straight("lora")), f"--out={place / 'report.html'}"]
    return on_own_disk(place, lambda: _meet(place, command, number) + _do_again(command))


def limited_files(world: World, method: str, n_bytes: int) -> list[str]:
    """Lets no file of a run grow beyond this, as a quota does, and lets it go on without the limit."""
    out_dir = fresh(world.folder / "struck")
    command = words(world.folder, method, out_dir)
    ended = litft(command, limit_files(n_bytes)).wait()
    faults = _one_sentence(ended) + hurt(out_dir) + _halves(out_dir)
    if ended.code:
        litft(command).wait()
    if not (out_dir / "report.html").exists():
        litft(["report", str(out_dir)]).wait()
    return faults + differences(world.straight(method), out_dir)


def _preparing(world: World, made: Path) -> list[str]:
    """Gives the command that prepares the rows."""
    settings = {"checkpoint_dir": world.folder / "model", "data_file": world.folder / "rows.csv"}
    settings |= {"destination_path": made, "prompt_style": "plain"}
    return ["prepare", "csv", *(f"--{name}={value}" for name, value in settings.items())]


def _meet(place: Path, command: list[str], number: int) -> list[str]:
    """Lets a command meet a full disk, gives the space back, and says what was not as promised."""
    ended = litft(command, space_out(place, number, place)).wait()
    (place / "ballast").unlink(missing_ok=True)
    (place / "ended").write_text(str(ended.code))
    return _one_sentence(ended) + _halves(place)


def _do_again(command: list[str], allowed: str = " ") -> list[str]:
    """Says whether a command does its work once there is space."""
    again = litft(command).wait()
    return [] if again.code == 0 or allowed in again.said else [f"not done: {again.said[-500:]}"]
