"""`litft export hf`: any checkpoint as a folder that transformers loads, LoRA merged in on the way, with its proof."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from litft.checkpoint.disk import atomic_folder, require_free
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.checkpoint.hf_folder import REPORT_FILE, check_hf_folder, tokenizer_of, write_hf_folder
from litft.config.convert import ToHfConfig
from litft.config.export import Certificate
from litft.errors import CheckpointError
from litft.export import elsewhere
from litft.export.certificate import (
    Comparison,
    compare,
    fixed_prompts,
    our_logits,
    reason_against,
    require_agreement,
    write_report,
)
from litft.export.source import Exportable, open_exportable, report_quantized
from litft.methods.load import load_finetuned
from litft.methods.merged import build_whole
from litft.text.chat_template import tried_conversations
from litft.text.encoding import Style, encode_prompt, stop_ids
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]
CPU = torch.device("cpu")
ADVICE = "name another folder, or replace an export by --overwrite true"


def to_hf(config: ToHfConfig, report: Report = lambda message: None) -> Path:
    """Writes a folder that transformers loads: weights, config.json, tokenizer, chat template, generation_config.json.

    Args:
        config: from where to where.
        report: is told, in a sentence each, what was written and how it was proved.

    Returns:
        The folder written.

    Raises:
        CheckpointError: the checkpoint is not converted, damaged, no weights, its base again, or does not fit its
            config.json; or what was written is not computed as litft computes it.
        ConfigError: out_dir is not empty, or holds the checkpoint.
    """
    checkpoint_dir, out_dir = resolve_checkpoint_dir(config.checkpoint_dir), config.out_dir
    model = open_exportable(checkpoint_dir)
    require_free(out_dir, config.overwrite, REPORT_FILE, ADVICE, (checkpoint_dir, model.base_dir))
    with atomic_folder(out_dir) as folder:
        n_bytes = write_hf_folder(model.source, folder, config.max_shard_bytes)
        proof = certify_hf(model, folder, config.certificate)
        made_of = {"checkpoint_dir": str(checkpoint_dir), "base": str(model.base_dir), "bytes": n_bytes}
        write_report(folder, "hf", made_of, proof)
    tensors = proof["tensors_equal"]
    report(f"Wrote {tensors} tensors ({n_bytes / 1e6:,.1f} MB) in Hugging Face layout to {out_dir}.")
    report(sentence(proof))
    report_quantized(checkpoint_dir, report)
    return out_dir


def certify_hf(model: Exportable, folder: Path, asked: Certificate) -> dict[str, Any]:
    """Proves a written folder: its tensors are read again and, where that can be, transformers computes with them.

    Args:
        model: what was written.
        folder: where it lies.
        asked: how much proof is wanted.

    Returns:
        What `export_report.json` says of it.

    Raises:
        CheckpointError: what was written differs.
        ConfigError: the full certificate is asked for and transformers is not installed.
    """
    reason = reason_against(asked, ("transformers",), model.parameters)
    proof: dict[str, Any] = {"tensors_equal": check_hf_folder(model.source, folder), "skipped": reason}
    if reason is not None:
        return proof
    source = model.source
    tokenizer = tokenizer_of(source.side_dir)
    prompts = fixed_prompts(source.model, tokenizer, source.style)
    ours, proof["merging"] = whole_logits(model, prompts)
    with elsewhere.loading("transformers", folder) as transformers:
        theirs = elsewhere.load_model(transformers, folder)
        proof["libraries"] = elsewhere.versions(("transformers",))
        proof["logits"] = compare(ours, elsewhere.logits_of(theirs, prompts))
        require_agreement(proof["logits"], "transformers", folder)
        if tokenizer is not None:
            wanted = stop_ids(tokenizer, source.style)
            proof["stop_ids"] = wanted
            found = elsewhere.stop_ids_of(theirs)
            if wanted and set(wanted) != found:
                raise CheckpointError(
                    f"The export differs: transformers stops at {sorted(found)} in {folder}, litft at {wanted}."
                )
    if tokenizer is not None and source.style is not None:
        proof["chat"] = chat_proof(tokenizer, source.style, folder)
    return proof


def chat_proof(tokenizer: Tokenizer, style: Style, folder: Path) -> dict[str, Any]:
    """Counts the conversations for which the written chat template gives, id for id, what was trained.

    Where the pieces of a prompt and its answer merge at their border the ids differ but read the same: that is no
    mistake of the export, so it is told and not refused. Nor is a tokenizer that transformers lacks a library for.

    Args:
        tokenizer, style: the model's.
        folder: the written one.

    Raises:
        CheckpointError: the template gives another text.
    """
    conversations = tried_conversations(style)
    trained = [encode_prompt(tokenizer, style, each) for each in conversations]
    try:
        with elsewhere.loading("transformers' tokenizer", folder) as transformers:
            served, texts = elsewhere.chats(transformers, folder, conversations, trained)
    except CheckpointError as error:
        return {"conversations": len(trained), "equal_ids": None, "not_checked": str(error.__cause__ or error)}
    for ours, theirs in texts:
        if ours != theirs:
            start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
            raise CheckpointError(
                f"The export differs: by the chat template in {folder} a conversation goes on with "
                f'"{theirs[start:][:40]}" where the model was trained on "{ours[start:][:40]}"; please report this.'
            )
    equal = sum(first == second for first, second in zip(trained, served, strict=True))
    return {"conversations": len(trained), "equal_ids": equal}


def whole_logits(model: Exportable, prompts: list[list[int]]) -> tuple[list[torch.Tensor], Comparison | None]:
    """Gives litft's logits of the weights as they are written, and how far rounding alone moved them.

    Raises:
        CheckpointError: base and adapters differ, merged in float32, from base and adapters apart.
    """
    written = our_logits(build_whole(model.source.model, model.source.read), prompts)
    if model.unrounded is None:
        return written, None
    apart = our_logits(load_finetuned(model.checkpoint_dir, "32-true", CPU), prompts)
    merged = our_logits(build_whole(model.source.model, model.unrounded), prompts)
    require_agreement(compare(apart, merged), "the merged model", model.checkpoint_dir)
    return written, compare(apart, written)


def sentence(proof: dict[str, Any]) -> str:
    """Gives the certificate as one printed line."""
    if proof["skipped"]:
        return (
            f"Certificate: {proof['tensors_equal']} tensors read again, all equal; logits were not compared "
            f"({proof['skipped']})."
        )
    who = " and ".join(f"{name} {version}" for name, version in proof["libraries"].items())
    verb = "agree" if len(proof["libraries"]) > 1 else "agrees"
    parts = [f"Certificate: {who} {verb} at {proof['logits'].describe()}"]
    if moved := proof.get("merging"):
        parts.append(f"merging moved logits by {moved.max_difference:.1e} (KL {moved.kl:.1e})")
    if chat := proof.get("chat"):
        equal = chat["equal_ids"]
        parts.append(
            "the chat template was not tried, transformers cannot load the tokenizer (export_report.json says why)"
            if equal is None
            else f"the chat template gives the trained ids in {equal} of {chat['conversations']} conversations"
        )
    if "stop_ids" in proof:
        parts.append(f"stops at {', '.join(map(str, proof['stop_ids']))}")
    return "; ".join(parts) + "."
