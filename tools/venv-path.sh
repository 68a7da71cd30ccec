#!/usr/bin/env bash
# Prints where the virtual environment for a list of requirements is; with --cache, the folder that holds them all.
set -euo pipefail
cache=${VALV_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}}
[ "$1" = --cache ] && { echo "$cache"; exit; }
echo "$cache/valv-venv-$(cat "$1" <(python3 --version) | sha256sum | cut -c1-12)"
