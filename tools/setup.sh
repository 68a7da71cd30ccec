#!/usr/bin/env bash
# Installs what building or testing Valv needs and is not there yet. Usage: tools/setup.sh build|test
set -euo pipefail
cd "$(dirname "$0")/.."

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

updated=
apt_update() {
    [ -n "$updated" ] || as_root apt-get update -qq
    updated=1
}

apt_install() {
    local wanted
    wanted=$(missing "$@")
    [ -n "$wanted" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "please install: $wanted" >&2
        exit 1
    fi
    apt_update
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
}

# nginx is unpacked, not installed: an installed one would start at every boot of a developer's machine.
fetch_nginx() {
    local folder=$1
    if command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || [ -x "$folder/usr/sbin/nginx" ]; then return 0; fi
    command -v apt-get >/dev/null || return 0
    apt_update
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -qq nginx >/dev/null && dpkg -x nginx_*.deb . && rm nginx_*.deb)
}

# A virtual environment for each list of requirements; a changed list makes a new one.
make_venv() {
    local list=$1 venv
    venv=$(tools/venv-path.sh "$list")
    [ -e "$venv/.complete" ] && return 0
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list"
    touch "$venv/.complete"
}

case "${1:-}" in
build)
    apt_install build-essential pkg-config clang libclang-dev
    command -v cargo >/dev/null || {
        echo "cargo is missing: install Rust 1.95 or later with rustup" >&2
        exit 1
    }
    ;;
test)
    apt_install curl openssl python3 python3-venv rclone restic s3cmd
    fetch_nginx "$(tools/venv-path.sh --cache)/valv-nginx"
    make_venv tests/requirements.txt
    make_venv tests/requirements-older-sdk.txt
    ;;
*)
    echo "usage: $0 build|test" >&2
    exit 2
    ;;
esac
