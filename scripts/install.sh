#!/usr/bin/env bash
# Install what the locks say, and nothing when it is there already; main.sh and the images use this recipe.
#
#   scripts/install.sh [cuda|cpu] [dev]              without a device: cuda where nvidia-smi answers, else cpu
#   scripts/install.sh quantize-cuda|quantize-cpu    the quantizer's packages, into .venv-quantize
#   scripts/install.sh release                       the tools of scripts/release.sh, into .venv-release
#   scripts/install.sh clients                       the clients that tests run, into .venv-clients
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

sets=()
for set in "$@"; do
    case $set in
        cuda | cpu | dev) sets+=("$set") ;;
        quantize-cuda | quantize-cpu | release | clients)
            [[ -x .venv/bin/uv ]] || make_venv ""
            make_own_venv "$set"
            install "$set"
            exit
            ;;
        *) die "'$set': allowed are cuda, cpu, dev, quantize-cuda, quantize-cpu, release, clients" ;;
    esac
done
[[ " ${sets[*]} " == *" cuda "* || " ${sets[*]} " == *" cpu "* ]] || sets=("$(device)" "${sets[@]}")
for set in "${sets[@]}"; do
    [[ $set == dev ]] || make_venv "$set"
done
install "${sets[@]}"
