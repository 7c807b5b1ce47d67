#!/usr/bin/env bash
# Build the awq image: see docker/awq/README.md, and docker/build.sh for the variables.
exec bash "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../build.sh" awq "$@"
