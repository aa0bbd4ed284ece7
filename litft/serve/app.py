"""Which path is answered by what. FastAPI routes and describes; `/openapi.json` is that description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from litft import __version__
from litft.errors import LitftError
from litft.serve.challenge import Challenge, DecodeFields, ProcessFields, TokenizeFields
from litft.serve.described import (
    ChatCompletion,
    Completion,
    Decoded,
    Health,
    Model,
    Models,
    Processed,
    Reply,
    Tokenized,
    responses_of,
)
from litft.serve.door import Door
from litft.serve.fields import Fields
from litft.serve.metrics import CONTENT_TYPE
from litft.serve.openai import OpenAI
from litft.serve.openai_fields import ChatFields, CompletionFields
from litft.serve.refusal import SERVER_ERROR, Refusal
from litft.serve.served import Served, json_response

Endpoint = Callable[..., Any]
Routes = Mapping[str, tuple[Endpoint, type[Fields] | None, type[Reply] | None]]


def build_app(
    served: Served, apis: tuple[str, ...], key: str | None = None, log: Callable[[str], None] | None = None
) -> Door:
    """Gives the application that answers for a model.

    Args:
        served: the model.
        apis: of `APIS` in `config/serve.py`.
        key: what clients must send; None where all may come.
        log: told of each request in one line.
    """
    openai, challenge = OpenAI(served), Challenge(served)
    routes: dict[str, Routes] = {
        "openai": {
            "/v1/models": (openai.models, None, Models),
            "/v1/models/{name:path}": (openai.model, None, Model),
            "/v1/completions": (openai.completions, CompletionFields, Completion),
            "/v1/chat/completions": (openai.chat, ChatFields, ChatCompletion),
        },
        "challenge": {
            "/process": (challenge.process, ProcessFields, Processed),
            "/tokenize": (challenge.tokenize, TokenizeFields, Tokenized),
            "/decode": (challenge.decode, DecodeFields, Decoded),
        },
    }
    chosen = {path: way for api in apis for path, way in routes[api].items()}
    app = FastAPI(title="litft", version=__version__, docs_url=None, redoc_url=None)  # those pages load foreign code
    for path, (endpoint, fields, reply) in {**chosen, **_watching(served)}.items():
        _add(app, path, endpoint, fields, reply)
    app.add_exception_handler(LitftError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _refuse)
    return Door(app, served.worker, served.metrics, log, key, frozenset({*chosen, "/health", "/metrics"}))


def _add(app: FastAPI, path: str, endpoint: Endpoint, fields: type[Fields] | None, reply: type[Reply] | None) -> None:
    """Adds a route; its body is read by the endpoint itself, and described here."""
    if fields is None:
        kind = PlainTextResponse if reply is None else JSONResponse
        responses = responses_of(reply)
        app.add_api_route(
            path, endpoint, methods=["GET"], response_model=None, response_class=kind, responses=responses
        )
        return
    schema = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": fields.model_json_schema()}}}
    }
    responses = responses_of(reply, "stream" in fields.model_fields)
    app.add_api_route(path, endpoint, methods=["POST"], response_model=None, openapi_extra=schema, responses=responses)


def _watching(served: Served) -> Routes:
    """Gives what those that watch a server ask."""

    async def health() -> Response:
        trouble = served.worker.trouble
        return json_response({"status": trouble or "ready"}, 200 if trouble is None else 503)

    async def metrics() -> Response:
        return Response(served.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return {"/health": (health, None, Health), "/metrics": (metrics, None, None)}


async def _refuse(http: HttpRequest, error: Exception) -> Response:
    """Answers a request that failed; of an error of ours, whose trace the server's log has, it says no more."""
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, LitftError):
        refusal = Refusal(400, str(error))
    elif isinstance(error, HTTPException):
        refusal = Refusal(error.status_code, f"{http.method} {http.url.path[:100]!a}: {error.detail}.")
    else:
        refusal = Refusal(SERVER_ERROR, "The server failed on this request.")
    allowed = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return json_response(refusal.body, refusal.status, {**allowed, **refusal.headers})
