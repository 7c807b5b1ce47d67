#!/usr/bin/env bash
# Set everything up and serve, in the background; then follow the log (Ctrl+C ends only that).
#
#   scripts/main.sh                                            the demo model
#   scripts/main.sh [awq] <chat_model> <tool_model> [both|chat|tool]
#   scripts/main.sh [awq] both <chat_model> <tool_model>
#   scripts/main.sh [awq] chat <chat_model>
#   scripts/main.sh [awq] tool <tool_model>
#   scripts/main.sh awq [both|chat|tool]                       AWQ_CHAT_MODEL, AWQ_TOOL_MODEL as they are
#
# A model is a folder or a Hub id. `awq` serves 4-bit weights: float models are quantized here first, AWQ models are
# served as they are, and AWQ_CHAT_MODEL and AWQ_TOOL_MODEL win over the arguments. `--push` pushes the exports made
# here to the Hub (HF_AWQ_CHAT_REPO, HF_AWQ_TOOL_REPO). HOST (127.0.0.1) and PORT (8000) say where to listen. With
# models named, TEXT_API_KEY and MAX_CONCURRENT_CONNECTIONS are required, and HF_TOKEN for Hub models. TAIL=0 returns
# when the server is ready. NUKE_ALL=0 scripts/stop.sh ends the server; scripts/restart.sh starts it with the same
# settings again.
set -euo pipefail
CALLER=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh
# shellcheck source=scripts/server.sh
source scripts/server.sh
trap 'say "scripts/main.sh failed in line $LINENO" >&2' ERR

# -- arguments → the environment the server reads --------------------------------------------------------------------

awq=0 push=() words=()
for word in "$@"; do
    case $word in
        -h | --help)
            usage
            exit 0
            ;;
        --push) push=(--push) ;;
        *) words+=("$word") ;;
    esac
done
load_env
set -- "${words[@]}"
if [[ ${1:-} == awq ]]; then
    awq=1
    shift
