# shellcheck shell=bash
# What the scripts in tools/ share. Sourced.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # for the scripts that source this
cache=$top/.cache
name=$(basename "$0")
cd "$top" || exit 1

say() {
    printf '%s: %s\n' "$name" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

# bazel, with the start-up flags of VIRTPLANE_BAZEL_FLAGS (--output_base=...: several people can build in one tree then).
bazel() {
    # shellcheck disable=SC2086 # several words
    command bazel ${VIRTPLANE_BAZEL_FLAGS-} "$@"
}
