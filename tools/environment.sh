# Sourced by demo.sh and check.sh: makes .venv and installs the project into it, once.
# usage: source tools/environment.sh [requirements files]

make_environment() {
    local python=${PYTHON:-python3} stamp=.venv/installed wanted
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: Python 3.10 or newer is needed; name one with PYTHON=python3.11 $0" >&2
        exit 2
    }
    wanted=$(cat setup.py "$@" | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "== making .venv and installing (a few minutes the first time)"
        if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv 2>/dev/null; then
            # A Python without ensurepip: pip alone can still make an environment.
            rm -rf .venv
            "$python" -m pip install --quiet --target .venv-bootstrap virtualenv
            PYTHONPATH=.venv-bootstrap "$python" -m virtualenv --quiet .venv
        fi
        local files=() file
        for file in "$@"; do files+=(-r "$file"); done
        # torch first and alone: a resolver that sees it late may fetch another build
        .venv/bin/python -m pip install --quiet "$(grep '^torch==' requirements.txt)"
        .venv/bin/python -m pip install --quiet "${files[@]}"
        .venv/bin/python -m pip install --quiet --no-deps --editable .
        echo "$wanted" >"$stamp"
    fi
    PATH=$PWD/.venv/bin:$PATH
    export PATH
}
