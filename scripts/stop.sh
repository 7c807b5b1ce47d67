#!/usr/bin/env bash
# End the server of this checkout and every engine process of it; of no other checkout. Turns that run are given
# DRAIN_TIMEOUT_S to end; a server that has not ended STOP_TIMEOUT_S after it was told is killed.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

drain=${DRAIN_TIMEOUT_S:-20}
patience=${STOP_TIMEOUT_S:-$((${drain%%.*} + 40))} # two engines take up to 15 s each to shut down
found=0
if pid=$(server_pid); then
    found=1
    say "stopping the server (pid $pid)"
    touch "$RUN_DIR/server.stopping" # main.sh, where it follows the log, knows that this was meant
    # The server alone is told: it lets running turns end and shuts its engines down itself.
    kill -TERM "$pid" 2>/dev/null || true
    limit=$((SECONDS + patience))
    while owns "$pid" && ((SECONDS < limit)); do sleep 0.1; done
    if owns "$pid"; then
        say "not ended after $patience s: killing it"
        kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
    fi
fi
# What the server leaves on purpose ends by itself in a moment; what does not is killed.
for ((try = 0; found && try < 20; try++)); do
    [[ -n $(leftovers) ]] || break
    sleep 0.1
done
[[ -z $(leftovers) ]] || found=1
end_leftovers
rm -f "$RUN_DIR/server.pid" "$RUN_DIR/server.address"
if ((found)); then say "stopped"; else say "no server of this checkout is running"; fi
