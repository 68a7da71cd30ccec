#!/usr/bin/env bash
# Runs pytest in the tests' virtual environment, against the release binary.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
VALV_BIN=${VALV_BIN:-$(realpath "$target/release/valv")}
VALV_OLDER_SDK_PYTHON=$(tools/venv-path.sh tests/requirements-older-sdk.txt)/bin/python
VALV_NGINX=$(command -v nginx || ls /usr/sbin/nginx "$(tools/venv-path.sh --cache)/valv-nginx/usr/sbin/nginx" 2>/dev/null | head -1 || true)
export VALV_BIN VALV_OLDER_SDK_PYTHON VALV_NGINX
venv=$(tools/venv-path.sh tests/requirements.txt)
export PATH="$venv/bin:$PATH"
exec "$venv/bin/python" -m pytest -c tests/pytest.ini "$@"
