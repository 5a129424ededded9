#!/usr/bin/env bash
# Kills a training at random instants, in as many runs as told, and says what that proves:
#
#     tests/survive.sh [RUNS, else 300]
#
# SURVIVE_SEED repeats what an earlier one did.
set -euo pipefail
cd "$(dirname "$0")/.."
export KILLS=${1:-300}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

test=survive::process::killed_at_random_instants
cargo test --features ndarray --test it -- --exact "$test" --ignored --nocapture 2>&1 |
    tee "$log" || true

seed=$(sed -n 's/.*SURVIVE_SEED=//p' "$log")
failed=$(sed -n 's/.* cases, \([0-9]*\) failed$/\1/p' "$log")
printf '\n%d runs, %s failed, SURVIVE_SEED=%s\n' "$KILLS" "${failed:-all}" "$seed"
if [ "$failed" != 0 ]; then exit 1; fi
# The rule of three.
awk -v runs="$KILLS" 'BEGIN {
    printf "at 95 %%, less than %.2g %% of such runs come to another result\n", 300 / runs
}'
