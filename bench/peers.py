#!/usr/bin/env python3
"""peers.py - tandem and llama.cpp side by side, in turns, on the same numbers.

    python3 bench/peers.py TANDEM_MODEL GGUF LLAMA_BENCH LLAMA_BATCHED_BENCH [ROUNDS] [TANDEM_OPTION]...

TANDEM_MODEL is a folder (packed ones start fastest), GGUF the same model for the peer (tools/to_gguf.py).
Two ranks against two threads. Prints the medians over the rounds, their spread, and the ratio; ratios
are of one round each, as this machine's neighbours change from minute to minute.
"""
import json, os, re, statistics, subprocess, sys

TANDEM = os.environ.get("TANDEM", "build/tandem")
BATCHES = [1, 4, 16, 32]


def tandem(model, options):
    out = subprocess.run([TANDEM, "bench", "latency", model, "--tp", "2", "--prompts", "512", "--batches",
                          ",".join(map(str, BATCHES)), "--contexts", "160", "--rounds", "3", "--json", *options],
                         check=True, capture_output=True).stdout
    return {s["step"].rsplit(" at", 1)[0]: s["tokens_per_s"] for s in json.loads(out)["steps"]}


def peer(gguf, bench, batched):
    out = subprocess.run([bench, "-m", gguf, "-p", "512", "-n", "32", "-r", "2", "-t", "2", "-fa", "1", "-o", "json"],
                         check=True, capture_output=True).stdout
    got = {}
    for r in json.loads(out):
        got["prompt of 512" if r["n_prompt"] else "decode 1"] = r["avg_ts"]
    out = subprocess.run([batched, "-m", gguf, "-c", "8192", "-b", "2048", "-ub", "512", "-npp", "128", "-ntg", "32",
                          "-npl", ",".join(map(str, BATCHES[1:])), "-t", "2", "-tb", "2", "-fa", "on"],
                         check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():  # | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | T | S |
        cells = [c.strip() for c in line.strip("| ").split("|")]
        if len(cells) == 10 and re.fullmatch(r"\d+", cells[0]):
            got[f"decode {cells[2]}"] = float(cells[7])
    return got


def main():
    model, gguf, bench, batched = sys.argv[1:5]
    rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(tandem(model, sys.argv[6:]))
        theirs.append(peer(gguf, bench, batched))
    print(f"{model} beside {gguf}, tokens/s, medians of {rounds} rounds (least to most)")
    for step in ours[0]:
        a, b = [o[step] for o in ours], [t[step] for t in theirs]
        ratio = statistics.median(x / y for x, y in zip(a, b))
        print(f"{step:14} {statistics.median(a):8.1f} ({min(a):.1f} to {max(a):.1f})   llama.cpp "
              f"{statistics.median(b):8.1f} ({min(b):.1f} to {max(b):.1f})   ratio {ratio:.2f}", flush=True)


main()
