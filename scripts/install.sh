#!/usr/bin/env bash
# Install what the locks say into .venv, and nothing when it is there already; main.sh and the images do it by this recipe.
#
#   scripts/install.sh [cuda|cpu] [dev]      without a device: cuda where nvidia-smi answers, else cpu
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

sets=()
for set in "$@"; do
    case $set in
        cuda | cpu | dev) sets+=("$set") ;;
        *) die "'$set': allowed are cuda, cpu, dev" ;;
    esac
done
[[ " ${sets[*]} " == *" cuda "* || " ${sets[*]} " == *" cpu "* ]] || sets=("$(device)" "${sets[@]}")
for set in "${sets[@]}"; do
    [[ $set == dev ]] || make_venv "$set"
done
install "${sets[@]}"
