"""What was said in a chat, and how much of it still fits. Knows no terminal."""

from __future__ import annotations

from litft.api import LLM
from litft.generate.request import Request
from litft.generate.sample import Sampling
from litft.text.conversation import Conversation, dialogue


class History:
    """The exchanges of a conversation.

    Attributes:
        system: what the model is told before it; empty for nothing.
        exchanges: each question with its answer.
    """

    def __init__(self, system: str = "") -> None:
        """Begins with nothing said."""
        self.system, self.exchanges = system, list[tuple[str, str]]()

    def conversation(self, question: str | None = None, forgotten: int = 0) -> Conversation:
        """Gives what was said, without the first so many exchanges, and a new question behind it."""
        said = [text for exchange in self.exchanges[forgotten:] for text in exchange]
        return dialogue(*said, *([] if question is None else [question]), system=self.system)

    def ask(
        self,
        llm: LLM,
        question: str,
        max_new_tokens: int,
        sampling: Sampling,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
    ) -> tuple[Request, int]:
        """Gives the request to answer a question, with as much of the conversation before it as the context holds.

        Args:
            llm: the model that is asked.
            question: the user's.
            max_new_tokens: room for so many is kept, or half of the context where that is less.
            sampling, stop, seed: as in `LLM.to_answer`.

        Returns:
            The request, and how many of the first exchanges have no place in it.

        Raises:
            ConfigError, TokenizerError: the style has no place for the conversation, or a text has half a character.
        """
        context = llm.context
        least = min(max_new_tokens, context // 2)
        for forgotten in range(len(self.exchanges) + 1):
            request = llm.to_answer(self.conversation(question, forgotten), max_new_tokens, sampling, stop, seed)
            if len(request.prompt_ids) + least <= context:
                break
        return request, forgotten

    def keep(self, question: str, answer: str, forgotten: int) -> None:
        """Takes in an exchange, and forgets the first ones."""
        self.exchanges = [*self.exchanges[forgotten:], (question, answer)]
