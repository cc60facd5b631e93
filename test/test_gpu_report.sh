#!/bin/bash
# test_gpu_report.sh - tools/gpu_report without a GPU, and the report of results that were kept;
# the benchmark of kernels runs on the model of a GPU. Usage: test_gpu_report.sh PATH-OF-TANDEM.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"
build=$(dirname "$tandem")

if [ ! -e /dev/nvidiactl ]; then
    python3 tools/gpu_report --out "$work/report.md" >"$work/out" 2>"$work/err"
    [ $? = 77 ] && grep -q '^skipped: no GPU' "$work/out" && [ ! -e "$work/report.md" ]
    claim "without a GPU the report says so, ends with 77 and writes nothing"
fi

if [ -x "$build/bench_gpu_model" ]; then
    "$build/bench_gpu_model" --tiny >"$work/kernels.json" 2>"$work/err"
    python3 - "$work/kernels.json" <<'P'
import json, sys
of = json.load(open(sys.argv[1]))["of"]
names = {k["name"] for k in of}
assert {"copy", "gate+up bf16 rows 1", "down int4 rows 3", "all-reduce 16 KiB, 2 streams"} <= names
assert all(k["seconds"] > 0 for k in of) and len(of) == len(names)
P
    claim "the benchmark of kernels measures each of them once"
fi

cat >"$work/results.json" <<'J'
{"arch": 90, "n": 1, "model": "llama-3-8b", "profile": "dgx-h200", "date": "D", "commit": "c",
 "driver": "1", "seconds": 1,
 "tests": [{"name": "real_gpu_rows", "code": 0, "passed": 5, "failed": [], "why": ""},
           {"name": "real_gpu_peer", "code": 1, "passed": 1, "failed": ["sums_agree"], "why": "bad"}],
 "sanitizer": {"why": "compute-sanitizer is not installed"},
 "kernels": {"gpu": "Test GPU", "of": [
   {"name": "copy", "seconds": 1e-3, "bytes": 4e9, "flops": 0},
   {"name": "cublaslt bf16 8192x8192x8192", "seconds": 1e-3, "bytes": 0, "flops": 8e11},
   {"name": "all-reduce 16 KiB, 2 streams", "seconds": 8e-6, "bytes": 0, "flops": 0}]},
 "steps": [{"dtype": "bf16", "why": "", "steps": [
   {"step": "decode 1 at 512", "ms": 4.0, "gb_s": 3600, "gflop_s": 4000, "predicted_ms": 4.1, "off_by": 0.025},
   {"step": "prompt of 2048", "ms": 50, "gb_s": 300, "gflop_s": 560000}]},
  {"dtype": "int8", "steps": [], "why": "out of time"}],
 "peer": {"decode_ms": 10.0}}
J
python3 tools/gpu_report --from "$work/results.json" --out "$work/report.md" >"$work/out" 2>"$work/err"
[ $? = 1 ] && grep -q '| decode, batch 1, bf16, of copying | >= 85 % | 90 % |' "$work/report.md" &&
    grep -q '| decode, batch 1, int8, of copying | >= 80 % | not measured |' "$work/report.md" &&
    grep -q '| prompt of 2048, bf16, of cuBLASLt | >= 65 % | 70 % |' "$work/report.md" &&
    grep -q 'one GPU | <= 10 us | 8.0 us |' "$work/report.md" &&
    grep -q '>= 2 x | 2.5 x (10.00 ms) |' "$work/report.md" &&
    grep -q '| `real_gpu_peer` | 1 | sums_agree |' "$work/report.md"
claim "a report sets what was measured beside what was aimed at; a failed test is its exit code"

exit $bad
