#!/usr/bin/env python3
"""neighbour.py - decode while another process keeps one core busy: all threads beside one thread, in turns.

    python3 bench/neighbour.py PACKED [--rounds 5] [--tokens 200] [-- OPTION...]

Prints tokens/s of `tandem run`, medians (least to most), quiet and with the neighbour; and the ratio of the
default layout (or of OPTIONs) to one rank with one thread, by rounds.
"""
import argparse, re, statistics, subprocess, sys


def rate(*options):
    out = subprocess.run([A.tandem, "run", A.model, "-n", str(A.tokens), "-t", "0", *options, "Tell me about the sea."],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True).stderr
    return float(re.search(r"answer \d+ tokens, ([\d.]+) tokens/s", out).group(1))


def spread(x, digits=1):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tandem", default="build/tandem")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--tokens", type=int, default=200)
    p.add_argument("model")
    p.add_argument("options", nargs="*")
    A = p.parse_args()
    print("| | all threads | one thread | ratio |\n|---|---|---|---|")
    for name, command in (("quiet", ["sleep", "100000"]), ("one busy neighbour", [sys.executable, "-c", "while True: pass"])):
        neighbour = subprocess.Popen(command)
        try:
            turns = [(rate(*A.options), rate("--threads-per-rank", "1")) for _ in range(A.rounds)]
        finally:
            neighbour.kill()
        a, b = zip(*turns)
        print(f"| {name} | {spread(a)} | {spread(b)} | {spread([x / y for x, y in turns], 2)} |", flush=True)
