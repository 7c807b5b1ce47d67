# The server process of this checkout: which one it is, whether it is ready, what it leaves behind. Sourced after lib.sh.
# shellcheck shell=bash

# main.sh starts the server with YAP_CHECKOUT=<this folder>; engine processes inherit it. Only an exact match counts.
owns() { # owns PID: whether the process carries this checkout's mark
    grep -qzxF "YAP_CHECKOUT=$ROOT" "/proc/$1/environ" 2>/dev/null
}

server_pid() { # pid of the running server; status 1 when there is none (a stale pid file, or its number reused)
    local pid
    pid=$(cat "$RUN_DIR/server.pid" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] && owns "$pid" && printf '%s\n' "$pid"
}

end_leftovers() { # end_leftovers [SECONDS]: SIGKILL for what carries this checkout's mark after so long; prints how many
    local python
    python=$(require_python) || exit 1
    "$python" -I -S inference/engines/supervisor.py kill "$ROOT" "${1:-0}"
}

server_url() { # host:port to reach the server at, from HOST and PORT
    local host=${HOST:-127.0.0.1}
    case $host in 0.0.0.0 | "*") host=127.0.0.1 ;; ::) host=::1 ;; esac
    [[ $host != *:* ]] || host="[$host]"
    printf '%s:%s\n' "$host" "${PORT:-8000}"
}

readyz() { # readyz HOST:PORT: status 0 when conversations can begin; prints the answer of /readyz, or why there is none
    local python
    python=$(require_python) || exit 1
    "$python" -I -S docker/healthcheck.py "http://$1/readyz" 2>&1
}

own_folders() { # name the caches and the temporary folder of this checkout, for the server and everything it starts
    local cache=$ROOT/.cache
    export VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-$cache/vllm} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$cache/triton}
    export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$cache/inductor}
    export FLASHINFER_WORKSPACE_BASE=${FLASHINFER_WORKSPACE_BASE:-$cache/flashinfer}
    TMPDIR=$(temporary_folder)
    export TMPDIR
    (umask 077 && mkdir -p "$TMPDIR" "$cache") 2>/dev/null || die "$TMPDIR and $cache cannot be made"
    [[ -d $TMPDIR && ! -L $TMPDIR && -O $TMPDIR ]] || die "$TMPDIR belongs to another user: set TMPDIR to a folder of your own"
}

temporary_folder() { # this checkout's own folder for temporary files; engines put their sockets there, so the path is short
    local base=${TMPDIR:-/tmp}
    case ${base##*/} in yap-*) printf '%s\n' "$base" && return ;; esac
    printf '%s/yap-%s-%s\n' "${base%/}" "$(id -u)" "$(printf '%s' "$ROOT" | sha256sum | cut -c1-8)"
}
