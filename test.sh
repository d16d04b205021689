#!/usr/bin/env bash
# The one test command: style, types, walls between rooms, tests. Arguments go to pytest.
#   ./test.sh              everything that is fast
#   ./test.sh -m slow      the slow tests instead
set -euo pipefail
cd "$(dirname "$0")"
ruff check .
ruff format --check .
lint-imports
# Types are checked beside the tests; what is wrong is printed after them.
types=$(mktemp)
trap 'rm -f "$types"' EXIT
mypy >"$types" 2>&1 &
checking=$!
export PYTHONWARNDEFAULTENCODING=1
# A worker a core: threads of BLAS in each would wait for each other, in loops that take the cores.
export OPENBLAS_NUM_THREADS=1
# Dozens of processes start; where no bytecode is kept, each compiles every module anew.
unset PYTHONDONTWRITEBYTECODE
failed=0
python -m pytest -n auto --dist loadfile "$@" || failed=$?
if ! wait "$checking"; then
  cat "$types"
  failed=1
fi
exit "$failed"
