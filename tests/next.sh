#!/usr/bin/env bash
# Builds and tests a copy of the workspace with the next version of Burn, on Flex:
#
#     tests/next.sh [--dir DIRECTORY] [ARGUMENTS of `cargo test`]
#
#     tests/next.sh                         # builds everything, benches too, and runs all tests
#     tests/next.sh --test it hook::        # some tests
#     tests/next.sh --no-run                # builds all tests, and runs none
#
# DIRECTORY, else target/next, gets the copy, its build and the log; the tree stays as it is.
# The version is the newest one of 0.23, pre-releases included; BURN_NEXT=0.23.0-pre.1 names one.
# The copy does without what that version does not have: the backends ndarray and tch.
# Code that differs between the versions is behind `cfg(burn_next)`, in one file of each crate.
set -euo pipefail

directory=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit
        ;;
    --dir)
        [ -n "${2-}" ] || { echo 'tests/next.sh: --dir needs a directory, such as /tmp/next' >&2; exit 2; }
        mkdir -p "$2"
        directory=$(cd "$2" && pwd)
        shift 2
        ;;
    *) break ;;
    esac
done
cd "$(dirname "$0")/.."
directory=${directory:-$PWD/target/next}
copy=$directory/workspace log=$directory/log

# What is tracked or could be, with its times, so that Cargo builds only what changed.
# A directory of this name that is no copy is not removed.
if [ -e "$copy" ] && [ ! -e "$copy/tests/next.sh" ]; then
    echo "tests/next.sh: $copy is not a copy of this workspace; name another --dir" >&2
    exit 2
fi
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --create --null --files-from - | tar --extract --directory "$copy"
cd "$copy"

# A requirement with a pre-release admits all later ones, and Cargo takes the newest.
burn=^0.23.0-pre
if [ -n "${BURN_NEXT-}" ]; then burn="=$BURN_NEXT"; fi
sed -i -E \
    -e "/^burn(-[a-z]+)? = /s/version = \"0\.22[^\"]*\"/version = \"$burn\"/" \
    -e '/^cubecl = /s/version = "0\.11[^"]*"/version = "^0.12.0-pre"/' \
    -e 's/"burn\/(ndarray|tch)"(, )?//' \
    Cargo.toml crates/*/Cargo.toml

export CARGO_TARGET_DIR=$directory/target CARGO_INCREMENTAL=0
export RUSTFLAGS="${RUSTFLAGS-} --cfg burn_next"
version=$(cargo tree --quiet --invert burn --depth 0 --edges normal)
version=${version##*v}
[[ $version == 0.23.* ]] || { echo "tests/next.sh: expected Burn 0.23, found $version" >&2; exit 1; }
echo "Burn $version, in $copy"

start=$SECONDS ended=0
{
    # Quotation marks, since the pattern is Cargo's: all benches, those that `cargo bench` leaves
    # out as well.
    if [ $# = 0 ]; then cargo test --no-run --bench '*'; fi &&
        cargo test --no-fail-fast "$@"
} 2>&1 | tee "$log" || ended=$?

printf '\nBurn %s, %d s; the log is %s\n' "$version" $((SECONDS - start)) "$log"
awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d tests passed, %d failed, %d ignored\n", passed, failed, ignored }' "$log"
sed -nE 's/^(test .*) \.\.\. FAILED$/    \1/p' "$log"
exit "$ended"
