#!/usr/bin/env bash
# The one test command: style, types, walls between rooms, tests. Arguments go to pytest.
#   ./test.sh              everything that is fast
#   ./test.sh -m slow      the slow tests instead
set -euo pipefail
cd "$(dirname "$0")"
ruff check .
ruff format --check .
mypy
lint-imports
export PYTHONWARNDEFAULTENCODING=1
# Dozens of processes start; where no bytecode is kept, each compiles every module anew.
unset PYTHONDONTWRITEBYTECODE
exec python -m pytest -n auto --dist loadfile "$@"
