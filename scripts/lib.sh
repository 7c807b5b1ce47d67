# Shared by the scripts here, which source it from the checkout's root. Needs bash 4 and Linux's /proc.
# shellcheck shell=bash

# Started from inside a server of this checkout: without its mark, or the script would count as one of its processes.
[[ -z ${YAP_CHECKOUT:-} || ! -x scripts/${0##*/} ]] || exec env -u YAP_CHECKOUT "scripts/${0##*/}" "$@"

ROOT=$PWD
RUN_DIR=${RUN_DIR:-$ROOT/.run}
# shellcheck disable=SC2034  # used by the scripts that source this
DEMO_MODEL=${MODELS_DIR:-$ROOT/.models}/SmolLM2-135M-Instruct
PYTHON_RANGE="3.11 to 3.13"
UV_VERSION=0.13.9

say() { printf '%s\n' "yap: $*"; }
die() { # die MESSAGE: one line and a non-zero exit
    printf '%s\n' "yap: $*" >&2
    exit 1
}

# -- installing ----------------------------------------------------------------------------------------------------

find_python() { # path of the first Python in PYTHON_RANGE; $PYTHON names another to try instead
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

require_python() { # path of the Python to work with: the venv's own where there is one
    if [[ -x .venv/bin/python ]] && .venv/bin/python -c '' 2>/dev/null; then
        printf '%s\n' "$ROOT/.venv/bin/python"
    else
        find_python || die "no Python $PYTHON_RANGE found (tried: ${PYTHON:-python3.11 python3.12 python3.13 python3}); install one or set PYTHON"
    fi
}

device() { # cuda where nvidia-smi answers, else cpu
    if nvidia-smi -L 2>/dev/null | grep -q .; then echo cuda; else echo cpu; fi
}

locks() { # locks SET: the files that say what the set holds
    case $1 in
        cuda) echo requirements.txt ;;
        cpu) echo requirements-cpu.txt requirements-cpu.excludes ;;
        dev) echo requirements-dev.txt ;;
    esac
}

stamp() { # stamp SET: one line that changes when the set's locks do
    # shellcheck disable=SC2046  # the names have no spaces
    printf '%s %s\n' "$1" "$(cat $(locks "$1") | sha256sum | cut -d' ' -f1)"
}

installed() { # installed SET: whether .venv holds exactly what the set's locks say
    grep -qxF "$(stamp "$1")" .venv/.installed 2>/dev/null && .venv/bin/python -c '' 2>/dev/null
}

make_venv() { # make_venv [cpu|cuda]: .venv with uv in it; one that does not start, or is of the other device, is made anew
    local python other=cuda
    [[ ${1:-} != cuda ]] || other=cpu
    if [[ -n ${1:-} ]] && grep -q "^$other " .venv/.installed 2>/dev/null; then
        say "this machine runs the $1 build now: making .venv anew"
        rm -rf .venv
    fi
    python=$(require_python) || exit 1
    if [[ $python != "$ROOT/.venv/bin/python" ]]; then
        say "making .venv with $python ($("$python" -V))"
        rm -rf .venv
        "$python" -m venv .venv || die "$python cannot make a venv (on Debian: apt-get install python3-venv)"
    fi
    [[ -x .venv/bin/uv ]] || .venv/bin/python -m pip install --quiet "uv==$UV_VERSION" </dev/null ||
        die "uv cannot be installed by pip: see the lines above"
}

pip_config() { # pip_config NAME: pip's own setting, from its environment variable or its files; empty when not set
    local variable=PIP_${1^^}
    variable=${variable//-/_}
    printf '%s\n' "${!variable-$(.venv/bin/python -m pip config get "global.$1" 2>/dev/null || true)}"
}

# uv does not read pip's configuration, so what it says is handed over. A folder of wheels that holds torch's CPU
# build is where torch comes from; elsewhere it is PyTorch's own index, which --torch-backend names.
uv_sources() { # uv_sources SET: fills UV_SOURCES with uv's options
    local links index link
    UV_SOURCES=()
    index=$(pip_config index-url)
    [[ -z $index || -n ${UV_DEFAULT_INDEX:-} ]] || UV_SOURCES+=(--default-index "$index")
    [[ $1 != cuda ]] || return 0 # a folder's CPU build of torch would satisfy the CUDA set's version too
    links=$(pip_config find-links)
    for link in $links; do UV_SOURCES+=(--find-links "$link"); done
    for link in $links; do
        ! compgen -G "$link/torch-*+cpu-*.whl" >/dev/null || return 0
    done
    UV_SOURCES+=(--torch-backend cpu)
}

install() { # install SET…: what the locks say into .venv, nothing when it is there already
    local set args
    for set in "$@"; do
        ! installed "$set" || continue
        say "installing the $set set"
        uv_sources "$set"
        args=()
        [[ $set == cuda ]] || args+=(--excludes requirements-cpu.excludes)
        [[ -t 1 ]] || args+=(--no-progress --quiet)
        # Starting is mostly importing: the engine processes must not compile two thousand modules each.
        [[ $set == dev ]] || args+=(--compile-bytecode)
        .venv/bin/uv pip install --python .venv/bin/python -r "$(locks "$set" | cut -d' ' -f1)" \
            "${UV_SOURCES[@]}" "${args[@]}" </dev/null || die "installing $(locks "$set" | cut -d' ' -f1) failed: see the lines above"
        { grep -v "^$set " .venv/.installed 2>/dev/null || true; stamp "$set"; } >.venv/.installed.new
        mv .venv/.installed.new .venv/.installed
    done
}

# -- processes of this checkout ------------------------------------------------------------------------------------
# main.sh starts the server with YAP_CHECKOUT=<this folder>; engine processes inherit it. Only an exact match counts.

owns() { # owns PID: whether the process carries this checkout's mark
    grep -qzxF "YAP_CHECKOUT=$ROOT" "/proc/$1/environ" 2>/dev/null
}

server_pid() { # pid of the running server; status 1 when there is none (a stale pid file, or its number reused)
    local pid
    pid=$(cat "$RUN_DIR/server.pid" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] && owns "$pid" && printf '%s\n' "$pid"
}

parent_of() { # parent_of PID: its parent's pid, empty when it has ended
    local line
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    read -r _ line _ <<<"${line##*) }"
    printf '%s\n' "$line"
}

leftovers() { # pids that carry this checkout's mark, and orphaned engines of it that lost theirs; never this script's own
    local file pid parent own=" "
    for ((pid = $$; pid > 1; pid = $(parent_of "$pid"))); do own+="$pid "; done
    while read -r file; do
        pid=${file//[!0-9]/}
        [[ $own == *" $pid "* ]] || echo "$pid"
    done < <(grep -lzxF "YAP_CHECKOUT=$ROOT" /proc/[0-9]*/environ 2>/dev/null)
    while read -r file; do
        pid=${file//[!0-9]/}
        [[ $(readlink "/proc/$pid/cwd") == "$ROOT" ]] || continue
        # A foreground `runserver` is the parent of its engines and works here too: those are no orphans.
        parent=$(parent_of "$pid")
        [[ $(readlink "/proc/${parent:-1}/cwd") == "$ROOT" ]] || echo "$pid"
    done < <(grep -lza '^VLLM::' /proc/[0-9]*/cmdline 2>/dev/null)
}

end_leftovers() { # SIGKILL for all of them; a killed parent uncovers its children, hence the rounds
    local pids round
    for round in 1 2 3 4 5; do
        pids=$(leftovers)
        [[ -n $pids ]] || return 0
        ((round > 1)) || say "ending processes left behind: ${pids//$'\n'/ }"
        # shellcheck disable=SC2086  # a list of numbers
        kill -KILL $pids 2>/dev/null || true
        sleep 0.2
    done
    die "these processes do not end:" "$(leftovers | tr '\n' ' ')"
}
