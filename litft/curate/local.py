"""A checkpoint on this machine as a model that can be asked, and which asker a command was told to take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from litft.api import LLM, own_precision
from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.curate import AskConfig
from litft.curate.asking import Asker, Question, Reply
from litft.curate.endpoint import Endpoint
from litft.generate.sample import Sampling, iter_tokens
from litft.methods.load import weights_files
from litft.text.conversation import USER, Conversation, Message
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.stream import StreamDecoder
from litft.text.style_files import STYLE_FILE, find_template

Report = Callable[[str], None]


class Local:
    """Asks a checkpoint, one question after the other.

    Attributes:
        name: the folder's name, and the beginning of a hash over its weights and how it is asked.
        at_once: 1.
    """

    at_once = 1

    def __init__(self, config: AskConfig) -> None:
        """Opens the checkpoint.

        Args:
            config: checkpoint_dir is given.

        Raises:
            CheckpointError, TokenizerError, ConfigError: it cannot be opened, with the reason.
        """
        assert config.checkpoint_dir is not None
        folder = resolve_checkpoint_dir(config.checkpoint_dir)
        has_style = (folder / STYLE_FILE).is_file() or find_template(folder) is not None
        self._is_chat = has_style if config.chat is None else config.chat
        precision = config.precision or own_precision(folder)
        facts = [*(weights_sha256(path) for path in weights_files(folder)), precision, str(self._is_chat)]
        self.name = f"{folder.name} ({hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]})"
        self._llm = LLM.load(folder, precision)

    def ask(self, question: Question) -> Reply:
        """Gives the reply; a prompt that fills the context is refused."""
        llm = self._llm
        if self._is_chat:
            ids = encode_prompt(llm.tokenizer, llm.style, Conversation((Message(USER, question.prompt),)))
            ends, stop = stop_ids(llm.tokenizer, llm.style), (*llm.style.stop, *question.stop)
        else:
            ids = llm.tokenizer.encode(question.prompt)
            ends, stop = list(llm.tokenizer.stop_ids), question.stop
        room = llm.model.config.block_size - len(ids)
        if room < 1:
            return Reply("", refused=f"its {len(ids)} tokens fill the context of {llm.model.config.block_size}")
        decoder = StreamDecoder(llm.tokenizer, stop, () if self._is_chat else ids)
        sampling = Sampling(question.temperature, top_p=question.top_p)
        most, count, text = min(question.max_new_tokens, room), 0, ""
        for token in iter_tokens(llm.model, ids, most, sampling, ends, question.seed or 0):
            count += 1
            text += decoder.push(token)
            if decoder.stopped:
                break
        text += decoder.finish()
        return Reply(text, decoder.stopped or count < most, None, len(ids), count)

    def end(self) -> None:
        """Does nothing: no question waits for another."""


def open_asker(config: AskConfig, report: Report) -> Asker:
    """Gives the model that a command is to ask.

    Args:
        config: names a checkpoint or an endpoint.
        report: told where requests to an endpoint must be repeated.

    Raises:
        CheckpointError, TokenizerError, ConfigError: it cannot be used.
    """
    return Local(config) if config.checkpoint_dir is not None else Endpoint(config, report)
