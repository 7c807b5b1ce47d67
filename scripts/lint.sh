#!/usr/bin/env bash
# Lint the Python (style and security), the scripts and the Dockerfile. The first linter that finds something ends the run;
# scripts/test.sh calls this script.
#
#   scripts/lint.sh [options of ruff check]      for example --fix
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
for tool in ruff bandit shellcheck hadolint; do
    [[ -x .venv/bin/$tool ]] || die "$tool is missing: bash scripts/install.sh dev"
done
.venv/bin/ruff check "$@" .
.venv/bin/ruff format --check .
# Its warnings are about the places that a `nosec` comment covers; an error is printed.
.venv/bin/bandit --quiet -c pyproject.toml -r accounts inference personas yapserver scripts docker manage.py \
    2> >(grep -v WARNING >&2 || true)
say "bandit: nothing found"
mapfile -t files < <(git ls-files '*.sh' .ci/run 2>/dev/null || true)
((${#files[@]})) || files=(scripts/*.sh docker/*.sh docker/*/*.sh) # a copy without its history
.venv/bin/shellcheck -x --severity=style "${files[@]}"
say "shellcheck: ${#files[@]} files, nothing found"
.venv/bin/hadolint docker/Dockerfile
say "hadolint: nothing found"
