"""A checkpoint as lm-evaluation-harness asks one: likelihoods of texts, and greedy answers.

What the harness decides stays as it decides it, so that numbers compare with those of others: how a context and its
continuation are cut into ids, where a text too long is cut, and that a rolling text begins behind BOS. With a chat
template the ids are those of training instead. Source: `lm_eval/models/huggingface.py` and `lm_eval/api/model.py` of
lm-evaluation-harness 0.4.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from litft.api import conversation_of
from litft.errors import GenerationError
from litft.evaluate.likelihood import Pair, likelihoods
from litft.evaluate.subject import Subject
from litft.generate.engine import Engine
from litft.generate.request import Request
from litft.generate.sample import Sampling
from litft.terminal.bars import Bar
from litft.text.conversation import ASSISTANT, SYSTEM, Conversation, Message, StyleError
from litft.text.encoding import encode_conversation, encode_prompt, stop_ids, text_of_end

# Source: `HFLM.max_gen_toks`, and the names that `normalize_gen_kwargs` reads, the first that is given.
LONGEST_ANSWER = 256
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class _Asked(NamedTuple):
    """What stands behind a prompt that the harness knows as a text: the conversation, and how its answer begins."""

    conversation: Conversation
    beginning: str


class HarnessModel(TemplateLM):  # type: ignore[misc] # the harness has no types
    """One checkpoint; its weights are read when the first question comes, after all tasks were opened."""

    def __init__(self, subject: Subject, at_once: int, slots: int, seed: int) -> None:
        """Takes a checkpoint.

        Args:
            subject: who is asked.
            at_once: of the longest texts, how many are computed at once.
            slots: answers that are written at once.
            seed: of answers that a task wants drawn by chance.
        """
        super().__init__()
        self._subject, self._at_once, self._slots, self._seed = subject, at_once, slots, seed
        self._asked: dict[str, _Asked] = {}

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._subject.tokenizer.require_eos()

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has nothing before it: BOS, or EOS where there is none."""
        bos = self._subject.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def max_length(self) -> int:
        """Tokens that the model can read."""
        return self._subject.config.block_size

    @property
    def tokenizer_name(self) -> str:
        """What tells prompts in the harness's cache apart."""
        return f"{self._subject.tokenizer.hash}-{self._subject.style.name}".replace("/", "-")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Gives the name of the prompt style, for the harness's records."""
        return self._subject.style.name if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Gives a conversation as a text; its ids, which are those of training, are remembered by it.

        Args:
            chat_history: messages with role and content.
            add_generation_prompt: False where the last message is the beginning of the answer.
        """
        told, beginning = list(chat_history), ""
        if not add_generation_prompt and told and told[-1]["role"] == ASSISTANT:
            beginning = told.pop()["content"]
        try:
            text = self._text_of(conversation := conversation_of(told))
        except StyleError:  # a style without a place for a system text; the harness's own model leaves it out too
            told = [message for message in told if message["role"] != SYSTEM]
            text = self._text_of(conversation := conversation_of(told))
        self._asked[text + beginning] = _Asked(conversation, beginning)
        return text + beginning

    def _text_of(self, conversation: Conversation) -> str:
        """Gives what stands before the answer, the special tokens written out."""
        tokenizer, made = self._subject.tokenizer, ""
        for exchange in self._subject.style.exchanges(conversation):
            if exchange.bos and tokenizer.adds_bos and tokenizer.bos_id is not None:
                made += tokenizer.token_text(tokenizer.bos_id)
            made += "".join(piece.text for piece in (*exchange.prompt, *exchange.answer))
            made += text_of_end(tokenizer, exchange) if exchange.answer else ""
        return made

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Gives the ids of a text; those of training for a conversation.

        Args:
            string: special tokens in it count.
            add_special_tokens: whether BOS stands before it; None: as the model was trained.
        """
        asked = self._asked.get(string)
        if asked is None:
            return self._subject.tokenizer.encode(string, bos=add_special_tokens)
        prompt = encode_prompt(self._subject.tokenizer, self._subject.style, asked.conversation)
        return prompt + self._answer_ids(asked.conversation, asked.beginning)

    def _answer_ids(self, conversation: Conversation, answer: str) -> list[int]:
        """Gives the ids of an answer behind a conversation, its end left out."""
        if not answer:
            return []
        whole = Conversation((*conversation.messages, Message(ASSISTANT, answer)))
        return encode_conversation(self._subject.tokenizer, self._subject.style, whole)[-1][1][:-1]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Gives the ids of a context and of what follows it."""
        asked = self._asked.get(context)
        if asked is None:
            return super()._encode_pair(context, continuation)  # type: ignore[no-any-return]
        begun = asked.beginning.rstrip()  # a space belongs to the word that follows
        prompt = encode_prompt(self._subject.tokenizer, self._subject.style, asked.conversation)
        before = self._answer_ids(asked.conversation, begun)
        whole = self._answer_ids(asked.conversation, asked.beginning + continuation)
        return prompt + before, whole[len(before) :]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Gives log-probability and greediness of each continuation, in their order."""
        pairs = [Pair(tuple(context), tuple(text)) for _, context, text in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        with Bar("likelihoods", len(pairs), "texts", is_shown=not disable_tqdm) as bar:
            for number, likelihood in likelihoods(self._subject.llm.model, pairs, self._at_once):
                found[number] = (likelihood.logprob, likelihood.is_greedy)
                bar.update()
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Gives the log-probability of each whole text, in windows as long as the model reads."""
        owners, windows = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            rolling = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            for window in map(make_disjoint_window, rolling):
                owners.append(number)
                windows.append((None, *window))
        sums = [0.0] * len(requests)
        for number, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            sums[number] += logprob
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Gives the answer to each request, up to the first of its stop texts."""
        made = [self._request(*request.args) for request in requests]
        room = max((len(each.prompt_ids) + each.max_new_tokens for each in made), default=1)
        engine = Engine(self._subject.llm.model, self._subject.tokenizer, self._slots, room)
        found = []
        with Bar("answers", len(made), "answers", is_shown=not disable_tqdm) as bar:
            for answer in engine.run(made):
                found.append(answer.text)
                bar.update()
        return found

    def _request(self, context: str, settings: Mapping[str, Any]) -> Request:
        """Gives what a task asks for as the engine takes it; a prompt that is too long is cut from the left."""
        longest = int(next((settings[name] for name in LENGTH_NAMES if settings.get(name) is not None), LONGEST_ANSWER))
        room = self.max_length - longest
        if room < 1:
            raise GenerationError(
                f"A task wants answers of {longest} tokens, but {self._subject.name} reads at most {self.max_length} "
                "with its question; name a model with a longer context."
            )
        asked = self._asked.get(context)
        style = None if asked is None else self._subject.style
        ends = frozenset(stop_ids(self._subject.tokenizer, style))
        stop = [*_texts(settings.get("until")), *(() if style is None else style.stop)]
        prompt = tuple(self.tok_encode(context)[-room:])
        return Request(prompt, longest, _sampling(settings), ends, tuple(filter(None, stop)), self._seed)


def _texts(until: str | Iterable[str] | None) -> list[str]:
    """Gives stop texts as a list."""
    return [until] if isinstance(until, str) else list(until or ())


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    """Gives how a task wants tokens chosen: the likeliest, if it does not ask for chance."""
    temperature = float(settings.get("temperature") or 0.0)
    if not settings.get("do_sample", temperature > 0):
        return Sampling()
    return Sampling(temperature, settings.get("top_k"), settings.get("top_p"))
