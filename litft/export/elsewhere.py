"""What transformers and peft make of a folder that was written. The one place that imports them, and only when asked.

Both are optional (`pip install 'litft[export]'`); importing them costs seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.errors import CheckpointError, LitftError
from litft.text.chat_template import messages_of
from litft.text.conversation import Conversation
from litft.text.sandbox import TODAY

# What the two raise on a folder that they cannot load.
_LOAD_ERRORS = (ImportError, OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def missing_libraries(names: Sequence[str]) -> list[str]:
    """Gives those of these libraries that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def versions(names: Sequence[str]) -> dict[str, str]:
    """Gives the versions of installed libraries."""
    return {name: metadata.version(name) for name in names}


@contextmanager
def loading(what: str, folder: Path) -> Iterator[Any]:
    """Quiets the libraries, keeps the generator of chance, and turns a failure to load into a sentence.

    Args:
        what: the library, for the message.
        folder: what is loaded.

    Yields:
        The module transformers.

    Raises:
        CheckpointError: the library cannot load the folder.
    """
    transformers: Any = importlib.import_module("transformers")
    refused: type[Exception] = importlib.import_module("huggingface_hub.errors").StrictDataclassError  # a field's type
    logging = transformers.utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
            warnings.simplefilter("ignore")
            yield transformers
    except LitftError:
        raise
    except (*_LOAD_ERRORS, refused) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise CheckpointError(
            f"{what} cannot load {folder} ({first}), so it was not kept; --certificate tensors writes it unproved."
        ) from error
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def load_model(transformers: Any, folder: Path) -> Any:
    """Gives transformers' model of a folder, in float32 on the CPU.

    Raises:
        CheckpointError: weights are missing, too many, or of another shape.
    """
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, trust_remote_code=False
    )
    wrong = {kind: sorted(map(str, names)) for kind, names in found.items() if names and kind.endswith("_keys")}
    if wrong:
        kind, names = next(iter(wrong.items()))
        raise CheckpointError(
            f"The export differs: transformers finds {kind.replace('_', ' ')} in {folder}, such as {names[0]}."
        )
    return model.eval()


def load_adapted(transformers: Any, base: Path, folder: Path) -> Any:
    """Gives peft's model of an adapter folder on a base, in float32 on the CPU."""
    peft: Any = importlib.import_module("peft")
    return peft.PeftModel.from_pretrained(load_model(transformers, base), folder).eval()


def logits_of(model: Any, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Gives the logits (T, V) of each prompt, float32."""
    return [model(torch.tensor([list(prompt)]), use_cache=False).logits[0].float() for prompt in prompts]


def chats(
    transformers: Any, folder: Path, conversations: Sequence[Conversation], trained: Sequence[Sequence[int]]
) -> tuple[list[list[int]], list[tuple[str, str]]]:
    """Gives what the folder's chat template makes of conversations, each waiting for its answer.

    Args:
        transformers: the library.
        folder: where the tokenizer lies.
        conversations: what is said.
        trained: the ids that each was trained with.

    Returns:
        The ids, and what the trained ones and these read, special tokens included: without white space, which a
        tokenizer may add or drop where texts are encoded apart.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    today = {"date_string": f"{TODAY:%d %b %Y}"}  # templates that write the date take it from here
    served = [
        list(tokenizer.apply_chat_template(messages_of(each), add_generation_prompt=True, return_dict=False, **today))
        for each in conversations
    ]
    texts = [
        tuple("".join(tokenizer.decode(list(ids)).split()) for ids in pair)
        for pair in zip(trained, served, strict=True)
    ]
    return served, [(ours, theirs) for ours, theirs in texts]


def stop_ids_of(model: Any) -> set[int]:
    """Gives the ids at which `generate` of a model ends."""
    found = model.generation_config.eos_token_id
    return set(found if isinstance(found, list) else [found]) - {None}
