"""The client of HELM, and what it would make of a server's replies. Knows no model and no check.

Source: HELM's `http_model_client.py` and `http_model_tokenizer.py` (crfm-helm 0.5.16), `proxy/retry.py` and
`benchmark/executor.py`; version 0.3.0, of the time of the challenge, also reads `top_logprob` of each token.
"""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Verdict = Literal["pass", "fail", "?"]

HELM_WORKERS = 4  # Source: `helm-run -n`, default 4
COLDEST = 1e-7  # what HELM sends for a temperature of 0
SHOWN = 160  # characters of a text in a sentence

ABORTED = "an error: HELM tries five times, then ends the whole run spec; none of its instances is scored"
NO_TOKENS = "no tokens and no error: every prompt seems to fit, and those over 2048 tokens are not cut"
NO_TEXT = "an empty text and no error: each prompt over 2048 tokens becomes an empty prompt"


class FaultError(Exception):
    """What a check found wrong, or could not find out.

    Attributes:
        reason: what the server did.
        recorded: what HELM would have made of it.
        verdict: `?` where nothing is known.
    """

    def __init__(self, reason: str, recorded: str = "", verdict: Verdict = "fail") -> None:
        """Takes what was found."""
        super().__init__(reason)
        self.reason, self.recorded, self.verdict = reason, recorded, verdict


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: of HTTP; None where nothing came.
        content: the body, or why nothing came.
        seconds: how long it took.
    """

    status: int | None
    content: str
    seconds: float

    @property
    def told(self) -> str:
        """What came, to be read in a sentence."""
        return self.content if self.status is None else f"status {self.status}: {shown(self.content)}"


@dataclass(frozen=True)
class Said:
    """An answer as HELM reads it.

    Attributes:
        text: all of it.
        pieces: the texts of its tokens.
        logprobs: of its tokens.
        candidates: of its tokens.
        seconds: from the request to the reply.
    """

    text: str
    pieces: list[str]
    logprobs: list[float]
    candidates: list[dict[str, float]]
    seconds: float


class Helm:
    """HELM's client for one server."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """Takes the server's address, and how long a reply may take in seconds."""
        self._parts, self._timeout = urlsplit(url), timeout_seconds

    def post(self, path: str, content: Any) -> Reply:
        """Sends a body, as JSON unless it is bytes; does not fail."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
        started = time.perf_counter()
        try:
            connection.request("POST", self._parts.path.rstrip("/") + path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return Reply(response.status, text, time.perf_counter() - started)
        except TimeoutError:
            return Reply(None, f"no reply within {self._timeout:g} s", time.perf_counter() - started)
        except (OSError, http.client.HTTPException) as error:
            return Reply(None, f"the connection broke ({error})", time.perf_counter() - started)
        finally:
            connection.close()

    def process(self, prompt: str, max_tokens: int = 20, **changes: Any) -> Said:
        """Gives what HELM reads of an answer.

        Args:
            prompt: what is continued.
            max_tokens: of the answer.
            changes: fields that are sent otherwise.

        Raises:
            FaultError: HELM would not have read it.
        """
        sent = {
            "prompt": prompt,
            "temperature": COLDEST,
            "num_return_sequences": 1,
            "max_new_tokens": max_tokens,
            "top_p": 1,
            "echo_prompt": False,
            "top_k_per_token": 1,
            "stop_sequences": [],
        }
        return read_answer(self.post("/process", {**sent, **changes}))

    def tokenize(self, text: str, truncation: bool = False, max_length: int = 2048) -> list[int]:
        """Gives the ids of a text.

        Raises:
            FaultError: HELM would have got none.
        """
        reply = self.post("/tokenize", {"text": text, "truncation": truncation, "max_length": max_length})
        ids = _fields("/tokenize", reply, NO_TOKENS).get("tokens")
        if not isinstance(ids, list) or not all(type(number) is int for number in ids):
            raise FaultError(f"/tokenize gives no list of whole numbers as tokens: {reply.told}", NO_TOKENS)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Gives the text of ids.

        Raises:
            FaultError: HELM would have got none.
        """
        reply = self.post("/decode", {"tokens": list(ids)})
        text = _fields("/decode", reply, NO_TEXT).get("text")
        if not isinstance(text, str):
            raise FaultError(f"/decode gives no text: {reply.told}", NO_TEXT)
        return text

    def together(self, calls: Sequence[Callable[[], Said]]) -> tuple[list[Said], float]:
        """Makes calls at once, as many as HELM has workers.

        Returns:
            What came of each, and how many seconds all took.

        Raises:
            FaultError: of one of them.
        """
        started = time.perf_counter()
        with ThreadPoolExecutor(HELM_WORKERS) as pool:
            said = [future.result() for future in [pool.submit(call) for call in calls]]
        return said, time.perf_counter() - started


def read_answer(reply: Reply) -> Said:
    """Reads a reply of /process as HELM does.

    Raises:
        FaultError: a field is missing, or is not what HELM takes it for.
    """
    values = _fields("/process", reply, ABORTED)
    for name in ("text", "tokens", "logprob", "request_time"):
        if name not in values:
            raise FaultError(f"the reply of /process has no {name}", f"KeyError '{name}', then {ABORTED}")
    text, tokens = values["text"], values["tokens"]
    if not isinstance(text, str) or not isinstance(tokens, list):
        raise FaultError(f"text or tokens of the reply are of another kind: {shown(reply.content)}", ABORTED)
    for token in tokens:
        for name in ("text", "logprob", "top_logprob"):
            if not isinstance(token, dict) or name not in token:
                raise FaultError(f"a token of the reply has no {name}", f"KeyError '{name}', then {ABORTED}")
    numbers = [values["logprob"], *(token["logprob"] for token in tokens)]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise FaultError("a logprob of the reply is no finite number", ABORTED)
    if not all(isinstance(token["top_logprob"], dict) for token in tokens):
        raise FaultError("a top_logprob of the reply is no mapping of texts to numbers", ABORTED)
    pieces = [str(token["text"]) for token in tokens]
    return Said(text, pieces, numbers[1:], [token["top_logprob"] for token in tokens], reply.seconds)


def _fields(path: str, reply: Reply, recorded: str) -> dict[str, Any]:
    """Gives the object that a reply holds.

    Raises:
        FaultError: it holds none.
    """
    if reply.status is None or not 200 <= reply.status < 300:
        raise FaultError(f"{path}: {reply.told}", recorded)
    try:
        values = json.loads(reply.content)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise FaultError(f"{path} does not give a JSON object: {shown(reply.content)}", recorded)
    if "request_time" not in values:
        raise FaultError(f"the reply of {path} has no request_time", f"KeyError 'request_time', then {ABORTED}")
    return values


def shown(text: str) -> str:
    """Gives a text in quotes, short enough for a sentence."""
    return json.dumps(text if len(text) <= SHOWN else f"{text[:SHOWN]}...", ensure_ascii=False)
