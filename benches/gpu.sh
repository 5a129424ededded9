#!/usr/bin/env bash
# Measures averages and training steps on a GPU, beside PyTorch on CUDA, in at most 8 minutes after
# the build.
#
#     benches/gpu.sh [build | run] [OPTION...]
#
# build   only builds, for which no GPU is needed; the program is TARGET/gpu/gpu, alone
# run     only runs what was built: neither a compiler nor a network is needed
#
# Without either it does both. TARGET is $CARGO_TARGET_DIR, or `target`.
# The figures are TARGET/gpu/gpu.md and TARGET/gpu/gpu.json, with the card, the driver, the date and
# all versions. Products, gradients and averages are compared with the CPU's first; if they differ,
# there are no figures.
#
# Options for the build:
#   --features LIST   features of Cargo [default: wgpu]; others are vulkan and cuda
#   --profile NAME    profile of Cargo [default: release]
#
# Options for the run:
#   --out DIRECTORY   where the figures go [default: TARGET/gpu]
#   --python FILE     the Python that has PyTorch with CUDA [default: python3]
#   --device NAME     the device [default: the first one that the build has]
#   --rounds N        how often each contestant has its turn [default: 9, or 3 with --small]
#   --seconds N       the time for all of it [default: 450]; what does not fit is left out, and the
#                     page says so
#   --small           fewer and smaller rows, to test the program itself; a driver in software has
#                     no others
#
# Without a GPU, as a test of itself (Debian: apt-get install chromium-common libvulkan1):
#
#     VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json benches/gpu.sh
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
}
fail() {
    echo "benches/gpu.sh: $1; --help lists the options" >&2
    exit 2
}

what=all features=wgpu profile=release out='' seconds=450 options=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit ;;
    build | run) what=$1 && shift && continue ;;
    --small) options+=("$1") && shift && continue ;;
    --features | --profile | --out | --python | --device | --rounds | --seconds) ;;
    *) fail "unknown: $1" ;;
    esac
    [ $# -ge 2 ] || fail "$1 needs a value"
    case $1 in
    --features) features=$2 ;;
    --profile) profile=$2 ;;
    --out) out=$(realpath -m -- "$2") ;;
    --seconds) seconds=$2 ;;
    # A path stays right in the directory of the workspace; a bare name is looked up.
    --python) [[ $2 == */* ]] && options+=("$1" "$(realpath -ms -- "$2")") || options+=("$1" "$2") ;;
    *) options+=("$1" "$2") ;;
    esac
    shift 2
done
[[ $seconds =~ ^[0-9]+$ ]] || fail "--seconds needs a whole number, found $seconds"

cd "$(dirname "$0")/.."
target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")/gpu
program=$target/gpu
out=${out:-$target}

build() {
    local commit built
    commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
    # All members together, so that Burn has the features that it has in every other command.
    built=$(
        BURN_EMA_BUILD="commit $commit, features $features, profile $profile, $(rustc --version)" \
            cargo build --bench gpu --features "$features" --profile "$profile" \
            --message-format json-render-diagnostics |
            sed -n 's/.*"name":"gpu".*"executable":"\([^"]*\)".*/\1/p'
    )
    [ -x "$built" ] || { echo 'benches/gpu.sh: Cargo built no program' >&2; return 1; }
    mkdir -p "$target"
    # Without symbols it is smaller, to be carried to another machine.
    strip -o "$program" "$built" 2>/dev/null || cp "$built" "$program"
    echo "built: $program"
}

run() {
    [ -x "$program" ] || fail "$program is missing: benches/gpu.sh build makes it"
    # The program ends by itself; this is for a driver that lets nothing end.
    timeout --kill-after 5 $((seconds + 15)) \
        "$program" --out "$out" --seconds "$seconds" ${options[@]+"${options[@]}"}
}

case $what in
build) build ;;
run) run ;;
all) build && run ;;
esac
