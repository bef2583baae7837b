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

# bazel, with the start-up flags of VIRTPLANE_BAZEL_FLAGS and, to build and test, those of VIRTPLANE_BUILD_FLAGS: with an --output_base
# of one's own and --experimental_convenience_symlinks=ignore several people can build in one tree.
bazel() {
    local command=$1
    shift
    # shellcheck disable=SC2086 # several words
    case $command in
    build | test) command bazel ${VIRTPLANE_BAZEL_FLAGS-} "$command" ${VIRTPLANE_BUILD_FLAGS-} "$@" ;;
    *) command bazel ${VIRTPLANE_BAZEL_FLAGS-} "$command" "$@" ;;
    esac
}
