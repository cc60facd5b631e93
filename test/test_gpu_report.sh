#!/bin/bash
# test_gpu_report.sh - tools/gpu_report without a GPU, in small on the model of a GPU, and the report of
# results that were kept. Usage: test_gpu_report.sh PATH-OF-TANDEM.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"
build=$(dirname "$(realpath "$tandem")")

if [ ! -e /dev/nvidiactl ]; then
    python3 tools/gpu_report --out "$work/report.md" >"$work/out" 2>"$work/err"
    [ $? = 77 ] && grep -q '^skipped: no GPU' "$work/out" && [ ! -e "$work/report.md" ]
    claim "without a GPU the report says so, ends with 77 and writes nothing"
fi

# One program of tests hangs.
if [ -x "$build/bench_gpu_model" ]; then
    mkdir "$work/build"
    for f in "$build"/*; do ln -s "$f" "$work/build/"; done
    rm -f "$work/build/test_gpu_rows"
    printf '#!/bin/sh\necho "[       OK ] one"\nsleep 1000\n' >"$work/build/test_gpu_rows"
    chmod +x "$work/build/test_gpu_rows"
    python3 tools/gpu_report --model-gpu --build "$work/build" --minutes 9 --out "$work/dry.md" >"$work/out" 2>"$work/err"
    [ $? = 1 ] && python3 - "$work/dry.json" <<'P'
import json, sys
r = json.load(open(sys.argv[1]))
parts = r["parts"]
done = ["tests", "kernels", "calibrate", "steps-bf16", "serve", "profile", "steps-int8", "steps-int4"]
bad = [(n, parts[n]) for n in done if parts[n]["state"] != "done"]
assert not bad, bad
assert parts["peers"]["state"] == "skipped" and "torch" in parts["peers"]["why"]
tests = {t["name"]: t for t in parts["tests"]["of"]}
assert tests["test_gpu_device"]["code"] == 0 and tests["test_gpu_device"]["passed"] > 3
assert tests["test_gpu_rows"]["code"] == 124 and tests["test_gpu_rows"]["passed"] == 1
names = [k["name"] for k in parts["kernels"]["of"]]
assert {"copy", "gate+up bf16 rows 1", "down int4 rows 3", "all-reduce 16 KiB, 2 streams",
        "all-reduce 16 KiB, 2 processes", "memory of a process"} <= set(names) and len(set(names)) == len(names)
assert all(k["seconds"] > 0 or k["name"].startswith("memory of a ") for k in parts["kernels"]["of"])
for n in ("steps-bf16", "steps-int8", "steps-int4"):
    assert len(parts[n]["steps"]) == 3 and parts[n]["start_s"] > 0
    assert all(s["ms"] > 0 and s["predicted_ms"] > 0 for s in parts[n]["steps"])
assert parts["calibrate"]["profile"]["kind"] == "gpu" and parts["steps-bf16"]["predicted_by"] == "this-gpu.json"
assert 0 <= parts["serve"]["idle_share"] <= 1
assert parts["serve"]["load"]["finished"] == 4 and parts["serve"]["killed"]["restarts"] >= 1
assert parts["serve"]["killed"]["failed"] == 0
assert parts["serve"]["killed"]["kept"] == parts["serve"]["killed"]["restarts"]
assert {"matmul", "attend", "fetch"} <= {o["operation"] for o in parts["profile"]["steps"][0]["profile"]}
P
    claim "a dry run does every part, measures every kernel once, and a program that hangs costs no other"
    grep -q '^| a rank killed |' "$work/dry.md" && grep -q 'no figure means anything' "$work/dry.md" &&
        grep -q '| `test_gpu_rows` | 1 | took too long |' "$work/dry.md"
    claim "its report has what was found, and says that it means nothing"
    cp "$work/dry.json" "$work/before.json"
    python3 tools/gpu_report --model-gpu --build "$work/nothing" --resume --only tests,steps-bf16,sanitize,kernels \
        --out "$work/dry.md" >"$work/out" 2>"$work/err"
    python3 - "$work/before.json" "$work/dry.json" <<'P'
import json, sys
a, b = (json.load(open(f))["parts"] for f in sys.argv[1:])
assert a["sanitize"]["state"] == b["sanitize"]["state"] == "skipped"
assert all(a[n] == b[n] for n in a if n != "sanitize")
P
    claim "--resume keeps what was done"
    python3 tools/gpu_report --model-gpu --build "$work/nothing" --only kernels,serve --out "$work/none.md" >"$work/out" 2>"$work/err"
    [ $? = 0 ] && grep -q '| kernels | skipped | 0 | bench_gpu_model was not built |' "$work/none.md" &&
        grep -q '| serve | skipped | 0 | tandem was not built |' "$work/none.md"
    claim "what was not built is skipped, and the report says so"
fi

cat >"$work/results.json" <<'J'
{"schema": 2, "arch": 90, "n": 1, "model": "llama-3-8b", "profile": "dgx-h200", "date": "D", "commit": "c",
 "driver": "1", "seconds": 1, "parts": {
 "tests": {"state": "done", "of": [{"name": "real_gpu_rows", "code": 0, "passed": 5, "failed": [], "why": ""},
           {"name": "real_gpu_peer", "code": 1, "passed": 1, "failed": ["sums_agree"], "why": "bad"}]},
 "sanitize": {"state": "skipped", "why": "compute-sanitizer is not installed"},
 "kernels": {"state": "failed", "why": "not done after 70 s", "gpu": "Test GPU", "of": [
   {"name": "copy", "seconds": 1e-3, "bytes": 4e9, "flops": 0},
   {"name": "memory of a process", "seconds": 0, "bytes": 536870912, "flops": 0},
   {"name": "cublaslt bf16 8192x8192x8192", "seconds": 1e-3, "bytes": 0, "flops": 8e11},
   {"name": "all-reduce 16 KiB, 2 streams", "seconds": 8e-6, "bytes": 0, "flops": 0}]},
 "steps-bf16": {"state": "done", "dtype": "bf16", "start_s": 8, "weight_bytes": 16e9, "predicted_by": "p.json", "steps": [
   {"step": "decode 1 at 512", "ms": 4.0, "gb_s": 3600, "gflop_s": 4000, "predicted_ms": 4.1, "off_by": 0.025},
   {"step": "prompt of 2048", "ms": 50, "gb_s": 300, "gflop_s": 560000}]},
 "steps-int8": {"state": "skipped", "why": "no time was left"},
 "profile": {"state": "done", "steps": [{"step": "decode 1 at 512", "profile": [
   {"operation": "matmul", "calls": 9, "ms": 3.9, "share": 0.9}, {"operation": "rest", "calls": 0, "ms": 9, "share": 0.1}]}]},
 "serve": {"state": "done", "clients": 32, "ready_s": 9, "idle_share": 0.02,
   "load": {"output_tok_s": 4000, "ttft_p50_s": 0.1, "itl_p50_s": 0.008, "itl_max_s": 0.1, "failed": 0, "finished": 96}},
 "peers": {"state": "failed", "why": "x", "transformers": "5", "decode_eager_ms": 30.0, "decode_ms": 10.0, "batch_tok_s": 1000.0}}}
J
python3 tools/gpu_report --from "$work/results.json" --out "$work/report.md" >"$work/out" 2>"$work/err"
[ $? = 1 ] && grep -q '| decode, batch 1, bf16, of copying | >= 85 % | 90 % |' "$work/report.md" &&
    grep -q '| decode, batch 1, int8, of copying | >= 80 % | not measured |' "$work/report.md" &&
    grep -q '| prompt of 2048, bf16, of cuBLASLt | >= 65 % | 70 % |' "$work/report.md" &&
    grep -q 'one GPU | <= 10 us | 8.0 us |' "$work/report.md" &&
    grep -q '>= 2 x | 2.5 x (10.00 ms) |' "$work/report.md" &&
    grep -q '>= 3 x | 4.0 x (1000 tokens/s) |' "$work/report.md" &&
    grep -q '| decode step beyond its operations | <= 3 % | 2.5 % |' "$work/report.md" &&
    grep -q '| <= 640 MiB | 512 MiB |' "$work/report.md" &&
    grep -q 'ready in 8.0 s, 2.00 GB/s' "$work/report.md" &&
    grep -q '| kernels | failed | 0 | not done after 70 s |' "$work/report.md" &&
    grep -q '| `real_gpu_peer` | 1 | sums_agree |' "$work/report.md"
claim "a report sets what was measured beside what was aimed at; a failed test is its exit code"

exit $bad
