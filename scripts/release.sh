#!/usr/bin/env bash
# Make what is published beside a version, in dist/yap-VERSION: the source archive, bills of materials (CycloneDX) of the
# server's and the quantizer's packages, the audit of every pin, and checksums of these files.
#
#   scripts/release.sh [--unaudited] [--out DIR]
#
# The audit asks PyPI's vulnerability service, or an OSV service with AUDIT_OSV_URL. A known vulnerability ends the run.
# A service that cannot be asked ends the run too; with --unaudited, audit.txt says that no audit was made.
# docker/pin-base.sh pins the base image beforehand. The tools are installed into .venv-release.
set -euo pipefail
CALLER=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

unaudited=0 out=""
while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --unaudited) unaudited=1 ;;
        --out)
            [[ -n ${2:-} ]] || die "--out needs a folder"
            if [[ $2 == /* ]]; then out=$2; else out=$CALLER/$2; fi
            shift
            ;;
        *) die "'$1': allowed are --unaudited, --out" ;;
    esac
    shift
done
git rev-parse --git-dir >/dev/null 2>&1 || die "a release is made from a git checkout"
version=$(sed -n 's/^version = "\([^"]*\)".*/\1/p' pyproject.toml)
newest=$(sed -n 's/^## \([0-9][^ ]*\).*/\1/p' CHANGELOG.md | head -n 1)
[[ $version == "$newest" ]] || die "pyproject.toml has version $version, CHANGELOG.md begins with $newest"
out=${out:-$ROOT/dist/yap-$version}
[[ ! -e $out ]] || die "$out is there already: remove it, or name another folder with --out"
bash scripts/install.sh release
made=$out.new # appears under its name when it is complete
rm -rf "$made"
mkdir -p "$made"
trap 'rm -rf "$made"' EXIT

say "audit"
status=0
.venv-release/bin/python scripts/audit.py requirements.txt requirements-cpu.txt requirements-quantize.txt \
    requirements-quantize-cpu.txt >"$made/audit.txt" || status=$?
cat "$made/audit.txt"
case $status in
    0) ;;
    2) ((unaudited)) || die "the pins are not audited; --unaudited makes a release that says so" ;;
    *) die "pins with known vulnerabilities: see the lines above" ;;
esac

say "source archive"
git archive --format tar.gz --prefix "yap-$version/" -o "$made/yap-$version.tar.gz" HEAD
git diff --quiet HEAD || say "uncommitted changes are not in the archive"

for lock in requirements requirements-cpu requirements-quantize requirements-quantize-cpu; do
    say "bill of materials of $lock.txt"
    PYTHONWARNINGS=ignore .venv-release/bin/cyclonedx-py requirements "$lock.txt" --pyproject pyproject.toml \
        --output-reproducible --no-validate --spec-version 1.6 --output-format JSON \
        -o "$made/${lock/requirements/sbom}.cdx.json" 2> >(grep -v "Validation skipped" >&2 || true)
done

base=$(<docker/base-image)
[[ $base == *@sha256:* ]] || say "the base image $base is not pinned: docker/pin-base.sh does it"
(cd "$made" && sha256sum -- * >SHA256SUMS)
mv "$made" "$out"
say "$out:"
(cd "$out" && ls -l)
