"""A server whose model has a draft: several tokens of an answer come at once, and all are told and counted."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from serving import PROMPTS, Running, assert_greedy, folder_of, load, read_all

from litft.config.serve import ServeConfig
from litft.serve.run import open_server

COMPLETE = "/v1/completions"


def test_answers_are_the_models_own_and_each_token_is_counted() -> None:
    torch.set_num_threads(1)
    llm, said = load("demo"), list[str]()
    folder = folder_of("demo")
    server = open_server(ServeConfig(checkpoint_dir=folder, draft_dir=folder, port=0, slots=4), said.append)
    server.start()
    running = Running(server.url, llm, server, said)
    try:

        def ask(prompt: str) -> Any:
            return json.loads(running.post(COMPLETE, {"prompt": prompt, "max_tokens": 20, "temperature": 0}).content)

        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(ask, PROMPTS[:12]))
        for prompt, reply in zip(PROMPTS, replies, strict=False):
            assert_greedy(llm, prompt, reply["choices"][0]["text"], llm.generate(prompt, max_new_tokens=20))
        metrics = running.metrics()
        assert metrics["litft_answer_tokens_total"] >= sum(reply["usage"]["completion_tokens"] for reply in replies)
        assert sum(number for name, number in metrics.items() if name.startswith("litft_answers_total")) == 12
        body = {"prompt": PROMPTS[0], "max_tokens": 20, "temperature": 0, "stream": True}
        events = re.findall(rb"data: ({.*})\r?\n", read_all(running.stream(COMPLETE, body)))
        streamed = "".join(json.loads(event)["choices"][0]["text"] for event in events)
        assert streamed == replies[0]["choices"][0]["text"]
    finally:
        server.stop(0)
