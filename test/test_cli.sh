#!/bin/bash
# test_cli.sh - the program from outside: exit statuses, where words go, help of every verb.
# Usage: test_cli.sh PATH-OF-TANDEM. Needs no model.
set -u
tandem=$1
. "$(dirname "$0")/claims.bash"

usage_error() { # WORDS...: exit 2, nothing on stdout, exactly one line on stderr
    run "$@"
    [ $rc = 2 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ]
    claim "usage error: tandem $*"
}

mapfile -t verbs < <(sed -n 's/^VERB([A-Z_]*, [a-z_]*, "\([^"]*\)".*/\1/p' src/base/options.def)
for verb in "${verbs[@]}"; do
    run $verb --help
    [ $rc = 0 ] && [ ! -s "$work/err" ] && mentions "Usage: tandem $verb" out &&
        sed -n '/^Example:/,$p' "$work/out" | grep -q "^  tandem $verb"
    claim "help of $verb"
    cp "$work/out" "$work/first"
    run help $verb
    [ $rc = 0 ] && cmp -s "$work/first" "$work/out"
    claim "tandem help $verb says the same"
    [ -s "$work/out" ] && [ "$(awk 'length > 100' "$work/out" | wc -l)" = 0 ]
    claim "help of $verb fits a terminal"
done

run
[ $rc = 0 ] && mentions 'Verbs:' out
claim "without arguments the verbs are listed"
for verb in "${verbs[@]}"; do
    grep -qE "^  $verb  +[a-z]" "$work/out"
    claim "the list has $verb"
done
[ "$(grep -cE '^  [a-z-]+( [a-z]+)?  ' "$work/out")" = ${#verbs[@]} ]
claim "the list has nothing else"

run --version
[ $rc = 0 ] && grep -qE '^tandem [0-9]+\.[0-9]+\.[0-9]+$' "$work/out"
claim "the version is a version"

usage_error nonsense
usage_error run --nonsense
usage_error run --tp two
usage_error run --tp
usage_error run a b c
usage_error bench
usage_error bench allreduce --min 2M --max 1M
usage_error make-model onlyname
usage_error help nonsense
usage_error help run run
usage_error plan --plan x.json --tp 2 "$work"

refused_plan() { # WORD COMMAND...: one sentence with the word
    local word=$1
    shift
    run "$@"
    [ $rc != 0 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions "$word" err
    claim "refused: tandem $*"
}
refused_plan 'has no experts' run --ep 2 hi
refused_plan 'ep=3 does not divide tp=4' plan mixtral-8x7b --tp 4 --ep 3
refused_plan '8 experts' plan mixtral-8x7b --tp 16 --ep 16
refused_plan '8 experts' plan mixtral-8x7b --ep 16 --hardware dgx-h100 --rate 1
refused_plan 'has no experts' plan llama-3-8b --ep 2 --hardware dgx-h100 --rate 1
run plan mixtral-8x7b --ep 4 --sp
[ $rc = 0 ] && mentions 'tp 4, ep 4, sp' out
claim "--ep alone gives every run one slice"

TANDEM_PLUGIN_PATH=/nowhere run run --device cuda hi
[ $rc = 1 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions /nowhere err
claim "a GPU that is asked for and cannot be used is one line"
TANDEM_PLUGIN_PATH=/nowhere run plan llama-3-8b --device cpu
[ $rc = 0 ] && [ ! -s "$work/err" ] && mentions LlamaForCausalLM out
claim "--device cpu asks for no GPU"
usage_error run --device gpu
usage_error plan --device gpu

# hwloc lets us pretend.
HWLOC_SYNTHETIC='numa:2 core:64 pu:2' run plan llama-3-8b
[ $rc = 0 ] && mentions 'tp 2; 64 threads each' out && grep -q '^ *1  *128/1 ' "$work/out"
claim "on two nodes of 64 cores a plan has two slices, and shows their nodes"
HWLOC_SYNTHETIC='numa:1 core:64 pu:2' run plan llama-3-8b
[ $rc = 0 ] && mentions 'tp 1; 64 threads each' out && grep -q '^ *0  *0 ' "$work/out"
claim "on one node it has one, and no node is shown"
run run 'What is 17 + 25?'
cp "$work/out" "$work/first"
HWLOC_SYNTHETIC='numa:2 core:1 pu:1' run run 'What is 17 + 25?'
[ $rc = 0 ] && [ -s "$work/out" ] && cmp -s "$work/first" "$work/out" && mentions ' 1/1 ' err
claim "two nodes, one of which is not there, give the same answer"

mkdir "$work/empty"
for verb in run plan; do
    run $verb "$work/absent" prompt
    [ $verb = run ] || run $verb "$work/absent"
    [ $rc = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions "$work/absent" err
    claim "$verb: an absent model is one line with its name"
    run $verb "$work/empty"
    [ $rc = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && mentions config.json err
    claim "$verb: a folder without config.json is one line that says so"
done

if [ -w /dev/full ]; then
    "$tandem" help >/dev/full 2>"$work/err"
    [ $? = 1 ] && mentions 'standard output' err
    claim "a full disk is not success"
fi

export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # hwloc's PCI library keeps its table for good
run topo
[ $rc = 0 ] && grep -qE '[0-9]+ sockets?, [0-9]+ NUMA nodes?, [0-9]+ cores?' "$work/out" && mentions NVIDIA out
claim "topo shows this machine"
HWLOC_SYNTHETIC='package:2 [numa] l3:1 core:4 pu:2' run topo
[ $rc = 0 ] && mentions '2 sockets, 2 NUMA nodes, 8 cores, 16 threads' out &&
    grep -qE '^cores 0 +- +sockets' "$work/out"
claim "topo shows what stands between cores"
run topo --json
[ $rc = 0 ] && python3 -c 'import json, sys; json.load(sys.stdin)["between"]' <"$work/out"
claim "topo --json is JSON"
usage_error topo -o "$work/profile.json"
run topo --measure -o "$work/nowhere/profile.json"
[ $rc = 1 ] && [ ! -s "$work/out" ] && mentions 'No such file' err
claim "topo refuses a file that cannot be written before it measures"

run help --man
[ $rc = 0 ] && [ "$(head -c 3 "$work/out")" = .TH ]
claim "the manual page is roff"
if command -v man >/dev/null; then
    [ -z "$(LC_ALL=C MANWIDTH=80 man --warnings -l "$work/out" 2>&1 >/dev/null)" ]
    claim "the manual page formats without warnings"
fi

run help --completion
cp "$work/out" "$work/completion"
complete_words() { # the answers for a command line whose last word is being typed
    bash -c 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tandem 2>/dev/null; echo "${COMPREPLY[*]}"' \
        "$work/completion" "$@"
}
[ "$(complete_words tandem pl)" = plan ]
claim "completion knows verbs"
[ "$(complete_words tandem bench al)" = allreduce ]
claim "completion knows the second word"
[ "$(complete_words tandem run --temp)" = --temperature ]
claim "completion knows options"
[ "$(complete_words tandem run --dtype b)" = bf16 ]
claim "completion knows choices"
[ "$(complete_words tandem bench allreduce --ra)" = --ranks ]
claim "completion knows the options of a verb of two words"

echo "1..$count"
exit $bad
