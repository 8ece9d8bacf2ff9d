#!/bin/sh
# Make .venv with the given Python, unless there is a whole one.
set -eu

python=$1
if [ -x .venv/bin/pip ] && .venv/bin/python -c ''; then
    exit 0
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; $python is not. Name one: make PYTHON=/path/of/python3" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$(dirname "$0")/apt-install.sh" python3-venv
    if ! "$python" -c 'import ensurepip, venv'; then
        echo "$python cannot make virtual environments: install its venv package" >&2
        exit 1
    fi
fi
"$python" -m venv --clear .venv
