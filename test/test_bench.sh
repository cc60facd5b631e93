#!/bin/bash
# test_bench.sh - the benchmarks from outside: what they measure and refuse, never how fast.
# Usage: test_bench.sh PATH-OF-TANDEM. Uses the demo model.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"

json() { # EXPRESSION over the JSON in $work/out, which is called j
    python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); sys.exit(not eval("(" + sys.argv[2] + ")"))' "$work/out" "$1"
}
refused() { # WORD STATUS COMMAND...: one sentence with the word, nothing measured
    local word=$1 status=$2
    shift 2
    run "$@"
    [ $rc = "$status" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -qF -- "$word" "$work/err"
    claim "refused: tandem $*"
}

small=(--shape 64x128 --rows 1,3 --context 32 --rounds 1 --threads-per-rank 1)
run bench kernels "${small[@]}" --json
[ $rc = 0 ] && json '{l["kernel"] for l in j["lines"]} == {"matmul", "partial", "attend", "norm", "add", "rope", "swiglu"}'
claim "every kernel has lines"
json 'all(sum(l["kernel"] == k and l["dtype"] == t for l in j["lines"]) == 2 for k in ("matmul", "partial") for t in
      "f32 f16 bf16 int8 int4 int8-g32 int4-g32 int4-g32z int4-g128".split())'
claim "products have a line for every format and number of rows"
json 'all(l[x] > 0 for l in j["lines"] for x in ("us", "gb_s", "read_gb_s", "gop_s"))'
claim "every line has a time, rates, and how fast memory is read"
json 'all(("of_limit" in l) == (l["kernel"] in ("matmul", "partial", "attend")) for l in j["lines"])'
claim "what is read from memory has a share of the limit"
run bench kernels "${small[@]}" --json matmul norm --dtype int8
[ $rc = 0 ] && json '[(l["kernel"], l["dtype"], l["rows"], l["shape"]) for l in j["lines"]] ==
    [("matmul", "int8", 1, "64x128"), ("matmul", "int8", 3, "64x128")]'
claim "names and --dtype choose, shapes are those asked for"
run bench kernels "${small[@]}" norm
[ $rc = 0 ] && [ "$(grep -c '^norm ' "$work/out")" = 2 ]
claim "the table has the same lines"
refused '"softmax"' 2 bench kernels softmax
refused 8192x2048 2 bench kernels --shape 12
refused --rows 2 bench kernels --rows 1,x
refused 4096 2 bench kernels --rows 5000

run bench throughput --batch 1,3 --context 16,40 --max-tokens 8 --rounds 2 --json
[ $rc = 0 ] && json '[(p["batch"], p["context"]) for p in j["points"]] == [(1, 16), (3, 16), (1, 40), (3, 40)]'
claim "throughput has a line for every batch and context"
json 'all(0 < p[x]["least"] <= p[x]["median"] <= p[x]["most"] for p in j["points"]
          for x in ("prompt_tokens_per_s", "answer_tokens_per_s"))'
claim "both rates are there, with their spread"
run bench throughput --tp 2 --pp 2 --batch 2 --context 16 --max-tokens 16 --rounds 1
[ $rc = 0 ] && grep -q 'pp 2, tp 2' "$work/out" && [ "$(tail -n 1 "$work/out" | awk '{print $1, $2}')" = '2 16' ]
claim "throughput takes any layout"
refused 1024 2 bench throughput --batch 2000
refused 'a list is empty' 2 bench throughput --batch 0

run bench alltoall --ranks 4 --tokens 3,40 --hidden 96 --experts 9 --top 2 --iters 5 --json
[ $rc = 0 ] && json '[l["tokens"] for l in j["sizes"]] == [3, 40]' &&
    json 'all(l[x] > 0 for l in j["sizes"] for x in ("dispatch_us", "combine_us", "copy_us", "all_rows_us"))' &&
    json 'all(0.5 < l["sent_to"] < 2 for l in j["sizes"])'
claim "rows on their way to experts are timed beside copying"
refused '--ranks 1' 2 bench alltoall --ranks 1
refused '9 of 8 experts' 2 bench alltoall --experts 8 --top 9
refused 'list is empty' 2 bench alltoall --tokens 0

latency=(bench latency --batch 2 --context 16 --prompt 24 --rounds 1)
run "${latency[@]}" --beside-uncut --json
[ $rc = 0 ] && json '[s["step"] for s in j["steps"]] == ["prompt of 24", "decode 2 at 16"]' &&
    json 'all("same_bits_cost" in s and "faster" not in s for s in j["steps"])'
claim "latency beside uncut sums tells what the same bits cost"
run "${latency[@]}" --tp 2 --beside-uncut --beside-one --json
[ $rc = 0 ] && json 'all("same_bits_cost" in s and s["faster"] > 0 for s in j["steps"]) and len(j["limits"]) == 2'
claim "and beside one rank too, for two slices"
run "${latency[@]}" --tp 2 --profile --json
[ $rc = 0 ] && json 'all(abs(sum(o["share"] for o in s["profile"]) - 1) < 1e-3 for s in j["steps"]) and
    {"matmul", "partial", "attend", "other ranks"} <= {o["operation"] for o in j["steps"][0]["profile"]}'
claim "a profile accounts for the whole step"
json 'all(s["profile"] and all(o["waiting_ms"] <= o["ms"] for o in s["profile"] if o["calls"]) for s in j["steps"])'
claim "waiting is part of an operation"
run "${latency[@]}" --profile
[ $rc = 0 ] && [ "$(grep -c '^partial ' "$work/out")" = 2 ]
claim "the table of operations stands below the steps"
refused 'power of two' 2 "${latency[@]}" --tp 3 --beside-uncut
run "${latency[@]}" --tp 2 --link 1ms:1GB/s --predict epyc-9755 --json
[ $rc = 0 ] && json 'all(s["predicted_ms"] > 2 and abs(s["predicted_ms"] / s["ms"] - 1 - s["off_by"]) < 1e-3
    and s["least_ms"] > 2 for s in j["steps"])' # a sum of every layer, each a millisecond
claim "what is predicted stands beside it, also over a slower link"
refused '200us:1GB/s' 2 "${latency[@]}" --link 5:fast
refused 'epyc-9755' 1 "${latency[@]}" --predict nowhere
"$tandem" pack -q models/demo "$work/packed"
refused packed 2 bench latency "$work/packed" --beside-uncut

echo "1..$count"
exit $bad
