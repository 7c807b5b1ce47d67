#!/usr/bin/env bash
# Build the mixed image: see docker/mixed/README.md, and docker/build.sh for the variables.
exec bash "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../build.sh" mixed "$@"
