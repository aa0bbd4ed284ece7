"""`--logger mlflow`: a run at MLFLOW_TRACKING_URI, or in MLflow's own file where that names none.

Numbers are sent together every few seconds. What a server does not take waits here and is sent again, less often each
time, so that one that is away for an hour misses nothing. Its own variables choose the rest.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Set before the import, where nobody set them: its own would let training wait four minutes for a server that is away,
# it would tell its makers how it is used, and write to stdout where the run is.
for _name, _value in (
    ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
    ("MLFLOW_HTTP_REQUEST_TIMEOUT", "15"),
    ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
):
    os.environ.setdefault(_name, _value)

from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from litft.config.leaves import told_leaves  # noqa: E402
from litft.data.store import MANIFEST_FILE  # noqa: E402
from litft.report.write import REPORT_FILE  # noqa: E402
from litft.train.log_csv import SAMPLES_FILE, SPIKES_FILE  # noqa: E402
from litft.train.loggers import Logger, Metrics, Start  # noqa: E402

EXPERIMENT = "litft"  # where MLFLOW_EXPERIMENT_NAME names no other
SECONDS = 5.0  # between two messages
LONGEST_WAIT = 600.0  # seconds, after failures
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 500  # Source: mlflow.org, REST API, runs/log-batch


class MLflowLogger(Logger):
    """Metrics, settings as parameters, hashes as tags; summary, samples and checkpoint as artifacts."""

    errors = (MlflowException, OSError)

    def __init__(self, start: Start) -> None:
        """Begins a run, or goes on with the one of this folder."""
        self._start, self._client = start, MlflowClient()
        self._waiting: list[Metric] = []
        self._sent: set[tuple[str, int]] = set()
        self._wait, self._next = SECONDS, time.monotonic()
        known = start.known_id("mlflow")
        self._run_id = known or self._create()
        if known:
            self._client.update_run(known, status="RUNNING")
            self._sent = set(self._told_before())
        start.keep_id("mlflow", self._run_id)

    def log(self, metrics: Metrics) -> None:
        """Keeps the numbers, and sends those so far if it is time to."""
        now = int(time.time() * 1000)
        for name, number in metrics.numbers().items():
            key = re.sub(r"[^\w\-. :/]", "_", name)
            if (key, metrics.step) not in self._sent:
                self._sent.add((key, metrics.step))
                self._waiting.append(Metric(key, number, now, metrics.step))
        if time.monotonic() >= self._next:
            self._send()

    def close(self, final: Path | None, summary: Mapping[str, Any]) -> None:
        """Sends what is left and ends the run."""
        self._send()
        if final is not None:
            files = ("summary.json", "run.yaml", SAMPLES_FILE, SPIKES_FILE, REPORT_FILE)
            for path in (*(self._start.out_dir / name for name in files), self._start.data_dir / MANIFEST_FILE):
                if path.exists():
                    self._client.log_artifact(self._run_id, str(path))
            if self._start.sends(final):
                self._client.log_artifacts(self._run_id, str(final), final.name)
        self._client.set_terminated(self._run_id, "KILLED" if final is None else "FINISHED")

    def _send(self) -> None:
        """Sends all that waits; after a failure it waits twice as long as before."""
        self._wait = min(self._wait * 2, LONGEST_WAIT)
        try:
            while self._waiting:
                self._client.log_batch(self._run_id, metrics=self._waiting[:MOST_METRICS])
                del self._waiting[:MOST_METRICS]
            self._wait = SECONDS
        finally:
            self._next = time.monotonic() + self._wait

    def _create(self) -> str:
        """Begins a run with its settings and gives its id."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run_id: str = self._client.create_run(experiment, run_name=str(self._start.out_dir)).info.run_id
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in told_leaves(self._start.settings)]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + MOST_PARAMS])
        self._client.log_batch(run_id, tags=[RunTag(f"sha256.{name}", own) for name, own in self._start.hashes.items()])
        return run_id

    def _told_before(self) -> Iterator[tuple[str, int]]:
        """Gives name and step of each number that the server has."""
        for name in self._client.get_run(self._run_id).data.metrics:
            yield from ((name, metric.step) for metric in self._client.get_metric_history(self._run_id, name))
