#!/bin/bash
# test_simulate_cli.sh - `tandem simulate` from outside: the same bytes again, figures for machines, the
# timeline, and what is wrong in one line. Usage: test_simulate_cli.sh PATH-OF-TANDEM. Needs no model.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"

sim() { run simulate llama-3-8b --hardware dgx-a100-80 "$@"; }
json() { # EXPRESSION over o: true in what was printed
    python3 -c "import json,sys; o=json.load(open('$work/out')); sys.exit(not ($1))"
}
refused() { # TEXT WORDS...: one line with TEXT
    local text=$1
    shift
    sim "$@"
    [ $rc != 0 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions "$text" err
    claim "refused in one line: $*"
}

sim --rate 8 --requests 300 --jitter 0.1 --dp 2 --deaths-per-hour 50
cp "$work/out" "$work/first"
[ $rc = 0 ] && mentions 'TTFT' out && mentions 'dollars per million output tokens' out
claim "a load has its figures"
sim --rate 8 --requests 300 --jitter 0.1 --dp 2 --deaths-per-hour 50
cmp -s "$work/first" "$work/out"
claim "the same command gives the same bytes"
sim --rate 8 --requests 300 --jitter 0.1 --dp 2 --deaths-per-hour 50 --seed 1
! cmp -s "$work/first" "$work/out"
claim "another seed gives others"

sim --rate 8 --requests 100 --tp 1 --json
ahead=$(python3 -c "import json; print(json.load(open('$work/out'))['tpot_s']['mean'])")
sim --rate 8 --requests 100 --tp 1 --no-step-ahead --json
json "o['tpot_s']['mean'] > 1.02 * $ahead"
claim "steps that are chosen ahead hide the host's part"

sim --rate 8 --requests 200 --kill 0@5 --timeline "$work/steps.json" --record "$work/record" --slo ttft:1 --json
[ $rc = 0 ] && json 'o["requests"]["finished"] == 200 and o["simulation"]["rank_deaths"] == 1 and
    o["goodput"]["share"] < 1 and 0 < o["simulation"]["stage_busy"][0] < 1'
claim "a death costs no request, and is seen in the goodput"
[ "$(wc -l <"$work/record")" = 200 ]
claim "there is a line for every request"
cp "$work/steps.json" "$work/out"
json 'sum(e["name"] == "restart" for e in o) == 1 and
    all(e["dur"] > 0 for e in o if e["ph"] == "X") and sum(e["ph"] == "X" for e in o) > 1000'
claim "the timeline has every step and the restart"

for arrivals in gamma uniform burst on-off; do
    sim --rate 5 --requests 50 --arrivals $arrivals
    [ $rc = 0 ] && mentions '50 finished' out
    claim "arrivals: $arrivals"
done
sim --concurrency 4 --requests 50 --pp 2 --shared-prefix-tokens 100
[ $rc = 0 ] && mentions 'by stage' out && mentions '4704 cached' out
claim "a closed loop over two stages finds the shared prefix again"

printf 'TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,5\n1,x,5\n' >"$work/bad.csv"
refused "line 3" --trace "$work/bad.csv"
refused "dgx-h100" --hardware no-such-machine
refused "weights" --dtype f32 --kv f32 --hardware 8x-rtx-4090-pcie
refused "16 devices" --tp 4 --dp 4
refused "REPLICA@SECONDS" --kill 3
refused "no replica 3" --kill 3@5
refused "bad.csv: line 1" --plan "$work/bad.csv"
run plan llama-3-8b --tp 4 --dp 4 --json
cp "$work/out" "$work/plan.json"
refused "16 devices" --plan "$work/plan.json"
refused "on-off" --on-seconds 3
moe() { run simulate mixtral-8x7b --hardware dgx-h100 --tp 4 --ep 4 --sp --concurrency 16 --requests 32 --prompt-tokens 2000 --output-tokens 2 --chunk 8192 --json "$@"; }
tokens_s() { python3 -c "import json; print(json.load(open('$work/out'))['tok_per_s'])"; }
moe --expert-skew 0
even=$(tokens_s)
moe --expert-skew 1.2
skewed=$(tokens_s)
json "o['simulation']['expert_lambda'] > 1.5"
claim "a skewed router loads one run of ranks"
moe --expert-skew 1.2 --redundant-experts 2
python3 -c "import sys; sys.exit(not ($skewed < 0.95 * $even and $(tokens_s) > $skewed + 0.8 * ($even - $skewed)))"
claim "copies of the busiest recover most of what that costs"
refused "LlamaForCausalLM has no experts" --expert-skew 1
run simulate mixtral-8x7b --hardware dgx-h100 --tp 4 --ep 4 --expert-skew 1 --redundant-experts 7
mentions "7 redundant experts beside 2 of 8 are more than there are: at most 6" err
claim "more copies than experts are refused"

run simulate llama-3-8b
[ $rc = 2 ] && mentions 'give --hardware' err
claim "hardware must be named"

echo "1..$count"
exit $bad
