"""Counts and times for Prometheus, in its text format.

Source: "Exposition formats" of Prometheus' documentation, version 0.0.4.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

Labels = tuple[tuple[str, str], ...]

COUNTERS = {
    "litft_requests_total": "Requests by path and status.",
    "litft_prompt_tokens_total": "Tokens of prompts.",
    "litft_answer_tokens_total": "Tokens of answers.",
    "litft_answers_total": "Answers by how they ended.",
    "litft_prompts_cut_total": "Prompts to /process that were cut, as they did not fit.",
    "litft_failures_total": "Steps of the model that failed.",
    "litft_connections_ended_total": "Connections that the server ended, by why.",
}
HISTOGRAMS = {
    "litft_request_seconds": "From a request's head to the end of its reply, by path.",
    "litft_first_token_seconds": "From a request to the first token of an answer.",
    "litft_answer_seconds": "From a request to the end of an answer.",
}


class Metrics:
    """Counts from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Labels, float]] = {name: defaultdict(float) for name in COUNTERS}
        # For each name and label: how many fell into each bucket, the last one without bound; and the sum.
        self._times: dict[str, dict[Labels, tuple[list[int], float]]] = {name: {} for name in HISTOGRAMS}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to a counter of `COUNTERS`."""
        with self._lock:
            self._counts[name][tuple(labels.items())] += amount

    def time(self, name: str, seconds: float, **labels: str) -> None:
        """Notes a time in a histogram of `HISTOGRAMS`."""
        with self._lock:
            buckets, total = self._times[name].get(tuple(labels.items()), ([0] * (len(SECONDS) + 1), 0.0))
            buckets[bisect_left(SECONDS, seconds)] += 1
            self._times[name][tuple(labels.items())] = buckets, total + seconds

    def gauge(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Declares a number that is asked for when somebody reads."""
        self._gauges[name] = help, value

    def mean(self, name: str) -> float:
        """Gives the mean of a histogram, in seconds; 0 where nothing was noted."""
        with self._lock:
            found = list(self._times[name].values())
            number = sum(sum(buckets) for buckets, _ in found)
            return sum(total for _, total in found) / number if number else 0.0

    def text(self) -> str:
        """Gives all of it as Prometheus reads it."""
        lines = []
        for name, (help, value) in self._gauges.items():
            lines += [*_head(name, help, "gauge"), f"{name} {value():g}"]
        with self._lock:
            for name, help in COUNTERS.items():
                counts = self._counts[name] or {(): 0.0}
                lines += _head(name, help, "counter")
                lines += [f"{name}{_braces(labels)} {number:.0f}" for labels, number in counts.items()]
            for name, help in HISTOGRAMS.items():
                lines += _head(name, help, "histogram")
                for labels, (buckets, total) in self._times[name].items():
                    lines += _histogram(name, labels, buckets, total)
        return "\n".join(lines) + "\n"


def _head(name: str, help: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _histogram(name: str, labels: Labels, buckets: list[int], total: float) -> list[str]:
    """Gives the lines of one histogram; a bucket counts all that is below its bound."""
    bounds = [*(f"{bound:g}" for bound in SECONDS), "+Inf"]
    lines, below = [], 0
    for bound, number in zip(bounds, buckets, strict=True):
        below += number
        lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {below}")
    return [*lines, f"{name}_sum{_braces(labels)} {total:.6f}", f"{name}_count{_braces(labels)} {below}"]


def _braces(labels: Labels) -> str:
    """Writes labels; their values are our own and need no escapes."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
