#!/usr/bin/env python3
"""Fit the model of src/topo/hardware.h to published measurements of collectives.

    tools/fit_collectives.py FOLDER [--table | --write tools/collectives.tsv]

FOLDER holds nccl_*.csv: nccl-tests as aiconfigurator's collector ran them, with num_gpus,
message_size in elements of nccl_dtype, latency in ms; and vidur_*_dgx_send_recv.csv: sends of
`size` bytes, times in ms, inside a DGX (devices_per_node 2) or between two of them. The model of one operation among P ranks is

    latency + min(w, knee) * near + max(0, w - knee) * far

with w the bytes that a rank must read: 2 (P-1)/P N of a sum, (P-1)/P N of the others (N: the whole
buffer, as nccl-tests count it; N of a send). Half precision is fitted, for the least mean of relative errors
(least squares reweighted, for every knee between two measured sizes); the runs with int8, which the
fit has not seen, tell how good it is. Of sends, thirty sizes are fitted and all others unseen.
--table prints that as Markdown, --write the constants.
"""
import csv
import glob
import math
import os
import statistics
import sys

OPS = {"all_reduce": "sum", "reduce_scatter": "scatter-sum", "all_gather": "gather",
       "alltoall": "all-to-all"}
BYTES = {"half": 2, "int8": 1}


def reads(op, ranks, n):
    return n if op == "send" else (2 if op == "sum" else 1) * (ranks - 1) / ranks * n


def sends(path):
    """Lists of (bytes, seconds) by whether the two devices share a node."""
    found = {"2": [], "1": []}
    for row in csv.DictReader(open(path)):
        found[row["devices_per_node"]].append(
            (int(row["size"]), float(row["time_stats.send_recv.median"]) / 1e3))
    return sorted(found["2"]), sorted(found["1"])


def thinned(points, n=30):
    """n of them, evenly by the logarithm of their size, and the others."""
    lo, hi = math.log(points[0][0]), math.log(points[-1][0])
    marks = [math.exp(lo + (hi - lo) * i / (n - 1)) for i in range(n)]
    kept = sorted({min(points, key=lambda p: abs(p[0] / m - 1)) for m in marks})
    return kept, [p for p in points if p not in kept]


def measured(folder):
    """{(system, op, ranks): {"fit" or "unseen": [(w, seconds)]}}"""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "nccl_*.csv"))):
        system = os.path.basename(path)[5:-4]
        for row in csv.DictReader(open(path)):
            op, ranks = OPS[row["op_name"]], int(row["num_gpus"])
            n = int(row["message_size"]) * BYTES[row["nccl_dtype"]]
            by_type = found.setdefault((system, op, ranks), {})
            by_type.setdefault("fit" if row["nccl_dtype"] == "half" else "unseen", []).append(
                (reads(op, ranks, n), float(row["latency"]) / 1e3))
    for path in sorted(glob.glob(os.path.join(folder, "vidur_*_dgx_send_recv.csv"))):
        gpu = os.path.basename(path).split("_")[1]
        for system, points in zip((gpu + "_sxm", gpu + "_infiniband"), sends(path)):
            kept, rest = thinned(points)
            found[system, "send", 2] = {"fit": kept, "unseen": rest}
    return found


def solve(a, b):
    """Gauss with pivots; None where a is singular."""
    n = len(b)
    m = [row[:] + [y] for row, y in zip(a, b)]
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(m[r][i]))
        if abs(m[p][i]) < 1e-300:
            return None
        m[i], m[p] = m[p], m[i]
        for r in range(n):
            if r != i:
                f = m[r][i] / m[i][i]
                m[r] = [x - f * y for x, y in zip(m[r], m[i])]
    return [m[i][n] / m[i][i] for i in range(n)]


def seconds(fit, w):
    latency, near, far, knee = fit
    return latency + min(w, knee) * near + max(0, w - knee) * far


def errors(fit, points):
    return [abs(seconds(fit, w) / t - 1) for w, t in points]


def fit_at(points, knee):
    """The least mean of relative errors with this knee."""
    scale = (1e-6, 1e-11, 1e-11)
    rows = [[scale[0] / t, min(w, knee) * scale[1] / t, max(0, w - knee) * scale[2] / t]
            for w, t in points]
    weight = [1.0] * len(rows)
    best = None
    for _ in range(40):
        a = [[sum(k * r[i] * r[j] for k, r in zip(weight, rows)) for j in range(3)]
             for i in range(3)]
        b = [sum(k * r[i] for k, r in zip(weight, rows)) for i in range(3)]
        x = solve(a, b)
        if x is None or min(x) < 0:
            break
        fit = tuple(v * s for v, s in zip(x, scale)) + (knee,)
        error = statistics.mean(errors(fit, points))
        if best is None or error < best[0]:
            best = (error, fit)
        weight = [1 / max(1e-4, abs(sum(v * r for v, r in zip(x, row)) - 1)) for row in rows]
    return best


def fit(points):
    sizes = sorted({w for w, _ in points})
    knees = [math.sqrt(a * b) for a, b in zip(sizes[1:], sizes[2:])] + sizes[2:-2]
    return min(f for f in (fit_at(points, k) for k in knees) if f)[1]


def quantile90(x):
    return sorted(x)[math.ceil(0.9 * len(x)) - 1]


def main():
    folder = sys.argv[1]
    out = open(sys.argv[3], "w") if "--write" in sys.argv else sys.stdout
    found = measured(folder)
    every, fitted = [], []
    if "--table" in sys.argv:
        print("| system | operation | ranks | latency, µs | GB/s near, far | knee, MiB read | "
              "MAPE, fitted | MAPE, unseen | P90, unseen |\n|---|---|---|---|---|---|---|---|---|")
    else:
        print("# system op ranks latency_s byte_s far_byte_s knee_bytes error\n"
              "# by tools/fit_collectives.py; error: the 90th percentile over runs not fitted",
              file=out)
    for (system, op, ranks), points in found.items():
        f = fit(points["fit"])
        own, unseen = errors(f, points["fit"]), errors(f, points["unseen"])
        if op != "send":
            every += unseen
            fitted += own
        if "--table" in sys.argv:
            print(f"| {system} | {op} | {ranks} | {f[0] * 1e6:.1f} | {1e-9 / f[1]:.0f}, "
                  f"{1e-9 / f[2]:.0f} | {f[3] / 2**20:.2f} | {100 * statistics.mean(own):.1f} % | "
                  f"{100 * statistics.mean(unseen):.1f} % | {100 * quantile90(unseen):.1f} % |")
        else:
            print(system, op, ranks, *(f"{x:.4g}" for x in f), f"{quantile90(unseen):.3f}",
                  sep="\t", file=out)
    if "--table" in sys.argv:
        print(f"\nWithout sends, all {len(fitted)} fitted runs: MAPE {100 * statistics.mean(fitted):.1f} %, P90 "
              f"{100 * quantile90(fitted):.1f} %; all {len(every)} unseen runs: MAPE {100 * statistics.mean(every):.1f} %, P90 "
              f"{100 * quantile90(every):.1f} %.")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
