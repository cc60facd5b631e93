#!/bin/bash
# test_planner.sh - `tandem plan` from outside: answers, files, refusals in one line.
# Usage: test_planner.sh PATH-OF-TANDEM. Needs no model and no weights.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"
plan() { run plan "$@"; }
refused() { # STATUS WORDS-IN-THE-SENTENCE OPTIONS...
    local status=$1 words=$2
    shift 2
    plan "$@"
    [ $rc = "$status" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] &&
        mentions "$words" err
    claim "refused: tandem plan $* ($words)"
}
box='--hardware dgx-a100-80'

plan llama-3-70b $box --rate 100 --ttft 500ms --tpot 50ms
[ $rc = 0 ] && mentions 'hosts' out && mentions 'What clients see' out &&
    mentions '--prompt-tokens 1024, as nothing was said' out && mentions 'simulated' out
claim "a load is answered by a layout, and what was assumed is said"
cp "$work/out" "$work/first"
plan llama-3-70b $box --rate 100 --ttft 500ms --tpot 50ms
cmp -s "$work/first" "$work/out"
claim "the same question has the same answer"

plan llama-3-8b --hardware dgx-h100 --rate 4 --tpot 20ms --json -o "$work/plan.json" \
    --explain "$work/why.md" --svg "$work/front.svg" --timeline
[ $rc = 0 ] && python3 - "$work" <<'P'
import json, sys, xml.dom.minidom
work = sys.argv[1]
answer = json.load(open(work + "/out"))
assert answer["plan"] == json.load(open(work + "/plan.json"))
assert answer["simulated"]["good"]
assert answer["choice"]["good"] and answer["layouts"][0] == answer["choice"]
xml.dom.minidom.parse(work + "/front.svg")
assert open(work + "/why.md").read().startswith("# llama-3-8b on dgx-h100\n")
P
claim "JSON, plan, Markdown and picture are written, and agree"
plan llama-3-8b --plan "$work/plan.json"
[ $rc = 0 ] && mentions 'LlamaForCausalLM' out
claim "the plan that was written is one that can be loaded"

plan llama-3-8b $box --concurrency 16 --tpot 30ms --timeline
[ $rc = 0 ] && mentions 'The pipeline' out
claim "clients in a closed loop are planned for"
plan llama-3-70b --device memory:80,rate:2039,math:312,link:300 --devices 4 --rate 1 --tpot 60ms
[ $rc = 0 ] && mentions 'of 4 x' out
claim "unknown devices are planned for by four numbers"
plan llama-3-70b $box --rate 1 --ttft 1ms
[ $rc = 0 ] && mentions 'No layout keeps a first token within 1 ms' out && mentions 'nearest' out
claim "a bound that nothing meets is named, and the nearest layout shown"

plan llama-3-70b --size --hardware dgx-a100-80 --ctx 4096 --max-seqs 16
[ $rc = 0 ] && mentions '70553706496 parameters' out && mentions '81920' out
claim "sizes are calculated"
plan llama-3-70b --check $box --tp 4 --ctx 4096 --max-seqs 16
[ $rc = 0 ] && [ "$(grep -c '^\[ok\]' "$work/out")" = 5 ]
claim "a deployment that fits passes its checks"
plan llama-3-70b --check $box --tp 1 --ctx 4096
[ $rc = 1 ] && mentions '[NO] memory' out
claim "one that does not fit fails the check of memory"
plan --article --json
[ $rc = 0 ] && [ "$(grep -c '"verdict"' "$work/out")" = 81 ]
claim "the article's audit has 81 rows"

refused 1 'needs 1 device' llama-3-70b $box --devices 1 --rate 1
refused 1 'mixture of experts' deepseek-v3 $box --rate 1
for model in mixtral-8x7b qwen3-30b-a3b 'deepseek-v3-sizes --dtype int8'; do
    plan $model --hardware dgx-h200 --tp 8 --rate 1
    [ $rc = 0 ] && mentions 'Experts: cut (tp) or whole' out && mentions 'tp 8, ep 8, sp' out
    claim "tandem plan $model tells cut experts beside whole ones"
done
refused 1 'known: llama-2-7b' llama-9-900b $box --rate 1
refused 1 'no hardware profile' llama-3-8b --hardware dgx-x100 --rate 1
refused 1 '9 ranks, but 8 devices' llama-3-8b $box --rate 1 --tp 9
refused 2 'for which load' llama-3-8b $box
refused 2 'for which machine' llama-3-8b --rate 1
refused 2 'takes a time' llama-3-8b $box --rate 1 --ttft soon
refused 2 'one of' llama-3-8b $box --rate 1 --concurrency 4
refused 2 'prompt-tokens takes tokens' llama-3-8b $box --rate 1 --prompt-tokens many
plan llama-3-70b $box --rate 20 --dtypes bf16,int4 --kvs bf16,int8 -o "$work/plan.json"
[ $rc = 0 ] && grep -q '"weight": "int4"' "$work/plan.json" && mentions 'cache bf16' out && mentions 'cache int8' out
claim "formats are searched when they may be chosen: fewer devices do with int4"
refused 2 '"i32" is no such format' llama-3-8b $box --rate 1 --dtypes bf16,i32
refused 2 '"int4" is no such format' llama-3-8b $box --rate 1 --kvs int4
refused 2 'memory:GB' llama-3-8b --device speed:9 --rate 1
refused 2 'sequences of 1280' llama-3-8b $box --rate 1 --ctx 100
printf 'TIMESTAMP,ContextTokens,GeneratedTokens\n0,100,10\n1,x,10\n' >"$work/bad.csv"
refused 1 'bad.csv line 3' llama-3-8b $box --trace "$work/bad.csv"
refused 1 'cannot write' llama-3-8b $box --rate 1 -o /nowhere/plan.json

echo "1..$count"
exit $bad
