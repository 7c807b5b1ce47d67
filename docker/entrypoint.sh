#!/usr/bin/env bash
# What a container runs: check, prepare, serve in the foreground with the log on stderr.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

deployed() { [[ ${DEPLOY_MODELS:-both} == both || ${DEPLOY_MODELS:-both} == "$1" ]]; }

mkdir -p "$RUN_DIR" || die "$RUN_DIR cannot be written: the volume must belong to uid 10001"
.venv/bin/python scripts/preflight.py "$DEVICE" named installed
if { deployed chat && [[ -z ${AWQ_CHAT_MODEL:-${CHAT_MODEL:-}} ]]; } || { deployed tool && [[ -z ${AWQ_TOOL_MODEL:-${TOOL_MODEL:-}} ]]; }; then
    .venv/bin/python scripts/demo_model.py "$DEMO_MODEL"
fi
.venv/bin/python scripts/prepare.py
export YAP_CHECKOUT=$ROOT SPT_NOENV=1
exec .venv/bin/python manage.py serve
