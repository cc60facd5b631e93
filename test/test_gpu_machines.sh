#!/bin/bash
# test_gpu_machines.sh - machines with other GPUs than the usual one, on the model of a GPU and with a
# driver's library of the tests: what is refused in one line, what is done instead, what is measured.
# Usage: test_gpu_machines.sh PATH-OF-TANDEM.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"
build=$(dirname "$(realpath "$tandem")")
if [ ! -e "$build/model/libtandem-cuda.so" ]; then
    echo "skipped: no model of a GPU was built"
    exit 77
fi
export TANDEM_PLUGIN_PATH=$build/model
mkdir "$work/driver"
ln -s "$build/libfake_nvml.so" "$work/driver/libnvidia-ml.so.1"

on() { # MACHINE WORD...: as run, at most four minutes
    local machine=$1
    shift
    TANDEM_MODEL_GPU=$machine timeout 240 "$tandem" "$@" >"$work/out" 2>"$work/err" </dev/null
    rc=$?
}
driven() { LD_LIBRARY_PATH=$work/driver on "$@"; } # NVML shows four GPUs
one_line() { [ "$(wc -l <"$work/err")" = 1 ]; }

on "gpus=0" run --device cuda Hi -n 2
[ $rc = 1 ] && one_line && mentions "the NVIDIA driver shows no GPU" err
claim "no GPU: one line"

on "gpus=0" run Hi -n 2 -q
[ $rc = 0 ] && [ ! -s "$work/err" ]
claim "without GPUs nobody speaks of them, and the CPU computes"

driven "gpus=0" run Hi -n 2
[ $rc = 0 ] && mentions "knows 4" err && mentions "MIG mode on without an instance" err
claim "GPUs that CUDA does not show, as in MIG mode without an instance: the CPU computes, a note says why"

driven "driver=12080" run --device cuda Hi -n 2
[ $rc = 1 ] && one_line && mentions "it is for CUDA 12.8, the GPU plugin needs 13.0" err && ! mentions "MIG" err
claim "an old driver: what it is for and what is needed"

on "free=300" run --device cuda Hi -n 2
[ $rc = 1 ] && one_line && mentions "has 300 MiB free, but " err && mentions " more (weights" err
claim "too little memory: how much is missing"

on "free=300" run Hi -n 2 -q
[ $rc = 0 ] && [ -s "$work/out" ]
claim "too little memory, and the CPU computes"

on "gpus=2 arch=90/80" run --device cuda --tp 2 Hi -n 2
[ $rc = 1 ] && one_line && mentions "the GPUs differ" err && mentions "CUDA_VISIBLE_DEVICES" err
claim "mixed GPUs are refused together"

on "gpus=2 arch=90/80" run --device cuda --tp 1 Hi -n 2 -q
[ $rc = 0 ]
claim "one of them computes alone"

on "gpus=2 arch=90/80" topo --measure --device cuda
[ $rc = 1 ] && one_line && mentions "a profile is of one kind" err
claim "mixed GPUs are not measured as one kind"

on "lost=60" run --device cuda Hi -n 20
[ $rc != 0 ] && [ $rc != 124 ] && mentions "has fallen off the bus" err
claim "a GPU that falls off the bus ends what runs on it, in the driver's words"

on "" run --device cuda Hi -n 20 -q
cp "$work/out" "$work/quiet"
on "hang=300" run --device cuda Hi -n 20 -q --patience 0.2
[ $rc = 0 ] && mentions "on GPU 0, model of a GPU at 0000:17:00.0) hangs in step" err && cmp -s "$work/out" "$work/quiet"
claim "an endless kernel costs a rank and no word of the answer"

# Two alike: what was measured is what plans, simulations and predictions are made of.
on "gpus=2" topo --measure --device cuda --dtype bf16 -q -o "$work/gpus.json"
[ $rc = 0 ] && mentions "GB/s from GPU" out && python3 - "$work/gpus.json" <<'P'
import json, sys
h = json.load(open(sys.argv[1]))
assert h["kind"] == "gpu" and h["device"] == "model of a GPU" and len(h["rates"]) == 1
r = h["rates"][0]
assert r["product"]["bf16"]["source"] == "measured" and len(r["product"]["bf16"]["x"]) >= 5
assert {8, 9, 16, 17} <= set(r["product"]["bf16"]["x"]) & set(r["experts"]["bf16"]["x"]), "both sides of a change of kernels"
assert all(r[f]["source"] == "measured" for f in ("draw_op_s", "draw_s", "rank_op_s", "rank_s"))
assert set(r["attend_byte_s"]) == {"f32", "bf16", "int8"} and r["op_s"]["value"] > 0
assert all(v["value"] > 0 for v in (h["memory_rate"], h["math_rate"]["bf16"], h["step_s"], r["byte_s"]))
level = h["levels"][0]
assert level["size"] == 2 and {c["op"] for c in level["collectives"]} == {"sum", "scatter-sum", "gather", "all-to-all", "send"}
assert "all_rows" not in level
P
claim "GPUs are measured alone and together, and every figure says so"

if [ -e "$work/gpus.json" ]; then
    on "gpus=2" bench latency --device cuda --tp 2 --prompt 8 --batch 1 --context 16 --rounds 1 --predict "$work/gpus.json" --json
    [ $rc = 0 ] && mentions '"predicted_ms"' out
    claim "what was measured stands beside what it predicts"
    on "" plan llama-3-8b --hardware "$work/gpus.json" --dtype bf16 --concurrency 2
    [ $rc = 0 ] && on "" simulate llama-3-8b --hardware "$work/gpus.json" --tp 2 --dtype bf16 --rate 0.01 --requests 3
    [ $rc = 0 ]
    claim "plans and simulations take it"
fi

exit $bad
