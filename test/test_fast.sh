#!/bin/bash
# --fast on the model of a GPU: what is said, what is refused, and that ranks work.
tandem=$1
build=$(dirname "$tandem")
[ -e "$build/model/libtandem-cuda.so" ] || { echo "skipped: no model of a GPU was built"; exit 77; }
export TANDEM_PLUGIN_PATH=$build/model TANDEM_MODEL_GPU="gpus=2"
export TANDEM_NCCL=$build/model/fake/libnccl.so.2
export TANDEM_CUBLASLT=$build/model/fake/libcublasLt.so.13
failed=0
says() { # word command...
    word=$1; shift
    if ! "$@" 2>&1 | grep -q -- "$word"; then
        echo "FAILED: no '$word' in: $*"
        "$@" 2>&1 | head -5
        failed=1
    fi
}
run=(--max-tokens 4 hello)
says "leave it out" "$tandem" run --fast --device cpu "${run[@]}"
says "leave it out" "$tandem" plan --fast --device cpu
says "depend on the layout" "$tandem" plan --fast --device cuda
says '"numerics": "cuda-sm[0-9]*-fast"' "$tandem" plan --fast --device cuda --json
says "depend on the layout" "$tandem" run --fast --device cuda --tp 2 "${run[@]}"
says "gpu 1" "$tandem" run --fast --device cuda --tp 2 "${run[@]}"
TANDEM_NCCL=/nowhere.so says "install NCCL" "$tandem" run --fast --device cuda --tp 2 "${run[@]}"
TANDEM_CUBLASLT=/nowhere.so says "install cuBLAS" "$tandem" plan --fast --device cuda
FAKE_NCCL_VERSION=21706 says "2.17.6" "$tandem" run --fast --device cuda --tp 2 "${run[@]}"
TANDEM_MODEL_GPU="gpus=2 peers=0" says "a GPU each" "$tandem" run --device cuda --tp 4 "${run[@]}"
one=$("$tandem" run --device cuda --temperature 0 -q "${run[@]}" 2>/dev/null)
two=$(TANDEM_MODEL_GPU="gpus=2 peers=0" "$tandem" run --device cuda --temperature 0 --tp 2 -q "${run[@]}" 2>/dev/null)
[ -n "$one" ] && [ "$one" = "$two" ] || { echo "FAILED: '$one' is not '$two'"; failed=1; }
exit $failed
