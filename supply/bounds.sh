#!/usr/bin/env bash
# The core of the suite twice: with the lowest versions that pyproject.toml allows and with the newest that resolve, each
# in an environment of its own. `bounds.sh lowest` does one. Torch alone may fetch gigabytes.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv-supply/bin/uv}
extras=export,parquet,bitsandbytes,datasets,tensorboard,wandb,mlflow,mix,serve

# What needs a newer torch or transformers than the lowest, and says so itself, is skipped by the tests.
core="tests/unit/test_training.py tests/unit/test_saving.py tests/unit/test_optim.py tests/unit/test_packing.py
  tests/unit/test_convert.py tests/unit/test_checkpoint_files.py tests/unit/test_export_hf.py tests/unit/test_export_peft.py
  tests/unit/test_prepare.py tests/unit/test_tokenizer.py tests/unit/test_chat_template.py tests/unit/test_quantize.py
  tests/unit/test_parse.py tests/unit/test_yaml.py tests/unit/test_loggers.py tests/unit/test_terminal.py
  tests/unit/test_lora_variants.py tests/unit/test_engine.py tests/unit/test_serve.py tests/unit/test_serve_openai.py
  tests/unit/test_serve_challenge.py tests/unit/test_serve_hostile.py tests/contracts/test_bad_input.py
  tests/contracts/test_bad_weights.py tests/contracts/test_bad_data.py tests/parity"

run() {
  local python=.venv-$1/bin/python
  $uv venv --quiet --allow-existing --python "${2:-python3}" ".venv-$1"
  $uv pip install --quiet --python "$python" --resolution "$3" --editable ".[$extras]"
  $uv pip install --quiet --python "$python" pytest pytest-socket pytest-xdist hypothesis openai mypy types-PyYAML
  OMP_NUM_THREADS=1 "$python" -m pytest -n auto -p no:cacheprovider $core
}

case ${1:-both} in
  lowest) run lowest "${PYTHON:-}" lowest-direct ;;
  newest) run newest "${PYTHON:-}" highest ;;
  both) run lowest "${PYTHON:-}" lowest-direct && run newest "${PYTHON:-}" highest ;;
  *) echo "bounds.sh lowest | newest | both" >&2 && exit 2 ;;
esac
