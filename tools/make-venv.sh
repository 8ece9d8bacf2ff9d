#!/bin/sh
# Create a virtual environment with the given Python, unless a working one exists.
#   tools/make-venv.sh PYTHON FOLDER
set -eu

python=$1 venv=$2
if [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c ''; then
    exit 0
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed, and $python is older. Choose another: make PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$(dirname "$0")/apt-install.sh" python3-venv
    if ! "$python" -c 'import ensurepip, venv'; then
        echo "$python cannot create virtual environments. Install its venv package." >&2
        exit 1
    fi
fi
"$python" -m venv --clear "$venv"
