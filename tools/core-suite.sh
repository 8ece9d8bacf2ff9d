#!/bin/sh
# Run the core suite against the wheel in dist, in a new virtual environment away from the checkout.
#   tools/core-suite.sh PYTHON [options for pip]
set -eu

python=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
unset PYTHONPATH

"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    "$(echo dist/*.whl)[redis,test]" "$@"
cp -R tests setup.cfg "$work"
cd "$work"
venv/bin/python -c '
import flask_devkit_sso, sys
assert flask_devkit_sso.__file__.startswith(sys.prefix), flask_devkit_sso.__file__'
venv/bin/python -m pytest -n 4 --dist loadgroup -m "not browser and not checkout and not slow"