fi
((awq || ${#push[@]} == 0)) || die "--push pushes exports that awq makes: see scripts/main.sh --help"

absolute() { # absolute MODEL: a folder relative to where the caller stands, by its full path; anything else as it is
    if [[ $1 != /* && -d $CALLER/$1 ]]; then readlink -f "$CALLER/$1"; else printf '%s\n' "$1"; fi
}

name_model() { # name_model CHAT|TOOL MODEL: the argument wins over the environment, except over AWQ_* with `awq`
    local given=AWQ_$1_MODEL
    [[ -n $2 && $2 != -* ]] || die "'$2' is no model: see scripts/main.sh --help"
    if ((awq)) && [[ -n ${!given:-} ]]; then
        say "$given=${!given} is served; the argument $2 is not used"
        export "$1_MODEL="
    else
        export "$1_MODEL=$(absolute "$2")" "$given="
    fi
}

case ${1:-} in
    chat | tool | both) 
        form=$1
        shift
        ;;
    *) form="" ;;
esac
case $form:$#:$awq in
    :0:*) ;;
    :2:* | :3:*)
        case ${3:-both} in
            both | chat | tool) export DEPLOY_MODELS=${3:-both} ;;
            *) die "'$3': allowed are both, chat, tool" ;;
        esac
        name_model CHAT "$1"
        name_model TOOL "$2"
        ;;
    both:2:*)
        export DEPLOY_MODELS=both
        name_model CHAT "$1"
        name_model TOOL "$2"
        ;;
    chat:1:* | tool:1:*)
        export DEPLOY_MODELS=$form
        name_model "${form^^}" "$1"
        ;;
    chat:0:1 | tool:0:1 | both:0:1) export DEPLOY_MODELS=$form ;;
    both:*) die "'both' takes one chat and one tool model: see scripts/main.sh --help" ;;
    chat:* | tool:*) die "'$form' takes exactly one model: see scripts/main.sh --help" ;;
    *) die "one chat and one tool model are needed, or 'chat <model>', or 'tool <model>': see scripts/main.sh --help" ;;
esac
export DEPLOY_MODELS=${DEPLOY_MODELS:-both} HOST=${HOST:-127.0.0.1} PORT=${PORT:-8000} DEBUG=${DEBUG:-0} RUN_DIR
DEPLOY_MODELS=${DEPLOY_MODELS,,}
case $DEPLOY_MODELS in both | chat | tool) ;; *) die "DEPLOY_MODELS=$DEPLOY_MODELS: allowed are both, chat, tool" ;; esac

demo=1 needs_demo=0 unnamed=()
for role in CHAT TOOL; do
    [[ $DEPLOY_MODELS == both || $DEPLOY_MODELS == "${role,,}" ]] || continue
    given=AWQ_${role}_MODEL float=${role}_MODEL
    if [[ -n ${!given:-${!float:-}} ]]; then demo=0; else needs_demo=1 unnamed+=(--require "$given|$float"); fi
done
# The demo model stands in where no model is named at all. `awq chat` names an engine, so its model must be named too.
if ((awq)) && { ((demo == 0)) || [[ -n $form ]]; }; then demo=0 needs_demo=0; else unnamed=(); fi

# -- everything cheap first ------------------------------------------------------------------------------------------

url=$(server_url)
[[ $(uname -s) == Linux ]] || die "Yap serves on Linux; the clients in tests/clients run here too"
(umask 077 && mkdir -p "$RUN_DIR" && [[ -w $RUN_DIR ]]) || die "$RUN_DIR cannot be written"
for tool in flock setsid; do
    command -v "$tool" >/dev/null || die "$tool is missing (package util-linux)"
done
exec 9>"$RUN_DIR/main.lock"
flock -n 9 || die "another main.sh of this checkout is starting the server right now"
if pid=$(server_pid); then
    die "a server of this checkout is already running (pid $pid) at $(cat "$RUN_DIR/server.address" 2>/dev/null || echo "$url"); NUKE_ALL=0 scripts/stop.sh ends it, scripts/restart.sh replaces it"
fi
device=$(device)
python=$(require_python) || exit 1
state=fresh
! installed "$device" || state=installed
kind=named
((demo == 0)) || kind=demo
checks=("${push[@]}" "${unnamed[@]}")
((awq == 0)) || checks+=(--awq)
"$python" scripts/preflight.py "$device" "$kind" "$state" "${checks[@]}" || exit 1

# -- install and prepare ---------------------------------------------------------------------------------------------

began=$SECONDS
step() { say "[$((SECONDS - began)) s] $*"; }

own_folders
if [[ $state == fresh ]]; then
    step "installing ($device); this is done once"
    make_venv "$device"
    install "$device"
fi
if ((needs_demo)) && [[ ! -f $DEMO_MODEL/config.json ]]; then
    step "preparing the demo model; this is done once"
    .venv/bin/python scripts/demo_model.py "$DEMO_MODEL" >/dev/null || exit 1
fi
"$python" scripts/last_start.py collect "$awq" || exit 1 # what was asked for, before the lines below fill it in
if ((demo)); then
    export MAX_CONCURRENT_CONNECTIONS=${MAX_CONCURRENT_CONNECTIONS:-8}
    if [[ $device == cpu && -z ${TOOL_HARD_TIMEOUT_MS:-} ]]; then
        export TOOL_HARD_TIMEOUT_MS=-1
        say "no GPU here: the tool decision may take longer than 300 ms, so TOOL_HARD_TIMEOUT_MS=-1 (wait for it)"
    fi
    if [[ -z ${TEXT_API_KEY:-${TEXT_API_KEY_FILE:-}} ]]; then
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
if ((awq)); then
    step "preparing 4-bit exports"
    exports=$(.venv/bin/python -m scripts.quantizer.prepare "$device" "${push[@]}") || exit 1
    eval "$exports"
fi

# -- start -----------------------------------------------------------------------------------------------------------

killed=$(end_leftovers) || die "processes of an earlier start do not end: see NUKE_ALL=0 scripts/stop.sh"
((killed == 0)) || say "ended $killed processes that an earlier start had left"
export LOG_FILE=$RUN_DIR/server.log
touch "$LOG_FILE" && chmod 600 "$LOG_FILE"
[[ -e server.log && ! -L server.log ]] || ln -sfn "$LOG_FILE" server.log
log_from=$(($(wc -c <"$LOG_FILE") + 1)) # what this start writes begins here
step "starting the server: $DEPLOY_MODELS, $device"
# SPT_NOENV: engine processes rename themselves and would write over the very memory the mark is read from.
YAP_CHECKOUT=$ROOT SPT_NOENV=1 setsid .venv/bin/python manage.py serve </dev/null >>"$LOG_FILE" 2>&1 9>&- &
pid=$!
echo "$pid" >"$RUN_DIR/server.pid"
echo "$url" >"$RUN_DIR/server.address"
rm -f "$RUN_DIR/server.stopping"
mv "$RUN_DIR/last_start.json.new" "$RUN_DIR/last_start.json"

this_log() { tail -c "+$log_from" "$LOG_FILE" 2>/dev/null; }
last_line() { { this_log | grep -vE '^[[:space:]]*$|django.request' || true; } | tail -n 1 | tr -d '\r' | cut -c1-"${1:-160}"; }
alive() { kill -0 "$pid" 2>/dev/null && [[ $(cut -d' ' -f3 <"/proc/$pid/stat" 2>/dev/null) != Z ]]; }

give_up() { # give_up MESSAGE: the log's end, the reason, and out
    printf '\n' >&2
    this_log | tail -n 25 >&2
    die "$*"
}

trap 'printf "\n"; say "still starting in the background (pid $pid); its log is $LOG_FILE, NUKE_ALL=0 scripts/stop.sh ends it"; exit 130' INT
shown=-10 unwell=0
while :; do
    ! answer=$(readyz "$url") || break
    if ! alive; then
        rm -f "$RUN_DIR/server.pid"
        reason=$(this_log | grep -E '^yap: |Error|error:|refused' | tail -n 1 | cut -c1-300 || true)
        give_up "the server ended while starting: ${reason:-$(last_line 300)}"
    fi
    # Loading is what a start does; any other reason that stays is one that will not go away by waiting.
    doing=$(sed -n 's/.*"reason": *"\([^"]*\)".*/\1/p' <<<"$answer")
    case $doing in
        "" | *loading* | *starting*) unwell=0 ;;
        *) ((++unwell < 5)) || give_up "the server cannot get ready: $doing; NUKE_ALL=0 scripts/stop.sh ends it" ;;
    esac
    ((SECONDS - began < ${READY_TIMEOUT_S:-3600})) || give_up "not ready after ${READY_TIMEOUT_S:-3600} s; NUKE_ALL=0 scripts/stop.sh ends the server"
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
! is_yes "${TALK_PAGE:-1}" || say "talk:      http://$url/"
say "WebSocket: ws://$url/ws"
say "admin:     http://$url/admin/ (the account is named where it was made; manage.py changepassword sets a new password)"
if [[ -n ${key_file:-} ]]; then
    say "key:       in $key_file"
else
    say "key:       TEXT_API_KEY, or one made in the admin"
fi
say "log:       $LOG_FILE; NUKE_ALL=0 scripts/stop.sh ends the server"
[[ ${TAIL:-1} != 0 ]] || exit 0
tail -n 0 -F --pid="$pid" "$LOG_FILE" 2>/dev/null &
tail_pid=$!
trap 'kill "$tail_pid" 2>/dev/null || true' EXIT
trap 'printf "\n"; say "the server keeps running (pid $pid); NUKE_ALL=0 scripts/stop.sh ends it"; exit 0' INT TERM
wait "$tail_pid" || true
[[ ! -e $RUN_DIR/server.stopping ]] || exit 0
die "the server has ended by itself; its last line: $(last_line 300)"
