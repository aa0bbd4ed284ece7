"""`litft chat`: a conversation at the terminal, or over a pipe. Knows no prompt style."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from litft.answer.history import History
from litft.answer.model import Report, open_llm, report_draft, sampling_of
from litft.api import LLM
from litft.checkpoint.disk import atomic_path
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.answer import ChatConfig
from litft.errors import DataError, LitftError
from litft.generate.engine import Engine
from litft.generate.request import Request
from litft.text.conversation import dialogue
from litft.text.encoding import Style, encode_prompt
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer

HELP = """/clear         forget what was said; the system text stays (or /reset)
/system TEXT   tell the model TEXT before the conversation; without TEXT nothing
/save FILE     write the conversation as one line of JSON
/help          show this
/exit          end (or /quit); so does Ctrl-D
Ctrl-C stops an answer; at the prompt, twice, it ends the chat."""


def chat(config: ChatConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Talks until the input ends.

    Args:
        config: the checkpoint, the system text and the sampling.
        report: told everything that is no answer.

    Yields:
        The answers, piece by piece, each ended by a line end.

    Raises:
        CheckpointError, TokenizerError, ConfigError: the checkpoint cannot be opened, or its style has no place for the
            system text.
        DataError: the input is not UTF-8.
    """
    folder = resolve_checkpoint_dir(config.checkpoint_dir)
    check_system(Tokenizer(folder), load_style(folder), config.system)
    llm, ctrl_c = open_llm(config, report), CtrlC()
    talk = Talk(llm, config, report, ctrl_c)
    report("Type a message; /help shows the commands.")
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # makes input() remember lines
    with ctrl_c.taken():
        while (line := _ask(report, ctrl_c)) is not None:
            word, _, rest = line.strip().partition(" ")
            if word in ("/exit", "/quit"):
                break
            if word.startswith("/") and word[1:].isalpha():
                talk.obey(word, rest.strip())
            elif line.strip():
                yield from talk.answer(line)
    report_draft(llm, report)


def check_system(tokenizer: Tokenizer, style: Style, system: str) -> None:
    """Makes sure that a style has a place for a system text.

    Raises:
        ConfigError, TokenizerError: it has none, or the text has half a character.
    """
    encode_prompt(tokenizer, style, dialogue("a", system=system))


class Talk:
    """One conversation: what was said, and what is done with the next line."""

    def __init__(self, llm: LLM, config: ChatConfig, report: Report, ctrl_c: CtrlC) -> None:
        """Begins with nothing but the system text."""
        self._llm, self._config, self._report, self._ctrl_c = llm, config, report, ctrl_c
        self._history, self._engine = History(config.system), llm.engine_for([])

    def answer(self, text: str) -> Iterator[str]:
        """Answers a line, piece by piece; Ctrl-C ends the answer, and what was said of it counts.

        Args:
            text: what the user says. Where it cannot be answered, that is reported and nothing is changed.
        """
        config, said, forgotten, was_stopped = self._config, "", 0, False
        try:
            request, forgotten = self._history.ask(
                self._llm, text, config.max_new_tokens, sampling_of(config), config.stop, config.seed
            )
            with contextlib.closing(self._engine_for(request).iter_tokens(request)) as tokens:
                for token in tokens:
                    said += token.text
                    yield token.text
                    if self._ctrl_c.was_pressed:
                        break
            was_stopped, self._ctrl_c.was_pressed = self._ctrl_c.was_pressed, False
        except LitftError as error:
            self._report(str(error))
            return
        except KeyboardInterrupt:
            was_stopped = True
            self._engine = self._llm.engine_for([])  # it may have been broken off anywhere
        yield "\n"
        if said:
            self._history.keep(text, said, forgotten)
        self._tell(said, forgotten, was_stopped)

    def _engine_for(self, request: Request) -> Engine:
        """Gives the engine of the turns before, which need not be read again, or a larger one where this needs it."""
        needed = min(len(request.prompt_ids) + request.max_new_tokens, self._llm.context)
        if self._engine.room < needed:
            room = min(2 * needed, self._llm.context)
            self._engine = Engine(self._llm.model, self._llm.tokenizer, 1, room, self._llm.draft)
        return self._engine

    def _tell(self, said: str, forgotten: int, was_stopped: bool) -> None:
        """Says what a reader of the answer cannot see."""
        if was_stopped:
            self._report("Stopped.")
        if not said:
            self._report("The model said nothing; this exchange does not count.")
        elif forgotten:
            plural = "s were" if forgotten > 1 else " was"
            self._report(f"The context is full: the first {forgotten} exchange{plural} forgotten.")

    def obey(self, word: str, rest: str) -> None:
        """Does what a line such as `/save FILE` says."""
        if word in ("/clear", "/reset"):
            self._history.exchanges.clear()
            self._report("Forgotten.")
        elif word == "/system":
            self._set_system(rest)
        elif word == "/save":
            self._save(rest)
        elif word == "/help":
            self._report(HELP)
        else:
            self._report(f"There is no command {word}; /help shows them.")

    def _set_system(self, text: str) -> None:
        """Takes another system text, if the style has a place for it."""
        try:
            check_system(self._llm.tokenizer, self._llm.style, text)
        except LitftError as error:
            self._report(str(error))
            return
        self._history.system = text
        self._report(f"The system text is now: {text}" if text else "There is no system text now.")

    def _save(self, name: str) -> None:
        """Writes the conversation so that `litft prepare messages` reads it."""
        path = Path(name).expanduser()
        if not name or path.exists():
            self._report(f"{name} is there already; name another file." if name else "Name a file: /save chat.jsonl")
            return
        messages = [
            {"role": message.role, "content": message.text} for message in self._history.conversation().messages
        ]
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            self._report(f"Cannot write {path}: {error.strerror}.")
            return
        self._report(f"{path}: {len(messages)} messages")


class CtrlC:
    """What Ctrl-C does in a chat: it breaks off waiting for a line; else it is remembered, to be taken note of.

    Attributes:
        was_pressed: since somebody took note of it. Pressed again before that, it breaks off whatever is done.
    """

    def __init__(self) -> None:
        """Begins with nothing pressed."""
        self.was_pressed = self._is_waiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Takes the signal."""
        if self._is_waiting or self.was_pressed:
            self.was_pressed = False
            raise KeyboardInterrupt
        self.was_pressed = True

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, Ctrl-C does this; afterwards what it did before."""
        former = signal.signal(signal.SIGINT, self)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, it raises KeyboardInterrupt; also where it was pressed just before."""
        if self.was_pressed:
            self.was_pressed = False
            raise KeyboardInterrupt
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False


def _ask(report: Report, ctrl_c: CtrlC) -> str | None:
    """Gives the next line; None at the end of the input, or at the second Ctrl-C."""
    for _ in range(2):
        try:
            with ctrl_c.waiting():
                return input("> " if sys.stdin.isatty() and sys.stdout.isatty() else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            report("\nCtrl-C once more ends the chat.")
        except UnicodeDecodeError as error:
            raise DataError("The input is not UTF-8.") from error
    return None
