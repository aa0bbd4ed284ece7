"""A server from its config to its end: opens a checkpoint, listens, and stops in good order when it is told to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from litft.api import LLM, own_device
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.serve import USUAL_ROOM, ServeConfig
from litft.errors import ConfigError
from litft.generate.engine import Engine
from litft.serve.app import build_app
from litft.serve.fields import Bodies
from litft.serve.metrics import Metrics
from litft.serve.served import Served
from litft.serve.server import Server, listen
from litft.serve.worker import Worker

Report = Callable[[str], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(config: ServeConfig, report: Report) -> None:
    """Answers until a signal ends it.

    Raises:
        ConfigError, CheckpointError, TokenizerError: it cannot start, with the reason.
    """
    with signals() as (told, told_again):
        server = open_server(config, report)
        server.start()
        report(f"{server.url} is ready; Ctrl-C ends it")
        told.wait()
        report(f"stopping; running requests have {config.shutdown_seconds:g} s")
        if not server.stop(config.shutdown_seconds, told_again):
            report("some requests were not answered to their end")


@contextmanager
def signals() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Gives what the first signal to end sets, and what each later one sets."""
    told, told_again = threading.Event(), threading.Event()

    def take(number: int, frame: FrameType | None) -> None:
        (told_again if told.is_set() else told).set()

    before = {number: signal.signal(number, take) for number in SIGNALS}
    try:
        yield told, told_again
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_server(config: ServeConfig, report: Report) -> Server:
    """Opens the address, then the checkpoint; nothing is answered before `start`.

    Raises:
        ConfigError, CheckpointError, TokenizerError: one of them cannot be opened, with the reason.
    """
    key, opened = config.read_key(), listen(config.host, config.port)
    try:
        llm = LLM.load(
            config.checkpoint_dir,
            config.precision,
            quantize=config.quantize,
            draft_dir=config.draft_dir,
            draft_tokens=config.draft_tokens,
        )
        engine = Engine(llm.model, llm.tokenizer, config.slots, room_of(config, llm.context), llm.draft)
    except BaseException:
        opened.close()
        raise
    report(
        f"{config.checkpoint_dir} on {own_device(llm)}: {engine.slots} slots of {engine.room} tokens, "
        f"{engine.cache_bytes / 1e9:.2f} GB"
    )
    served = build_served(config, llm, engine, report)
    return Server(
        build_app(served, config.api, key, report if config.access_log or config.log_prompts else None), opened
    )


def room_of(config: ServeConfig, context: int) -> int:
    """Gives how many tokens a slot holds.

    Raises:
        ConfigError: more than the model reads.
    """
    if config.max_seq_length is None:
        return min(context, USUAL_ROOM)
    if config.max_seq_length > context:
        raise ConfigError(f"max_seq_length is {config.max_seq_length}; this model reads at most {context} tokens.")
    return config.max_seq_length


def build_served(config: ServeConfig, llm: LLM, engine: Engine, report: Report) -> Served:
    """Puts the parts of a server together."""
    metrics, folder = Metrics(), resolve_checkpoint_dir(config.checkpoint_dir)
    return Served(
        llm=llm,
        worker=Worker(engine, config.max_waiting, metrics, report),
        metrics=metrics,
        names=(config.name or folder.resolve().name, str(config.checkpoint_dir)),
        room=engine.room,
        most_new_tokens=min(config.max_new_tokens or engine.room, engine.room),
        bodies=Bodies(config.max_body_mb * 2**20),
        wraps_prompts=config.wrap_prompts,
        logs_prompts=config.log_prompts,
        report=report,
    )
