#!/usr/bin/env bash
# Makes or refreshes the project's virtualenv, and prints its path as the last line.
# Does nothing when pyproject.toml has not changed since. VIRTBACKUP_VENV names another place.
# `venv.sh --python` only prints which Python it would use.
set -euo pipefail

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly PROJECT
readonly VENV=${VIRTBACKUP_VENV:-$PROJECT/.venv}
readonly CANDIDATES=(python3.14 python3.13 python3.12 python3.11 python3 /usr/bin/python3)

pick_python() { # the first that runs (a version manager's stub may not) and is new enough
    local python
    for python in "${CANDIDATES[@]}"; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    echo "venv: no Python 3.11 or newer found" >&2
    return 2
}

content_key() { # the dependencies, and the place: a moved virtualenv does not work
    { cat "$PROJECT/pyproject.toml" && echo "$VENV" "$PROJECT"; } | sha256sum
}

refresh() {
    local python
    python=$(pick_python)
    echo "venv: installing into $VENV with $python" >&2
    "$python" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -e "${PROJECT}[dev]" >&2
    content_key >"$VENV/content-key"
}

if [ "${1:-}" = --python ]; then
    pick_python
    exit
fi
if [ "$(cat "$VENV/content-key" 2>/dev/null)" != "$(content_key)" ]; then
    refresh
fi
echo "$VENV"
