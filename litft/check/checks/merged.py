"""LoRA added into its base answers as LoRA beside it."""

from __future__ import annotations

from litft.check.bench import Bench
from litft.check.checks.saved import logits_gap, prompts_of
from litft.check.finding import CannotTellError, Check, within
from litft.export.certificate import LARGEST_DIFFERENCE
from litft.export.merge import write_merged
from litft.export.source import open_exportable
from litft.methods.load import load_finetuned
from litft.methods.lora import LoRA
from litft.methods.merged import build_whole, inner_method
from litft.model.load import load_model


def run(bench: Bench) -> str:
    """Compares logits of the rows, with weights in float32 and as litft merge writes them."""
    if not isinstance(inner_method(bench.inputs.method), LoRA):
        raise CannotTellError(f"what {bench.method_name} trains is not added into weights")
    trained, final = bench.finished
    beside = load_finetuned(final, "32-true", trained.fabric.device)
    found = open_exportable(final)
    whole = build_whole(found.source.model, found.unrounded or found.source.read).to(trained.fabric.device)
    prompts = prompts_of(bench)
    text = within({"logits": logits_gap(beside, whole, prompts)}, LARGEST_DIFFERENCE, "of the largest: float32")
    folder = bench.scratch / "merged"
    write_merged(found, folder)
    rounded = logits_gap(beside, load_model(folder, "32-true", trained.fabric.device), prompts)
    dtypes = {str(spec.dtype).removeprefix("torch.") for spec in found.source.specs.values()}
    return f"{text}; {rounded:.1e} as litft merge writes them, rounded to {' and '.join(sorted(dtypes))}"


CHECK = Check("merged", "LoRA added into its base answers as LoRA beside it", run)
