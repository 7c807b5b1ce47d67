#!/usr/bin/env bash
# Build the image of one stack; docker/awq/build.sh and docker/mixed/build.sh call it.
#
#   docker/build.sh awq|mixed [--push]
#
# DOCKER_USERNAME (required) names the image: DOCKER_USERNAME/yap-text-inference-STACK:TAG. DEVICE is cuda (default) or
# cpu, PLATFORM linux/amd64, BASE the base image (docker/base-image), DOCKER the builder (docker or podman). TAG= wins over the tag that the
# models give. `--push` pushes the image; DOCKER_PASSWORD or DOCKER_TOKEN logs in first.
set -euo pipefail
CALLER=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

die() {
    printf '%s\n' "yap: $*" >&2
    exit 1
}
say() { printf '%s\n' "yap: $*"; }

stack=${1:-}
case $stack in awq | mixed) shift ;; *) die "'$stack': allowed are awq, mixed" ;; esac
push=0
for word in "$@"; do
    case $word in
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' docker/build.sh
            exit 0
            ;;
        --push) push=1 ;;
        *) die "'$word': allowed is --push" ;;
    esac
done
docker=${DOCKER:-docker} device=${DEVICE:-cuda} deploy=${DEPLOY_MODELS:-both}
[[ -n ${DOCKER_USERNAME:-} ]] || die "DOCKER_USERNAME is not set: it names the image"
case $device in cuda | cpu) ;; *) die "DEVICE=$device: allowed are cuda, cpu" ;; esac
case $deploy in both | chat | tool) ;; *) die "DEPLOY_MODELS=$deploy: allowed are both, chat, tool" ;; esac
python=$(command -v python3) || die "python3 is missing"

# -- which models, which tag -------------------------------------------------------------------------------------------

tag=$deploy models=""
if [[ $stack == mixed ]]; then
    for role in CHAT TOOL; do # folders are named from where the caller stands
        for name in "${role}_MODEL" "AWQ_${role}_MODEL"; do
            [[ -z ${!name:-} || ! -d $CALLER/${!name} || ${!name} == /* ]] || export "$name=$(readlink -f "$CALLER/${!name}")"
        done
    done
    facts=$(DEPLOY_MODELS=$deploy "$python" scripts/images/tag.py) || exit 1
    tag=${facts%%$'\n'*} models=${facts#*$'\n'}
fi
[[ $device == cuda ]] || tag+=-$device
image=$DOCKER_USERNAME/yap-text-inference-$stack:${TAG:-$tag}
"$docker" info >/dev/null 2>&1 || die "$docker does not answer: is its daemon running?"

# -- the context: the tracked files, and local models ------------------------------------------------------------------

context=$(mktemp -d "${TMPDIR:-/tmp}/yap-build-XXXXXXXX")
trap 'rm -rf "$context"' EXIT
if git rev-parse --git-dir >/dev/null 2>&1; then
    git ls-files -z | "$python" scripts/images/copy_files.py "$context"
    commit=$(git rev-parse HEAD)
    git diff --quiet HEAD || commit+=-modified
else
    tar -c --exclude-from=.dockerignore --exclude=./.git . | tar -x -C "$context"
    commit=unknown
fi
rm -f "$context/.dockerignore" # it would hide .embed, and everything here is wanted
mkdir -p "$context/.embed"
arguments=(--build-arg "STACK=$stack" --build-arg "DEVICE=$device" --build-arg "COMMIT=$commit" --build-arg "MODELS=$models")
if [[ $stack == mixed ]]; then
    arguments+=(--build-arg "DEPLOY_MODELS=$deploy" --build-arg "DEFAULT_CONCURRENT=${DEFAULT_CONCURRENT:-1}")
    for role in CHAT TOOL; do
        for name in "${role}_MODEL" "AWQ_${role}_MODEL"; do
            value=${!name:-}
            [[ -n $value ]] || continue
            if [[ -d $value ]]; then
                # Hard links where the file systems allow, so that 24 GB are not copied twice.
                cp -rLl "$value" "$context/.embed/${role,,}" 2>/dev/null || cp -rL "$value" "$context/.embed/${role,,}"
                value=local/$(basename "$value")
            fi
            arguments+=(--build-arg "$name=$value")
        done
    done
    [[ -z ${HF_ENDPOINT:-} ]] || arguments+=(--build-arg "HF_ENDPOINT=$HF_ENDPOINT")
fi
base=${BASE:-$(<docker/base-image)}
arguments+=(--build-arg "BASE=$base")
[[ $base != *@sha256:* ]] || arguments+=(--build-arg "BASE_DIGEST=${base#*@}")
secret=$context.token # beside the context: nothing in the context can end up in a layer
trap 'rm -rf "$context" "$secret"' EXIT
token=${HF_TOKEN:-${HUGGINGFACE_HUB_TOKEN:-}}
[[ -n $token || -z ${HF_TOKEN_FILE:-} ]] || token=$(<"$HF_TOKEN_FILE")
(umask 077 && printf '%s' "$token" >"$secret")
[[ -z $token ]] || arguments+=(--secret "id=hf_token,src=$secret")
[[ -z ${DOCKER_NETWORK:-} ]] || arguments+=(--network "$DOCKER_NETWORK")

say "building $image"
DOCKER_BUILDKIT=1 "$docker" build --platform "${PLATFORM:-linux/amd64}" -f "$context/docker/Dockerfile" \
    "${arguments[@]}" -t "$image" "$context"
say "built $image ($("$docker" image inspect --format '{{.Size}}' "$image" | awk '{printf "%.2f GB", $1 / 1e9}'))"
if [[ $stack == awq && -z ${TAG:-} && $deploy == both && $device == cuda ]]; then
    "$docker" tag "$image" "${image%:*}:latest"
fi

# -- push --------------------------------------------------------------------------------------------------------------

((push)) || exit 0
password=${DOCKER_PASSWORD:-${DOCKER_TOKEN:-}}
if [[ -n $password ]]; then
    registry=""
    [[ $DOCKER_USERNAME != */* ]] || registry=${DOCKER_USERNAME%%/*}
    printf '%s' "$password" | "$docker" login --username "${DOCKER_USERNAME##*/}" --password-stdin ${registry:+"$registry"} >/dev/null
fi
pushed=("$image")
[[ $stack != awq || -n ${TAG:-} || $deploy != both || $device != cuda ]] || pushed+=("${image%:*}:latest")
for name in "${pushed[@]}"; do
    "$docker" push "$name" || {
        say "pushing $name failed; once more"
        "$docker" push "$name"
    }
    say "pushed $name"
done
