#!/usr/bin/env python3
"""accuracy.py - predicted beside measured, over a grid of models, layouts and steps.

For every model: the hardware is measured (tandem topo --measure), then every layout's steps are
(tandem bench latency --predict), again and again; so calibration and measurement see the same
state of a shared machine. What the same step differs by from one repeat to the next is the
machine's own error, shown beside that of the prediction.

    bench/accuracy.py --tandem build/tandem /tmp/1b:int8 /tmp/1b:bf16 --json points.json
    bench/accuracy.py --add points.json --add more.json

Weights are converted while loading, so that they lie in huge pages, as those that were calibrated
with. Take an odd number of rounds: of an even one the median is the slower of the middle two.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile

LAYOUTS = {
    "tp 1": ["--tp", "1", "--threads-per-rank", "1"],
    "tp 1, 2 threads": ["--tp", "1", "--threads-per-rank", "2"],
    "tp 2": ["--tp", "2"],
    "pp 2": ["--pp", "2"],
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("models", nargs="*", help="FOLDER:DTYPE")
    p.add_argument("--tandem", default="build/tandem")
    p.add_argument("--repeats", type=int, default=2, help="of everything [2]")
    p.add_argument("--rounds", type=int, default=3, help="turns of each measurement [3]")
    p.add_argument("--batch", default="1,4,16")
    p.add_argument("--context", default="128,1024")
    p.add_argument("--prompt", default="64,256")
    p.add_argument("--layouts", default=";".join(LAYOUTS), help="some of: %(default)s")
    p.add_argument("--hardware", help="take this profile; do not measure one")
    p.add_argument("--under", default="", help="command that every measurement runs under")
    p.add_argument("--add", action="append", default=[], help="count the points of this file too")
    p.add_argument("--json", help="write all points to this file")
    return p.parse_args()


def run(o, *command):
    done = subprocess.run(o.under.split() + [o.tandem, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"tandem {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def measure(o, model, layout, profile):
    """Points of one layout, each with what was predicted."""
    steps = ["--batch", o.batch, "--context", o.context, "--prompt", o.prompt]
    folder, dtype = model.rsplit(":", 1)
    out = run(o, "bench", "latency", folder, "--dtype", dtype, *LAYOUTS[layout], *steps,
              "--rounds", str(o.rounds), "--predict", profile, "--json")
    out = json.loads(out)
    moved = yardstick(out["limits"][0], json.load(open(profile)), dtype)
    return [dict(model=model, layout=layout, step=s["step"], ms=s["ms"],
                 predicted=s["predicted_ms"], moved=moved) for s in out["steps"]]


def yardstick(limits, profile, dtype):
    """How much quicker cores multiply and read than when the profile was measured, all at once. The
    host under a virtual machine may give its cores other neighbours from one moment to the next."""
    cores = limits["cores"]
    if cores < profile["rates"][-1]["active"]:
        return 0
    math = 1e9 * limits["math_gflop_s"] / cores / profile["math_rate"][dtype]["value"]
    read = 1e9 * limits["read_gb_s"] / profile["memory_rate"]["value"]
    return max(math - 1, read - 1, key=abs)


def all_points(o):
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(o.repeats):
            for model in o.models:
                profile = o.hardware or f"{folder}/{repeat}.json"
                dtype = model.rsplit(":", 1)[1]
                if not o.hardware:
                    run(o, "topo", "--measure", "--dtype", dtype, "-q", "-o", profile)
                for layout in o.layouts.split(";"):
                    print(f"{model} {layout}, repeat {repeat + 1}", file=sys.stderr)
                    points += [dict(p, repeat=repeat) for p in measure(o, model, layout, profile)]
                    if o.json:
                        with open(o.json, "w") as f:
                            json.dump(points, f, indent=1)
    return points


def quantile(values, q):
    s = sorted(values)
    return s[min(len(s) - 1, int(q * len(s)))] if s else float("nan")


def by_key(points, key):
    groups = {}
    for p in points:
        groups.setdefault(key(p), []).append(p)
    return groups


def own_error(points):
    """What repeats of the same step lie from each other, relative to their mean."""
    out = []
    for same in by_key(points, lambda p: (p["model"], p["layout"], p["step"])).values():
        ms = [p["ms"] for p in same]
        if len(ms) > 1:
            out.append((max(ms) - min(ms)) / (sum(ms) / len(ms)))
    return out


def line(name, points):
    off = [abs(p["predicted"] / p["ms"] - 1) for p in points]
    bias = quantile([p["predicted"] / p["ms"] - 1 for p in points], 0.5)
    own = own_error(points)
    percent = [100 * x for x in (quantile(off, 0.5), quantile(off, 0.9), bias,
                                 quantile(own, 0.5), quantile(own, 0.9))]
    return "| %s | %d | %.1f %% | %.1f %% | %+.1f %% | %.1f %% | %.1f %% |" % (
        name, len(points), *percent)


def middle(points):
    """One point a step: the medians of what was predicted and of what was measured."""
    out = []
    for same in by_key(points, lambda p: (p["model"], p["layout"], p["step"])).values():
        out.append(dict(same[0], ms=statistics.median(p["ms"] for p in same),
                        predicted=statistics.median(p["predicted"] for p in same)))
    return out


def report(points):
    print("| of | points | error, median | error, P90 | bias | repeats, median | repeats, P90 |")
    print("|---|---|---|---|---|---|---|")
    for name, some in by_key(points, lambda p: f"{p['model']}, {p['layout']}").items():
        print(line(name, some))
    for name, some in by_key(points, lambda p: "decode" if "decode" in p["step"] else
                             "prompts").items():
        print(line(f"all {name}", some))
    print(line("all", points))
    print(line("all, medians of the repeats", middle(points)))
    steady = [p for p in points if abs(p["moved"]) <= 0.15]
    print(line("all while the yardsticks stayed within 15 %", steady))


def main():
    o = arguments()
    points = all_points(o)
    for name in o.add:
        with open(name) as f:
            points += json.load(f)
    report(points)


main()
