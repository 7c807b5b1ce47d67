#!/usr/bin/env bash
# End the server of this checkout and every engine process of it, of no other checkout; then clean up.
#
#   NUKE_ALL=0 scripts/stop.sh          end the server, remove nothing
#   scripts/stop.sh                     also remove what this checkout installed, made and cached
#   NUKE_ALL=home scripts/stop.sh       also clear the user's Hub, torch, vLLM, triton, pip, uv and NVIDIA caches
#   scripts/stop.sh --dry-run           print what would go and what is kept, and do nothing
#
# Kept in every mode: database, secrets, keys, the logs of the last run, the Hub login. Running turns get
# DRAIN_TIMEOUT_S to end; a server that runs STOP_TIMEOUT_S after the signal is killed.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/server.sh
source scripts/server.sh

dry=0
for word in "$@"; do
    case $word in
        -h | --help)
            usage
            exit 0
            ;;
        --dry-run) dry=1 ;;
        *) die "'$word': allowed is --dry-run" ;;
    esac
done
load_env
clean=()
case ${NUKE_ALL:-1} in
    0 | false | no) ;;
    1 | true | yes) clean=(checkout) ;;
    home) clean=(checkout home) ;;
    *) die "NUKE_ALL=$NUKE_ALL: allowed are 0, 1, home" ;;
esac

stop_server() {
    local drain=${DRAIN_TIMEOUT_S:-20} patience pid limit killed found=0
    patience=${STOP_TIMEOUT_S:-$((${drain%%.*} + 40))} # two engines take up to 15 s each to shut down
    if pid=$(server_pid); then
        found=1
        say "stopping the server (pid $pid)"
        touch "$RUN_DIR/server.stopping" # main.sh, where it follows the log, reads that the end was asked for
        # The signal goes to the server alone: it lets running turns end and shuts its engines down itself.
        kill -TERM "$pid" 2>/dev/null || true
        limit=$((SECONDS + patience))
        while owns "$pid" && ((SECONDS < limit)); do sleep 0.1; done
        if owns "$pid"; then
            say "not ended after $patience s: killing it"
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
        fi
    fi
    # The guard of the engines ends by itself in a moment.
    killed=$(end_leftovers $((2 * found))) || die "some processes of this checkout do not end"
    if ((killed)); then
        found=1
        say "ended $killed processes left behind"
    fi
    rm -f "$RUN_DIR/server.pid" "$RUN_DIR/server.address"
    if ((found)); then say "stopped"; else say "no server of this checkout is running"; fi
}

if ((dry)); then
    if pid=$(server_pid); then say "would stop the server (pid $pid)"; else say "no server of this checkout is running"; fi
else
    stop_server
fi
((${#clean[@]})) || exit 0
# A Python from outside: the environment that is removed cannot run the removal.
python=$(find_python) || python=$(require_python)
((dry == 0)) || clean+=(--dry-run)
export RUN_DIR
TEMPORARY_FOLDER=$(temporary_folder) exec "$python" scripts/deep_clean.py "${clean[@]}"
