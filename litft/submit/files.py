"""The texts of a submission: two Dockerfiles, the script that trains, a README. Writes nothing.

Source: README.md and helm.md of the challenge's starter kit: one `Dockerfile`, a server on port 80, weights fetched at
build or run; whoever is shortlisted hands in a second one that trains.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from litft.config.submit import SubmitInitConfig
from litft.submit.data_steps import DataSteps

PORT = 80
WEIGHTS_DIR = "/weights"
WORK_DIR = "/submission"
LONGEST_RUN = "24h"


@dataclass(frozen=True)
class Parts:
    """What the texts are made of.

    Attributes:
        config: what the user asked for.
        base: ORG/NAME of the base.
        method: of the finetuning.
        name: of the run, for folders.
        image: the base image.
        device: the card that trained.
        hours: of the run.
        data: how the data comes.
    """

    config: SubmitInitConfig
    base: str
    method: str
    name: str
    image: str
    device: str
    hours: float
    data: DataSteps

    @property
    def served_dir(self) -> str:
        """The checkpoint that the image serves."""
        return self.config.weights_repo or WEIGHTS_DIR


def head(image: str, copied: Sequence[str]) -> list[str]:
    """Gives how both Dockerfiles begin: Python, a compiler for GPU kernels, the packages, litft."""
    return [
        f"FROM {image}",
        "RUN apt-get update \\",
        "    && apt-get install --yes --no-install-recommends gcc libc6-dev \\",
        "    && rm -rf /var/lib/apt/lists/*",
        f"WORKDIR {WORK_DIR}",
        "COPY requirements.txt ./",
        "RUN pip install --no-cache-dir --requirement requirements.txt",
        "COPY package ./package",
        "RUN pip install --no-cache-dir --no-deps ./package",
        *(f"COPY {name} ./" for name in copied),
    ]


def evaluation_dockerfile(parts: Parts) -> str:
    """Gives the Dockerfile that answers."""
    config, lines = parts.config, head(parts.image, ())
    if config.weights_repo:
        lines.append(f"RUN {download_line(config.weights_repo, config.weights_revision)}")
    else:
        lines.append(f"# Mount the merged checkpoint: docker run --volume FOLDER:{WEIGHTS_DIR}:ro")
    served = ["--checkpoint_dir", parts.served_dir, "--host", "0.0.0.0", "--port", str(PORT), *config.serve_flags()]
    words = ", ".join(f'"{word}"' for word in ("litft", "serve", *served))
    return _text([*lines, f"EXPOSE {PORT}", f"CMD [{words}]"])


def training_dockerfile(parts: Parts) -> str:
    """Gives the Dockerfile that trains."""
    sums = ("base.sha256", "data.sha256", *(["raw.sha256"] if parts.data.sums else []))
    copied = ("run.yaml", "manifest.yaml", *sums, "train.sh")
    return _text([*head(parts.image, copied), 'CMD ["sh", "train.sh"]'])


def train_script(parts: Parts) -> str:
    """Gives the script that trains: base, data, run, each checked before the next."""
    final = f"out/{parts.name}/final"
    lines = [
        "#!/bin/sh",
        "# Makes the model again: the base, the data, the run. A sum that differs ends it.",
        "set -eu",
        download_line(parts.base, parts.config.base_revision),
        "sha256sum --check base.sha256",
        *(["sha256sum --check raw.sha256"] if parts.data.sums else []),
        *parts.data.lines,
        "sha256sum --check data.sha256",
        f"timeout {LONGEST_RUN} litft finetune {parts.method} --config run.yaml",
        *([f"litft merge --checkpoint_dir {final}"] if parts.method == "lora" else []),
    ]
    return _text(lines)


def download_line(repo: str, revision: str | None) -> str:
    """Gives the command that fetches a model from the hub."""
    words = ["litft", "download", "--repo_id", repo, *(["--revision", revision] if revision else [])]
    return shlex.join(words)


def readme(parts: Parts) -> str:
    """Gives the page that goes with the files."""
    config, tag = parts.config, parts.name.lower()
    merged = f"out/{parts.name}/{'merged' if parts.method == 'lora' else 'final'}"
    fetched = (
        f"The image holds the weights of {config.weights_repo}"
        f"{' at ' + config.weights_revision if config.weights_revision else ''}, fetched when it is built."
        if config.weights_repo
        else f"The weights are mounted at {WEIGHTS_DIR}: the folder that `litft merge` wrote, or the end of a full run."
    )
    volume = "" if config.weights_repo else f'--volume "$PWD/weights:{WEIGHTS_DIR}:ro" '
    mounted = f'--volume "$PWD/{parts.data.needs[0]}:{WORK_DIR}/{parts.data.needs[0]}:ro" ' if parts.data.needs else ""
    brought = f"`{parts.data.needs[0]}/` must hold {parts.data.needs[1]}.\n\n" if parts.data.needs else ""
    return f"""# {parts.name}

{parts.base}, finetuned with litft ({parts.method}): {parts.hours:.2f} hours on {parts.device}. No weights are in this
folder. `package/` is the litft that trained and serves, `requirements.txt` all versions.

## Evaluation

{fetched}

```bash
docker build --tag {tag} .
docker run --rm --gpus all --publish 8080:{PORT} {volume}{tag}
```

It answers `/process`, `/tokenize` and `/decode` at port {PORT}. From another terminal:

```bash
litft submit check --url http://127.0.0.1:8080
HELM_HTTP_MODEL_BASE_URL=http://127.0.0.1:8080 helm-run --conf-paths run_specs_full_coarse_600_budget.conf --suite v1 \\
    --max-eval-instances 10 --num-threads 4
```

The weights come to the hub by `litft export hf` and `hf upload`; name them with `--weights_repo` then.

## Training

`run.yaml` has every setting, `manifest.yaml` every row's way into the data. Base and data are compared with
`base.sha256` and `data.sha256` before a step is made, and the run is stopped after {LONGEST_RUN}.

{brought}```bash
docker build --file Dockerfile.train --tag {tag}-train .
docker run --rm --gpus device=0 --env HF_TOKEN {mounted}--volume "$PWD/out:{WORK_DIR}/out" {tag}-train
```

`HF_TOKEN` is for a gated base. The model is in `{merged}` then.
"""


def _text(lines: list[str]) -> str:
    """Gives lines as a file."""
    return "\n".join(lines) + "\n"
