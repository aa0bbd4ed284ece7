"""A checkpoint on this machine as a model that can be asked, and which asker a command was told to take."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from litft.api import LLM, own_precision
from litft.asking.asker import Asker, Question, Reply
from litft.asking.endpoint import Endpoint
from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.asking import AskedConfig
from litft.generate.sample import Sampling
from litft.methods.load import weights_files
from litft.text.conversation import USER, Conversation, Message
from litft.text.style_files import STYLE_FILE, find_template

Report = Callable[[str], None]


class Local:
    """Asks a checkpoint, one question after the other.

    Attributes:
        name: the folder's name, and the beginning of a hash over its weights and how it is asked.
        at_once: 1.
    """

    at_once = 1

    def __init__(self, config: AskedConfig) -> None:
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
        sampling = Sampling(question.temperature, top_p=question.top_p)
        how = (question.max_new_tokens, sampling, question.stop, question.seed or 0)
        if self._is_chat:
            request = llm.to_answer(Conversation((Message(USER, question.prompt),)), *how)
        else:
            request = llm.to_continue(question.prompt, *how)
        size = len(request.prompt_ids)
        if size >= llm.model.config.block_size:
            return Reply("", refused=f"its {size} tokens fill the context of {llm.model.config.block_size}")
        answer = llm.answer(request)
        return Reply(answer.text, answer.finish == "stop", None, size, len(answer.tokens))

    def end(self) -> None:
        """Does nothing: no question waits for another."""


def open_asker(config: AskedConfig, report: Report) -> Asker:
    """Gives the model that a command is to ask.

    Args:
        config: names a checkpoint or an endpoint.
        report: told where requests to an endpoint must be repeated.

    Raises:
        CheckpointError, TokenizerError, ConfigError: it cannot be used.
    """
    return Local(config) if config.checkpoint_dir is not None else Endpoint(config, report)
