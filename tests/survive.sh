#!/usr/bin/env bash
# Kills a training at random instants, in as many runs as asked for, and signals a third as many, and
# says what that proves:
#
#     tests/survive.sh [RUNS, else 300]
#
# SURVIVE_SEED repeats what an earlier one did.
set -euo pipefail
cd "$(dirname "$0")/.."
export KILLS=${1:-300}
export SIGNALS=$(((KILLS + 2) / 3))
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A shell starts its background jobs with SIGINT ignored, and a run keeps that.
signals=()
env --default-signal true 2>/dev/null && signals=(env --default-signal)

# Runs a test, and adds what came of so many cases to the results.
results='' ended=0
run() {
    local test=survive::process::$1 cases=$2 what=$3 seed failed
    ${signals[@]+"${signals[@]}"} cargo test --test it -- --exact "$test" --ignored --nocapture 2>&1 |
        tee "$log" || true
    seed=$(sed -n 's/.*SURVIVE_SEED=//p' "$log")
    failed=$(sed -n 's/.* cases, \([0-9]*\) failed$/\1/p' "$log")
    results+=$(grep "^$cases $what, " "$log" || echo "$cases $what")
    results+="; ${failed:-all} failed, SURVIVE_SEED=$seed"$'\n'
    # Where no case failed, the test may have: no kill met a commit.
    grep -q '^test result: ok\. 1 passed' "$log" || ended=1
}
run killed_at_random_instants "$KILLS" runs
run signalled_at_random_instants "$SIGNALS" signals

printf '\n%s' "$results"
if [ "$ended" != 0 ]; then exit 1; fi
# The rule of three.
awk -v runs="$KILLS" -v signals="$SIGNALS" 'BEGIN {
    printf "at 95 %%, less than %.2g %% of such runs come to another result, ", 300 / runs
    printf "and less than %.2g %% of such signals lead to one\n", 300 / signals
}'
