"""A model behind an OpenAI-compatible `chat/completions` endpoint, asked through the standard library alone.

The key comes from an environment variable and goes nowhere but into the request's header. Source of the fields:
OpenAI's API reference, "Create chat completion"; vLLM, llama.cpp, Ollama and others answer the same.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from litft.asking.asker import Question, Reply
from litft.config.asking import EndpointConfig
from litft.errors import ConfigError, GenerationError

Report = Callable[[str], None]

# Answers that another attempt may change: too many requests, or a server in trouble.
TRANSIENT = frozenset({408, 425, 429})
# Answers that are about the one request, such as a prompt longer than the context.
ABOUT_THE_REQUEST = frozenset({400, 413, 422})

LONGEST_WAIT_SECONDS = 60.0
SHOWN_CHARACTERS = 300


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the host that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Makes the redirect an error with its status."""
        return


class _TryAgain(Exception):  # noqa: N818 - no error yet
    """An attempt that failed in a way that may pass; `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Endpoint:
    """Asks over HTTP, several questions at once.

    Attributes:
        name: the model, as the server calls it.
        at_once: requests that may be out at the same time.
    """

    def __init__(self, config: EndpointConfig, report: Report, first_wait_seconds: float = 1.0) -> None:
        """Takes the key from its environment variable.

        Args:
            config: the address, the model and the patience; endpoint and model are given.
            report: told the first time that a request must be repeated, for each reason.
            first_wait_seconds: the wait before the second attempt; each later one is twice as long.

        Raises:
            ConfigError: the variable is not set, or holds no key.
        """
        self.name, self.at_once = str(config.model), config.requests_at_once
        self._address = f"{str(config.endpoint).rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        self._key_name = config.api_key_env
        self._key = None if config.api_key_env is None else _read_key(config.api_key_env)
        self._attempts, self._timeout = config.retries + 1, config.timeout_seconds
        self._first_wait = first_wait_seconds
        self._report, self._told = report, set[str]()
        self._ended = threading.Event()
        self._opener = urllib.request.build_opener(_Stay)

    def end(self) -> None:
        """Makes requests that wait for another attempt give up."""
        self._ended.set()

    def ask(self, question: Question) -> Reply:
        """Gives the reply of the model.

        Raises:
            GenerationError: the server does not answer after all attempts, or answers nobody this way.
        """
        body = json.dumps(self._body(question)).encode()
        reason = ""
        for attempt in range(self._attempts):
            try:
                return self._attempt(body)
            except _TryAgain as again:
                reason = str(again)
                wait = min(self._first_wait * 2**attempt, LONGEST_WAIT_SECONDS) if again.wait is None else again.wait
            if attempt + 1 == self._attempts:
                break
            self._tell(reason)
            if self._ended.wait(wait):
                break
        raise GenerationError(
            f"{self._address} gave no reply in {self._attempts} attempts ({reason}); what was answered before is kept, "
            "and the same command goes on from there."
        )

    def _body(self, question: Question) -> dict[str, Any]:
        """Gives the request; what nobody asked for is left to the server."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": question.max_new_tokens,
            "temperature": question.temperature,
        }
        more = {"top_p": question.top_p, "stop": list(question.stop) or None, "seed": question.seed}
        return body | {name: value for name, value in more.items() if value is not None}

    def _attempt(self, body: bytes) -> Reply:
        """Sends one request."""
        request = urllib.request.Request(self._address, body, {"Content-Type": "application/json"})
        request.add_header("User-Agent", "litft")  # some hosts refuse urllib's own name
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            with error:
                return self._refusal(error)
        except (OSError, http.client.HTTPException) as error:  # no connection, a timeout, a line that broke
            raise _TryAgain(self._shown(str(getattr(error, "reason", error)) or type(error).__name__)) from error
        return self._reply(content)

    def _refusal(self, error: urllib.error.HTTPError) -> Reply:
        """Tells an answer to this request from one to all requests, and from one that may change."""
        said = f"{error.code} {error.reason}"
        if error.code in (401, 403):  # some servers repeat the key in what they say
            key = "no key was sent" if self._key is None else f"the key in {self._key_name} is not accepted"
            raise GenerationError(
                f"{self._address} answers {said}: {key}; name the environment variable that holds the key with "
                "--api_key_env."
            )
        try:
            told = _message_of(error.read())
        except (OSError, http.client.HTTPException):
            told = ""
        said = self._shown(f"{said}: {told}" if told else said)
        if error.code in TRANSIENT or error.code >= 500:
            raise _TryAgain(said, _seconds(error.headers.get("Retry-After")))
        if error.code in ABOUT_THE_REQUEST:
            return Reply("", refused=said)
        raise GenerationError(f"{self._address} answers {said}; check --endpoint and --model.")

    def _reply(self, content: bytes) -> Reply:
        """Reads an answer."""
        try:
            values = json.loads(content)
            choice = values["choices"][0]
            text, usage = choice["message"]["content"] or "", values.get("usage") or {}
            prompt_tokens, reply_tokens = (int(usage.get(f"{side}_tokens") or 0) for side in ("prompt", "completion"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise GenerationError(
                f"{self._address} answers what is no chat completion: {self._shown(_message_of(content))}; check "
                "--endpoint, which ends in /v1 on most servers."
            ) from error
        return Reply(str(text), choice.get("finish_reason") != "length", None, prompt_tokens, reply_tokens)

    def _shown(self, text: str) -> str:
        """Gives what a server said as one short line, the key left out."""
        line = " ".join(text.split())
        return (line if self._key is None else line.replace(self._key, "***"))[:SHOWN_CHARACTERS]

    def _tell(self, reason: str) -> None:
        """Says once for each reason that requests are repeated."""
        if reason not in self._told:
            self._told.add(reason)
            self._report(f"{self._address}: {reason}; asking again, {self._attempts - 1} times at most")


def _read_key(name: str) -> str:
    """Gives the key that an environment variable holds.

    Raises:
        ConfigError: there is none, or it cannot stand in a header; the value is not shown.
    """
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"The environment variable {name}, which api_key_env names, is not set; export it first.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"The environment variable {name} holds characters that no key has; set it again.")
    return key


def _message_of(content: bytes) -> str:
    """Gives the sentence in a server's error, or the beginning of what it said."""
    try:
        values = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")
    error = values.get("error", values) if isinstance(values, dict) else values
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _seconds(text: str | None) -> float | None:
    """Gives how long `Retry-After` asks to wait; None where it says nothing, or a date."""
    return min(float(text), LONGEST_WAIT_SECONDS) if text is not None and text.strip().isdigit() else None
