#!/usr/bin/env bash
# Pin the base image: pull its tag, and write docker/base-image with the digest that the registry serves now.
#
#   docker/pin-base.sh [IMAGE]      without IMAGE: the tag that docker/base-image names
#
# Run it before a release and after a security update of the base. BASE_FILE names another file to write; DOCKER is the
# client (docker or podman).
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

die() {
    printf '%s\n' "yap: $*" >&2
    exit 1
}

docker=${DOCKER:-docker} file=${BASE_FILE:-docker/base-image}
case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' docker/pin-base.sh
        exit 0
        ;;
    -*) die "'$1': allowed is one image" ;;
esac
image=${1:-$(<docker/base-image)}
image=${image%@*}
"$docker" pull --quiet "$image" >/dev/null || die "$image cannot be pulled, so its digest is unknown; $file stays as it is"
digest=$("$docker" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | sed -n 's/.*@//p' | head -n 1)
[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || die "the registry gave no digest of $image; $file stays as it is"
printf '%s\n' "$image@$digest" >"$file.new"
mv "$file.new" "$file"
printf '%s\n' "yap: $file: $image@$digest"
