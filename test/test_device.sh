#!/bin/bash
# test_device.sh - where the program computes: --device, with and without GPUs, which are a model in
# software here. Usage: test_device.sh PATH-OF-TANDEM
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"
build=$(dirname "$tandem")
model=$build/model
[ -e "$model/libtandem-cuda.so" ] || { echo "skipped: no C++ compiler, so no model of a GPU"; exit 77; }
export TANDEM_DEMO=$PWD/models/demo
unset TANDEM_PLUGIN_PATH CUDA_VISIBLE_DEVICES

# The driver's own library, as a machine with GPUs has it.
mkdir "$work/driver"
ln -s "$(realpath "$build/libfake_nvml.so")" "$work/driver/libnvidia-ml.so.1"

TANDEM_PLUGIN_PATH=/nowhere run plan
[ $rc = 0 ] && [ ! -s "$work/err" ] && ! mentions 'gpu 0' out
claim "without a driver auto is the CPU, and says nothing"

LD_LIBRARY_PATH=$work/driver TANDEM_PLUGIN_PATH=/nowhere run plan
[ $rc = 0 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions 'no GPU is used' err && mentions /nowhere err &&
    ! mentions 'gpu 0' out
claim "with GPUs but no plugin auto is the CPU, and one line says why"

LD_LIBRARY_PATH=$work/driver TANDEM_PLUGIN_PATH=$model run plan
[ $rc = 0 ] && [ ! -s "$work/err" ] && mentions 'gpu 0' out && mentions 'numerics cuda-sm' out
claim "with GPUs and the plugin auto takes them"

LD_LIBRARY_PATH=$work/driver TANDEM_PLUGIN_PATH=$model run plan --device cpu
[ $rc = 0 ] && ! mentions 'gpu 0' out
claim "but not with --device cpu"

LD_LIBRARY_PATH=$work/driver TANDEM_PLUGIN_PATH=$model run plan --isa ref
[ $rc = 0 ] && ! mentions 'gpu 0' out
claim "nor with an instruction set of the CPU"

export TANDEM_PLUGIN_PATH=$model
run plan --device cuda --json
cp "$work/out" "$work/plan.json"
[ $rc = 0 ] && mentions '"cuda-sm' out
claim "a plan for GPUs says whose bits they are"

run run --device cpu --plan "$work/plan.json" hi
[ $rc = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions 'cuda-sm' err
claim "and is refused where these bits cannot be had"

words='What is the capital of France?'
run run --device cpu --dtype f32 --quiet "$words"
cp "$work/out" "$work/want"
[ $rc = 0 ] && [ -s "$work/want" ]
claim "the CPU answers"
for split in "" "--tp 2" "--pp 2"; do
    run run --device cuda --dtype f32 --quiet $split "$words"
    [ $rc = 0 ] && cmp -s "$work/out" "$work/want"
    claim "GPUs answer the same ${split:+with $split}"
done

run plan llama-3-8b --device cuda
[ $rc != 0 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions 'MiB free, but' err &&
    mentions 'tokens of cache would fit' err
claim "a model that is too large is refused with what would fit"
run plan llama-3-8b --device cuda --dtype int8
[ $rc = 0 ] && mentions 'gpu 0' out
claim "and that fits"

TANDEM_MODEL_GPU="gpus=2 free=8000/0" run plan --device cuda
[ $rc = 0 ] && mentions 'gpu 0' out
claim "a GPU that others have filled does not keep the others from work"
TANDEM_MODEL_GPU="gpus=2 free=0/8000" run plan --device cuda
[ $rc = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions ') has 0 MiB free' err && mentions 'others use' err
claim "and says so where it would have to work"

echo "1..$count"
exit $bad
