#!/usr/bin/env bash
# Start the server again with the settings of its last start. A running server is drained and replaced.
#
#   scripts/restart.sh [both|chat|tool] [--push] [--install-deps | --no-install-deps]
#
# The environment and .env win over the record of the last start (.run/last_start.json, no secrets in it). Secrets come
# from the environment, from .env or from NAME_FILE. Packages are installed only with --install-deps. `--push` pushes
# 4-bit exports to the Hub. TAIL=0 returns when the server is ready.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/server.sh
source scripts/server.sh

deploy=() push=() install=0
for word in "$@"; do
    case $word in
        -h | --help)
            usage
            exit 0
            ;;
        both | chat | tool)
            ((${#deploy[@]} == 0)) || die "'$word': one of both, chat, tool is enough"
            deploy=("$word")
            ;;
        --push) push=(--push) ;;
        --install-deps) install=1 ;;
        --no-install-deps) install=0 ;;
        *) die "'$word': allowed are both, chat, tool, --push, --install-deps, --no-install-deps" ;;
    esac
done
load_env
export RUN_DIR
python=$(require_python) || exit 1
recorded_awq=0
exports=$("$python" scripts/last_start.py exports "${deploy[@]}") || exit 1
eval "$exports"
form=()
[[ $recorded_awq == 0 ]] || form=(awq)
[[ $recorded_awq == 1 || ${#push[@]} == 0 ]] || die "--push pushes 4-bit exports; the last start had none"

# -- everything that can fail is checked while the old server still serves -------------------------------------------

device=$(device)
state=installed
if ! installed "$device"; then
    ((install)) || die "the installed packages are not those of the locks: scripts/restart.sh --install-deps installs them"
    state=fresh
fi
kind=demo
for role in CHAT TOOL; do
    [[ ${DEPLOY_MODELS:-both} == both || ${DEPLOY_MODELS:-both} == "${role,,}" ]] || continue
    given=AWQ_${role}_MODEL float=${role}_MODEL
    [[ -z ${!given:-${!float:-}} ]] || kind=named
done
"$python" scripts/preflight.py "$device" "$kind" "$state" --running "${form[@]/#/--}" "${push[@]}" || exit 1

NUKE_ALL=0 scripts/stop.sh
exec scripts/main.sh "${form[@]}" "${push[@]}"
