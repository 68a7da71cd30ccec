#!/usr/bin/env bash
# `valv bench` against a server of its own on a folder of its own, which is removed afterwards.
# VALV_BENCH_DIR chooses the file system; arguments go to `valv bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
valv=$(realpath "${CARGO_TARGET_DIR:-target}/release/valv")
folder=$(mktemp -d "${VALV_BENCH_DIR:-${TMPDIR:-/tmp}}/valv-bench.XXXXXX")
export VALV_ACCESS_KEY_ID=VALVBENCHACCESSKEY01 VALV_SECRET_ACCESS_KEY=bench-secret-0123456789-abcdefghijk
"$valv" server --data "$folder/data" --listen 127.0.0.1:0 >"$folder/out" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 300); do
    grep -q '^endpoint = ' "$folder/out" && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
endpoint=$(sed -n 's/^endpoint = //p' "$folder/out" | head -1)
"$valv" bench --endpoint "$endpoint" --server-pid "$server" "$@"
