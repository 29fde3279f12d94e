#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lint, types, tests.
# usage: bash tools/check.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
make_environment requirements.txt requirements-dev.txt
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
echo "== ruff" && ruff check . && ruff format --check .
echo "== mypy" && mypy
echo "== pytest"
python -m pytest -m "not gpu" -n 2 --dist loadscope --timeout 600 --durations 15 -q \
    --hypothesis-profile=repeatable "$@"
if [ $# -eq 0 ]; then
    echo "== benchmarks" && python -m benchmarks --quick
fi
