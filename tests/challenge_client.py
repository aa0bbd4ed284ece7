"""A client of the LLM Efficiency Challenge's API that sends and reads what HELM's does, and the raw posts below it.

Source: `http_model_client.py` and `http_model_tokenizer.py` of HELM.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def message(self) -> str:
        """The sentence of a refusal."""
        return str(self.json["error"]["message"])


def call(url: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60) -> Reply:
    """Posts a body, as JSON unless it is bytes; None gets."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Reply(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, _lower(error.headers), error.read())


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@dataclass(frozen=True)
class ChallengeClient:
    """HELM's side."""

    url: str

    def process(self, prompt: str, max_tokens: int = 20, temperature: float = 0, **changes: Any) -> dict[str, Any]:
        """Gives what HELM reads of a reply; a missing or mistyped field fails."""
        sent = {
            "prompt": prompt,
            "temperature": 1e-7 if temperature == 0 else temperature,
            "num_return_sequences": 1,
            "max_new_tokens": max_tokens,
            "top_p": 1,
            "echo_prompt": False,
            "top_k_per_token": 1,
            "stop_sequences": [],
        }
        values = self._post("process", {**sent, **changes})
        tokens = [(str(token["text"]), token["logprob"], token["top_logprob"]) for token in values["tokens"]]
        assert "".join(text for text, _, _ in tokens) == values["text"]
        assert values["request_time"] > 0
        assert abs(values["logprob"] - sum(logprob for _, logprob, _ in tokens)) < 1e-6
        assert all(isinstance(number, float) for _, _, top in tokens for number in top.values())
        return values

    def tokenize(self, text: str, truncation: bool = False, max_length: int = 2048) -> list[int]:
        """Gives the ids of a text."""
        values = self._post("tokenize", {"text": text, "truncation": truncation, "max_length": max_length})
        assert values["request_time"] >= 0
        return list(values["tokens"])

    def decode(self, tokens: list[int]) -> str:
        """Gives the text of ids."""
        values = self._post("decode", {"tokens": tokens})
        assert values["request_time"] >= 0
        return str(values["text"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = call(f"{self.url}/{path}", body)
        assert reply.status == 200, reply.content
        return dict(reply.json)
