#!/usr/bin/env bash
# Wait until the server is ready, then run the warm-up client twice and the bench client twice with as many sessions as
# there are places. For an operator who wants figures; a server needs no warm-up of this kind.
#
#   scripts/warmup.sh [options of the clients]      for example --persona mia
#
# The server is the one at HOST and PORT; its key is TEXT_API_KEY, else the demo's. WARMUP_TIMEOUT_S (1200) bounds the
# wait. What the clients print is in .run/warmup.log too.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/server.sh
source scripts/server.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
load_env
[[ -x .venv/bin/python ]] || die "nothing is installed here: scripts/main.sh does it"
url=$(cat "$RUN_DIR/server.address" 2>/dev/null) || url=$(server_url)
if [[ -z ${TEXT_API_KEY:-} ]]; then
    key_file=${TEXT_API_KEY_FILE:-$RUN_DIR/demo.key}
    [[ -s $key_file ]] || die "TEXT_API_KEY is not set, and there is no $RUN_DIR/demo.key"
    TEXT_API_KEY=$(<"$key_file")
fi
export TEXT_API_KEY

limit=$((SECONDS + ${WARMUP_TIMEOUT_S:-1200}))
say "waiting until $url is ready"
until answer=$(readyz "$url"); do
    ((SECONDS < limit)) || die "$url is not ready after ${WARMUP_TIMEOUT_S:-1200} s: $answer"
    sleep 1
done

places=${MAX_CONCURRENT_CONNECTIONS:-8}
log=$RUN_DIR/warmup.log
: >"$log"
run() { # run CLIENT OPTIONS…
    say "$*"
    .venv/bin/python "tests/clients/$1.py" --server "ws://$url/ws" "${@:2}" </dev/null 2>&1 | tee -a "$log"
}
for _ in 1 2; do run warmup "$@"; done
for _ in 1 2; do run bench -n "$places" -c "$places" "$@"; done
say "done; the output is in $log"
