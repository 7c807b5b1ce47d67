# Shared by the scripts here, which source it from the checkout's root. Needs bash 4 and Linux's /proc.
# shellcheck shell=bash

# A script that is started inside a server of this checkout drops the server's mark: stop.sh kills what carries it.
[[ -z ${YAP_CHECKOUT:-} || ! -x scripts/${0##*/} ]] || exec env -u YAP_CHECKOUT "scripts/${0##*/}" "$@"

ROOT=$PWD
PYTHON_RANGE="3.11 to 3.13"
UV_VERSION=0.13.9

say() { printf '%s\n' "yap: $*"; }
die() { # die MESSAGE: one line and a non-zero exit
    printf '%s\n' "yap: $*" >&2
    exit 1
}

usage() { # print the comment at the head of the running script
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "scripts/${0##*/}"
}

is_yes() { # is_yes VALUE: whether an environment variable's value means yes
    [[ ${1,,} == 1 || ${1,,} == true || ${1,,} == yes ]]
}

load_env() { # export what .env (or the file that ENV_FILE names) adds to the environment; the environment wins
    local exports python
    if [[ -e .env || -n ${ENV_FILE:-} ]]; then
        python=$(require_python) || exit 1
        exports=$("$python" scripts/export_env.py) || exit 1
        eval "$exports"
    fi
    RUN_DIR=${RUN_DIR:-$ROOT/.run}
    # shellcheck disable=SC2034  # used by the scripts that source this
    DEMO_MODEL=${MODELS_DIR:-$ROOT/.models}/SmolLM2-135M-Instruct
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
        release) echo requirements-release.txt ;;
        clients) echo requirements-clients.txt ;;
        quantize-cuda) echo requirements-quantize.txt ;;
        quantize-cpu) echo requirements-quantize-cpu.txt requirements-cpu.excludes ;;
    esac
}

venv_of() { # venv_of SET: the virtual environment that the set is installed in
    case $1 in quantize-*) echo .venv-quantize ;; release) echo .venv-release ;; clients) echo .venv-clients ;; *) echo .venv ;; esac
}

stamp() { # stamp SET: one line that changes when the set's locks do
    # shellcheck disable=SC2046  # the names have no spaces
    printf '%s %s\n' "$1" "$(cat $(locks "$1") | sha256sum | cut -d' ' -f1)"
}

installed() { # installed SET: whether the set's environment holds exactly what its locks say
    local venv
    venv=$(venv_of "$1")
    grep -qxF "$(stamp "$1")" "$venv/.installed" 2>/dev/null && "$venv/bin/python" -c '' 2>/dev/null
}

make_venv() { # make_venv [cpu|cuda]: .venv with uv in it; one that does not start, or is of the other device, is replaced
    local python other=cuda
    [[ ${1:-} != cuda ]] || other=cpu
    if [[ -n ${1:-} ]] && grep -q "^$other " .venv/.installed 2>/dev/null; then
        say "this machine runs the $1 build now: replacing .venv"
        remove_venv
    fi
    python=$(require_python) || exit 1
    if [[ $python != "$ROOT/.venv/bin/python" ]]; then
        say "making .venv with $python ($("$python" -V))"
        remove_venv
        "$python" -m venv .venv || die "$python cannot make a venv (on Debian: apt-get install python3-venv)"
    fi
    [[ -x .venv/bin/uv ]] || .venv/bin/python -m pip install --quiet "uv==$UV_VERSION" </dev/null ||
        die "uv cannot be installed by pip: see the lines above"
}

remove_venv() { # a link to another checkout's environment is not followed
    [[ ! -L .venv ]] || die ".venv is a symbolic link to $(readlink .venv), which this checkout cannot replace: remove the link"
    rm -rf .venv
}

pip_config() { # pip_config NAME: pip's own setting, from its environment variable or its files; empty when not set
    local variable=PIP_${1^^}
    variable=${variable//-/_}
    printf '%s\n' "${!variable-$(.venv/bin/python -m pip config get "global.$1" 2>/dev/null || true)}"
}

# uv does not read pip's configuration, so this function hands it over. A folder of wheels that holds torch's CPU build
# is the source of torch; elsewhere the source is PyTorch's own index, which --torch-backend names.
uv_sources() { # uv_sources cpu|cuda|dev: fills UV_SOURCES with uv's options
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

make_own_venv() { # make_own_venv SET: the environment of a set whose packages contradict the server's
    local python venv
    venv=$(venv_of "$1")
    [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c '' 2>/dev/null || return 0
    [[ ! -L $venv ]] || die "$venv is a symbolic link that leads nowhere: remove it"
    python=$(require_python) || exit 1
    rm -rf "$venv"
    "$python" -m venv --without-pip "$venv" || die "$python cannot make a venv (on Debian: apt-get install python3-venv)"
}

install() { # install SET…: what the locks say, each set into its environment; nothing where it is there already
    local set args venv
    for set in "$@"; do
        ! installed "$set" || continue
        say "installing the $set set"
        venv=$(venv_of "$set")
        uv_sources "${set#quantize-}"
        args=()
        [[ $set == *cuda ]] || args+=(--excludes requirements-cpu.excludes)
        [[ -t 1 ]] || args+=(--no-progress --quiet)
        # The locks are those of Python 3.11. Another Python may need a package more, so there uv checks the hashes that it finds.
        ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || args+=(--require-hashes)
        # Starting is mostly importing: the engine processes must not compile two thousand modules each.
        [[ $set == dev || $set == release || $set == clients ]] || args+=(--compile-bytecode)
        .venv/bin/uv pip install --python "$venv/bin/python" -r "$(locks "$set" | cut -d' ' -f1)" \
            "${UV_SOURCES[@]}" "${args[@]}" </dev/null || die "installing $(locks "$set" | cut -d' ' -f1) failed: see the lines above"
        { grep -v "^$set " "$venv/.installed" 2>/dev/null || true; stamp "$set"; } >"$venv/.installed.new"
        mv "$venv/.installed.new" "$venv/.installed"
    done
}
