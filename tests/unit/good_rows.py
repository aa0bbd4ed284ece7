"""For each dataset that reads rows of JSON one that it takes, to be spoilt by tests."""

from __future__ import annotations

from typing import Any

GOOD: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "a", "input": "", "output": "b"},
    "alpaca_2k": {"instruction": "a", "output": "b"},
    "alpaca_gpt4": {"instruction": "a", "output": "b"},
    "dolly": {"instruction": "a", "context": "", "response": "b"},
    "flan": {"inputs": "a", "targets": "b"},
    "guanaco": {"text": "### Human: a### Assistant: b"},
    "json": {"instruction": "a", "input": "", "output": "b"},
    "lima": {"conversations": ["a", "b"]},
    "longform": {"input": "a", "output": "b"},
    "magpie": {"instruction": "a", "responses": ["b", "c"], "rewards": [1, 2]},
    "messages": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "oasst1": {"prompt": {"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant"}]}},
    "p3": {"inputs_pretokenized": "a", "targets_pretokenized": "b"},
    "self_instruct": {"instruction": "a", "instances": [{"input": "", "output": "b"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "text": {"text": "a"},
    "tokenized": {"input_ids": [3, 4, 5], "labels": [-100, 4, 5]},
}
TASK: dict[str, Any] = {"Definition": ["d"], "Instances": [{"id": "1", "input": "a", "output": ["b"]}]}


def said(*roles: str) -> dict[str, Any]:
    """Gives a row of messages of these roles."""
    return {"messages": [{"role": role, "content": "a"} for role in roles]}
