#!/bin/sh
# Usage: sh deploy/install.sh VENV LOCK
# Makes a virtual environment of Python 3.11 that holds exactly what the lock file names, with uv or with pip alone.
set -eu
venv=$1
lock=$2

find_python() {
    for candidate in python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "Python 3.11 is needed and was not found (looked for python3.11, python3 and python)" >&2
    exit 1
}

python=$(find_python)
rm -rf "$venv"
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python "$python" "$venv"
    VIRTUAL_ENV=$venv uv pip sync --quiet --require-hashes "$lock"
else
    # Without its own pip, because Debian ships the module that would put one there in a package of its own.
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement "$lock"
fi
