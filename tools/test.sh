#!/usr/bin/env bash
# Everything that has to pass. Every stage runs even if an earlier one failed, so that one run tells all there is to
# mend; the end-to-end tests need the build.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
stage() {
    local name=$1
    shift
    echo "== $name: $*"
    local began=$SECONDS
    "$@" || failed+=("$name")
    echo "== $name took $((SECONDS - began)) s"
}

stage format cargo fmt --all --check
stage build cargo build --release -p valv
stage lints cargo clippy --release --workspace --all-targets -- -D warnings
stage rust cargo test --release --workspace --no-fail-fast
stage end-to-end tools/pytest.sh tests/e2e

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo "all stages passed"
