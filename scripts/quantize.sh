#!/usr/bin/env bash
# Quantize a float model to 4 bits with AWQ, as `main.sh awq` does. Prints the folder of the export.
#
#   scripts/quantize.sh MODEL [--out DIR] [--role chat|tool|both] [--push]
#
# MODEL is a folder or a Hub id. Without --out the export is kept in MODELS_DIR and used again. The role says what the
# calibration text is written from: the enabled personas (chat, the default) or the tool prompt. AWQ_CALIB_DATASET,
# AWQ_NSAMPLES and AWQ_SEQLEN choose another text; `--push` pushes to HF_AWQ_CHAT_REPO or HF_AWQ_TOOL_REPO.
set -euo pipefail
CALLER=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

model="" options=()
while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --push) options+=(--push) ;;
        --out | --role)
            [[ -n ${2:-} ]] || die "$1 needs a value: see scripts/quantize.sh --help"
            if [[ $1 == --out && $2 != /* ]]; then options+=(--out "$CALLER/$2"); else options+=("$1" "$2"); fi
            shift
            ;;
        -*) die "'$1': allowed are --out, --role, --push" ;;
        *)
            [[ -z $model ]] || die "one model at a time: see scripts/quantize.sh --help"
            model=$1
            ;;
    esac
    shift
done
[[ -n $model ]] || die "which model? see scripts/quantize.sh --help"
[[ $model == /* || ! -d $CALLER/$model ]] || model=$(readlink -f "$CALLER/$model")
load_env
export RUN_DIR
device=$(device)
if ! installed "$device"; then
    make_venv "$device" >&2
    install "$device" >&2
fi
exec .venv/bin/python -m scripts.quantizer.prepare "$device" --model "$model" "${options[@]}"
