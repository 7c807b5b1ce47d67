#!/usr/bin/env bash
# Set everything up and serve, in the background; then follow the log (Ctrl+C ends only that).
#
#   scripts/main.sh                                            the demo model
#   scripts/main.sh [awq] <chat_model> <tool_model> [both|chat|tool]
#   scripts/main.sh [awq] chat <chat_model>
#   scripts/main.sh [awq] tool <tool_model>
#
# A model is a folder or a Hub id; `awq` says that it is quantized with AWQ. HOST (127.0.0.1) and PORT (8000) say where
# to listen. With models named, TEXT_API_KEY and MAX_CONCURRENT_CONNECTIONS are required, and HF_TOKEN for Hub models.
# TAIL=0 returns when the server is ready. scripts/stop.sh ends it.
set -euo pipefail
CALLER=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
trap 'say "scripts/main.sh failed in line $LINENO" >&2' ERR

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/main.sh
}

# -- arguments → the environment the server reads --------------------------------------------------------------------

name_model() { # name_model CHAT|TOOL MODEL: what the arguments say wins over the environment
    [[ -n $2 && $2 != -* ]] || die "'$2' is no model: see scripts/main.sh --help"
    local model=$2
    [[ $model == /* || ! -d $CALLER/$model ]] || model=$(readlink -f "$CALLER/$model")
    export "$1_MODEL=" "AWQ_$1_MODEL="
    export "$prefix$1_MODEL=$model"
}

case ${1:-} in -h | --help)
    usage
    exit 0
    ;;
esac
prefix=""
if [[ ${1:-} == awq ]]; then
    prefix=AWQ_
    shift
    (($# > 0)) || die "awq needs a model: see scripts/main.sh --help"
fi
if [[ ${1:-} == chat || ${1:-} == tool ]]; then
    (($# == 2)) || die "'$1' takes exactly one model: see scripts/main.sh --help"
    export DEPLOY_MODELS=$1
    name_model "${1^^}" "$2"
elif (($# == 2 || $# == 3)); then
    case ${3:-both} in
        both | chat | tool) export DEPLOY_MODELS=${3:-both} ;;
        *) die "'$3': allowed are both, chat, tool" ;;
    esac
    name_model CHAT "$1"
    name_model TOOL "$2"
elif (($# != 0)); then
    die "one chat and one tool model are needed, or 'chat <model>', or 'tool <model>': see scripts/main.sh --help"
fi
export DEPLOY_MODELS=${DEPLOY_MODELS:-both} HOST=${HOST:-127.0.0.1} PORT=${PORT:-8000} DEBUG=${DEBUG:-0} RUN_DIR
DEPLOY_MODELS=${DEPLOY_MODELS,,}
case $DEPLOY_MODELS in both | chat | tool) ;; *) die "DEPLOY_MODELS=$DEPLOY_MODELS: allowed are both, chat, tool" ;; esac

model_of() { # model_of CHAT|TOOL: its name, empty for the demo model
    local awq=AWQ_$1_MODEL plain=$1_MODEL
    printf '%s' "${!awq:-${!plain:-}}"
}
demo=1 needs_demo=0
for role in CHAT TOOL; do
    [[ $DEPLOY_MODELS == both || $DEPLOY_MODELS == "${role,,}" ]] || continue
    if [[ -n $(model_of "$role") ]]; then demo=0; else needs_demo=1; fi
done

# -- everything cheap first ------------------------------------------------------------------------------------------

address=$HOST
case $HOST in 0.0.0.0 | "*") address=127.0.0.1 ;; ::) address=::1 ;; esac
url=$address:$PORT
[[ $address != *:* ]] || url="[$address]:$PORT"

[[ $(uname -s) == Linux ]] || die "Yap serves on Linux; the clients in tests/clients run here too"
(umask 077 && mkdir -p "$RUN_DIR" && [[ -w $RUN_DIR ]]) || die "$RUN_DIR cannot be written"
for tool in flock setsid; do
    command -v "$tool" >/dev/null || die "$tool is missing (package util-linux)"
done
exec 9>"$RUN_DIR/main.lock"
flock -n 9 || die "another main.sh of this checkout is starting the server right now"
if pid=$(server_pid); then
    die "a server of this checkout is already running (pid $pid) at $(cat "$RUN_DIR/server.address" 2>/dev/null || echo "$url"); scripts/stop.sh ends it"
fi
device=$(device)
python=$(require_python) || exit 1
state=fresh
! installed "$device" || state=installed
kind=named
((demo == 0)) || kind=demo
"$python" scripts/preflight.py "$device" "$kind" "$state" || exit 1

# -- install and prepare ---------------------------------------------------------------------------------------------

began=$SECONDS
step() { say "[$((SECONDS - began)) s] $*"; }

if [[ $state == fresh ]]; then
    step "installing ($device); this is done once"
    make_venv "$device"
    install "$device"
fi
if ((needs_demo)) && [[ ! -f $DEMO_MODEL/config.json ]]; then
    step "preparing the demo model; this is done once"
    .venv/bin/python scripts/demo_model.py "$DEMO_MODEL" >/dev/null || exit 1
fi
if ((demo)); then
    export MAX_CONCURRENT_CONNECTIONS=${MAX_CONCURRENT_CONNECTIONS:-8}
    if [[ $device == cpu && -z ${TOOL_HARD_TIMEOUT_MS:-} ]]; then
        export TOOL_HARD_TIMEOUT_MS=-1
        say "no GPU here: the tool decision may take longer than 300 ms, so TOOL_HARD_TIMEOUT_MS=-1 (wait for it)"
    fi
    if [[ -z ${TEXT_API_KEY:-} ]]; then
        key_file=$RUN_DIR/demo.key
        if [[ ! -s $key_file ]]; then
            (umask 077 && .venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(24))' >"$key_file.new")
            mv "$key_file.new" "$key_file"
            say "key: $(<"$key_file") (shown this once; kept in $key_file)"
        fi
        TEXT_API_KEY=$(<"$key_file")
        export TEXT_API_KEY
    fi
fi
step "preparing the database"
.venv/bin/python scripts/prepare.py || exit 1

# -- start -----------------------------------------------------------------------------------------------------------

end_leftovers
export LOG_FILE=$RUN_DIR/server.log
touch "$LOG_FILE" && chmod 600 "$LOG_FILE"
log_from=$(($(wc -c <"$LOG_FILE") + 1)) # what this start writes begins here
step "starting the server: $DEPLOY_MODELS, $device"
# SPT_NOENV: engine processes rename themselves and would write over the very memory the mark is read from.
YAP_CHECKOUT=$ROOT SPT_NOENV=1 setsid .venv/bin/python manage.py serve </dev/null >>"$LOG_FILE" 2>&1 9>&- &
pid=$!
echo "$pid" >"$RUN_DIR/server.pid"
echo "$url" >"$RUN_DIR/server.address"
rm -f "$RUN_DIR/server.stopping"

this_log() { tail -c "+$log_from" "$LOG_FILE" 2>/dev/null; }
last_line() { { this_log | grep -vE '^[[:space:]]*$|django.request' || true; } | tail -n 1 | tr -d '\r' | cut -c1-"${1:-160}"; }
alive() { kill -0 "$pid" 2>/dev/null && [[ $(cut -d' ' -f3 <"/proc/$pid/stat" 2>/dev/null) != Z ]]; }

readyz() { # prints the answer of /readyz, status line first; empty while nothing listens
    local line in_body=0
    { exec 8<>"/dev/tcp/$address/$PORT"; } 2>/dev/null || return 0
    printf 'GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$url" >&8 || true
    while IFS= read -r -t 3 line <&8 || [[ -n $line ]]; do
        line=${line%$'\r'}
        if [[ $line == HTTP/* || $in_body == 1 ]]; then printf '%s\n' "$line"; fi
        [[ -n $line ]] || in_body=1
        line=""
    done
    exec 8>&-
}

give_up() { # give_up MESSAGE: the log's end, the reason, and out
    printf '\n' >&2
    this_log | tail -n 25 >&2
    die "$*"
}

trap 'printf "\n"; say "still starting in the background (pid $pid); its log is $LOG_FILE, scripts/stop.sh ends it"; exit 130' INT
shown=-10 unwell=0
while :; do
    answer=$(readyz 2>/dev/null || true)
    [[ $answer != "HTTP/"*" 200"* ]] || break
    if ! alive; then
        rm -f "$RUN_DIR/server.pid"
        reason=$(this_log | grep -E '^yap: |Error|error:|refused' | tail -n 1 | cut -c1-300 || true)
        give_up "the server ended while starting: ${reason:-$(last_line 300)}"
    fi
    # Loading is what a start does; any other reason that stays is one that will not go away by waiting.
    doing=$(sed -n 's/.*"reason": *"\([^"]*\)".*/\1/p' <<<"$answer")
    case $doing in
        "" | *loading* | *starting*) unwell=0 ;;
        *) ((++unwell < 5)) || give_up "the server cannot get ready: $doing; scripts/stop.sh ends it" ;;
    esac
    ((SECONDS - began < ${READY_TIMEOUT_S:-3600})) || give_up "not ready after ${READY_TIMEOUT_S:-3600} s; scripts/stop.sh ends the server"
    last=$(last_line)
    doing=${doing:-starting}${last:+ | $last}
    if [[ -t 1 ]]; then
        printf '\r\033[K%s' "$(cut -c1-"$(($(tput cols 2>/dev/null || echo 80) - 1))" <<<"yap: [$((SECONDS - began)) s] $doing")"
    elif ((SECONDS - shown >= 10)); then
        step "$doing"
        shown=$SECONDS
    fi
    if ((SECONDS - began < 10)); then sleep 0.2; else sleep 1; fi
done
[[ ! -t 1 ]] || printf '\r\033[K'
exec 9>&-

# -- ready -----------------------------------------------------------------------------------------------------------

step "ready (pid $pid)"
say "WebSocket: ws://$url/ws"
say "admin:     http://$url/admin/ (the account is named where it was made; manage.py changepassword sets a new password)"
if [[ -n ${key_file:-} ]]; then
    say "key:       in $key_file"
else
    say "key:       TEXT_API_KEY, or one made in the admin"
fi
say "log:       $LOG_FILE; scripts/stop.sh ends the server"
[[ ${TAIL:-1} != 0 ]] || exit 0
tail -n 0 -F --pid="$pid" "$LOG_FILE" 2>/dev/null &
tail_pid=$!
trap 'kill "$tail_pid" 2>/dev/null || true' EXIT
trap 'printf "\n"; say "the server keeps running (pid $pid); scripts/stop.sh ends it"; exit 0' INT TERM
wait "$tail_pid" || true
[[ ! -e $RUN_DIR/server.stopping ]] || exit 0
die "the server has ended by itself; its last line: $(last_line 300)"
