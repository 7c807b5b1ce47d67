#!/usr/bin/env bash
# The main process of a container: check, prepare, serve in the foreground with the log on stderr.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

load_env
mkdir -p "$RUN_DIR" || die "$RUN_DIR cannot be written: the volume must belong to uid 10001"
if [[ ${YAP_STACK:-plain} == mixed ]]; then
    exports=$(.venv/bin/python scripts/images/embedded.py) || exit 1
    eval "$exports"
fi
demo=0 required=()
for role in CHAT TOOL; do
    [[ ${DEPLOY_MODELS:-both} == both || ${DEPLOY_MODELS:-both} == "${role,,}" ]] || continue
    given=AWQ_${role}_MODEL float=${role}_MODEL
    [[ -z ${!given:-${!float:-}} ]] || continue
    if [[ ${YAP_STACK:-plain} == awq ]]; then required+=(--require "$given"); else demo=1; fi
done
.venv/bin/python scripts/preflight.py "$DEVICE" named installed "${required[@]}"
((demo == 0)) || .venv/bin/python scripts/demo_model.py "$DEMO_MODEL"
.venv/bin/python scripts/prepare.py
export YAP_CHECKOUT=$ROOT SPT_NOENV=1
exec .venv/bin/python manage.py serve
