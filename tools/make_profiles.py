#!/usr/bin/env python3
"""Write profiles/*.json, the hardware profiles that are shipped: tools/make_profiles.py [FOLDER]

One table of devices and one of machines below; constants of collectives from tools/collectives.tsv
(tools/fit_collectives.py) and from the fits quoted here. Rates of products follow from the vendor's
rates by the efficiencies that fit published runs, as src/topo/hardware_simple.c does it too.
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MIB, GIB = 2**20, 2**30

# Shares of the vendor's rates that kernels reach: fitted to published runs of Llama-3.1-70B and
# Qwen3-32B on A100, H100, H200 and B200 (memory 0.86-0.89, arithmetic 0.74-0.89, keys 0.88-1.0).
MEMORY, MATH, KEYS = 0.87, 0.80, 0.92
# By the same fits: a layer has 32-42 us of fixed costs, which is 8 operations; a step 0-1.5 ms, and
# 13-46 us more per sequence.
OP_S, STEP_S, SEQ_S = 37e-6 / 8, 0.5e-3, 25e-6

# Bits of a weight with its part of the scales (src/base/mat.h), and whose arithmetic it takes.
FORMATS = {"f32": (32, "f32"), "f16": (16, "bf16"), "bf16": (16, "bf16"),
           "int8": (8 + 16 / 128, "int8"), "int8-g32": (8 + 16 / 32, "int8"),
           "int4": (4 + 16 / 64, "int8"), "int4-g32": (4 + 16 / 32, "int8"),
           "int4-g32z": (4 + 32 / 32, "int8"), "int4-g128": (4 + 16 / 128, "int8"),
           "fp8": (8 + 32 / 128, "bf16")}
KEY_FORMATS = ("f32", "f16", "bf16", "int8")


def fig(value, source, error=0.0):
    return {"value": float(f"{value:.6g}") if source != "datasheet" else value, "error": error,
            "source": source}


def curve(x, y, source, error):
    return {"x": x, "y": [float(f"{v:.5g}") for v in y], "error": error, "source": source}


# ------------------------------------------------------------------------------- GPUs
# memory: what the driver shows, in MiB. Rates in GB/s and TFLOP/s (dense); dollars an hour: about
# what clouds listed per GPU in 2025; watts by the datasheet.
GPUS = {
    "A100 SXM 40 GB": dict(mib=40536, gb_s=1555, f32=19.5, bf16=312, int8=624, usd=1.3, watts=400),
    "A100 SXM 80 GB": dict(mib=81920, gb_s=2039, f32=19.5, bf16=312, int8=624, usd=1.8, watts=400),
    "H100 SXM": dict(mib=81559, gb_s=3350, f32=67, bf16=989, int8=1979, usd=3.0, watts=700),
    "H200 SXM": dict(mib=143771, gb_s=4800, f32=67, bf16=989, int8=1979, usd=3.8, watts=700),
    "B200 SXM": dict(mib=183359, gb_s=7700, f32=75, bf16=2250, int8=4500, usd=5.0, watts=1000),
    "L40S": dict(mib=46068, gb_s=864, f32=91.6, bf16=362, int8=733, usd=0.9, watts=350),
    "RTX 4090": dict(mib=24564, gb_s=1008, f32=82.6, bf16=165.2, int8=660.6, usd=0.6, watts=450),
    "RTX PRO 6000": dict(mib=97887, gb_s=1792, f32=120, bf16=468, int8=936, usd=1.8, watts=600),
}

ROWS = [2**i for i in range(13)]


def product(bits, bytes_s, ops_s):
    """Seconds per weight: reading it or multiplying it, near the ridge a little longer than both."""
    read = bits / 8 / (bytes_s * MEMORY)
    return [(read**4 + (2 * x / (ops_s * MATH))**4) ** 0.25 for x in ROWS]


def gpu_rates(g, error):
    bytes_s = g["gb_s"] * 1e9
    ops = {t: g[t] * 1e12 for t in ("f32", "bf16", "int8")}
    # Single rows use a part of the tensor cores, parts of prompts half of their peak.
    seen = curve([1, 64, 4096], [2 / (ops["bf16"] * r) for r in (0.1, 0.5, 0.5)], "fitted", 0.3)
    return {
        "active": 1,
        "product": {t: curve(ROWS, product(bits, bytes_s, ops[by]), "fitted", error)
                    for t, (bits, by) in FORMATS.items()},
        "attend_byte_s": {t: fig(1 / (bytes_s * KEYS), "fitted", error) for t in KEY_FORMATS},
        "attend_madd_s": {t: seen for t in KEY_FORMATS},
        "byte_s": fig(1 / (bytes_s * MEMORY), "fitted", error),
        "op_s": fig(OP_S, "fitted", 0.2),
        "draw_s": fig(16 / (bytes_s * MEMORY), "fitted", 1.0),
    }


def gpu(name, error=0.15):
    g = GPUS[name]
    return {
        "device": name, "kind": "gpu",
        "memory_bytes": fig(g["mib"] * MIB, "datasheet"),
        "reserve_bytes": {"value": 3 * GIB // 2, "error": 0.5, "source": "fitted"},
        "memory_rate": fig(int(g["gb_s"] * 1e9), "datasheet"),
        "price_hour": fig(g["usd"], "given", 0.3),
        "watts": fig(g["watts"], "datasheet"),
        "step_s": fig(STEP_S, "fitted", 1.0), "seq_s": fig(SEQ_S, "fitted", 0.5),
        "math_rate": {t: fig(int(g[by] * 1e12), "datasheet") for t, (_, by) in FORMATS.items()},
        "rates": [gpu_rates(g, error)],
    }


# ------------------------------------------------------------------------------- links
def collective(op, way, ranks, latency_us, near_gb_s, far_gb_s=None, knee=0, source="fitted",
               error=0.1):
    return {"op": op, "way": way, "ranks": ranks,
            "latency_s": fig(latency_us * 1e-6, source, error),
            "byte_s": fig(1e-9 / near_gb_s, source, error),
            "far_byte_s": fig(1e-9 / (far_gb_s or near_gb_s), source, error), "knee_bytes": knee}


def fitted(system, wanted):
    """NCCL's collectives among the wanted numbers of ranks, from tools/collectives.tsv."""
    found = []
    for line in open(os.path.join(HERE, "collectives.tsv")):
        if line.startswith("#"):
            continue
        name, op, ranks, latency, near, far, knee, error = line.split()
        if name == system and int(ranks) in wanted:
            way = "ring" if op not in ("all-to-all", "send") else "one-shot"
            found.append(collective(op, way, int(ranks), float(latency) * 1e6, 1e-9 / float(near),
                                    1e-9 / float(far), round(float(knee)), error=float(error)))
    return found


def level(name, size, same_host, collectives):
    return {"name": name, "size": size, "same_host": same_host, "collectives": collectives}


def one_and_two_shot(one, two):
    """Sums by kernels that read the peers' memory: {ranks: (us, GB/s)}, fitted to published runs."""
    return ([collective("sum", "one-shot", p, *c, error=0.05) for p, c in one.items()] +
            [collective("sum", "two-shot", p, *c, error=0.1) for p, c in two.items()])


def send(us, gb_s, source="datasheet", error=0.3):
    return [collective("send", "one-shot", 2, us, gb_s, source=source, error=error)]


# H200 and B200: sends as of an H100, with B200's link twice as fast.
NVSWITCH = {
    "a100": fitted("a100_sxm", (2, 4, 8)) + one_and_two_shot(
        {2: (5.0, 200), 4: (5.3, 162), 8: (5.7, 164)}, {4: (10.7, 205), 8: (15.1, 259)}),
    "h100": fitted("h100_sxm", (2, 4, 8)) + one_and_two_shot(
        {2: (4.3, 261), 4: (4.6, 309), 8: (4.8, 290)}, {4: (8.2, 296), 8: (9.5, 351)}),
    "h200": fitted("h200_sxm", (2, 4, 8)) + one_and_two_shot(
        {2: (4.4, 265), 4: (4.6, 310), 8: (4.8, 276)}, {4: (7.3, 291), 8: (8.8, 379)}) +
    send(4.8, 362, "fitted"),
    "b200": fitted("b200_sxm", (2, 4, 8)) + one_and_two_shot(
        {2: (6.7, 150), 4: (7.0, 449), 8: (7.7, 504)}, {4: (15.7, 436)}) + send(4.8, 724, "fitted"),
}


def pcie_sums(constants, error, source="fitted"):
    """{ranks: (us, near, far)} of sums; halves of a sum take three quarters of its latency."""
    found = []
    for p, (us, near, far) in constants.items():
        found.append(collective("sum", "ring", p, us, near, far, MIB, source, error))
        for op in ("scatter-sum", "gather"):
            found.append(collective(op, "ring", p, 0.75 * us, near, far, MIB, source, error))
    return found


L40S = [level("PCIe 4.0 of a socket", 4, True,
              fitted("l40s", (2, 4)) + [collective("sum", "one-shot", 2, 5.2, 19, error=0.05)] +
              send(6, 20, "fitted")),
        level("between sockets", 2, True,
              fitted("l40s", (8,)) + send(15, 8) +
              [collective("sum", "ring", 2, 30, 2, error=0.5, source="datasheet")])]
RTX_4090 = [level("PCIe 4.0 of a socket", 4, True,
                  pcie_sums({2: (10, 8, 12), 4: (18, 4, 6)}, 0.5, "datasheet") +
                  send(10, 12, error=0.5)),
            level("between sockets", 2, True,
                  pcie_sums({2: (30, 1.5, 2), 8: (35, 2, 3)}, 0.6, "datasheet") +
                  send(20, 8, error=0.6))]
RTX_PRO = [level("PCIe 5.0 of a socket", 4, True,
                 pcie_sums({2: (6.4, 21, 37), 4: (12.7, 14, 26)}, 0.2) +
                 [collective("sum", "one-shot", 2, 4.3, 40, error=0.05)] +
                 [collective("all-to-all", "one-shot", 4, 8, 20, error=0.4)] +
                 send(6, 38, "fitted")),
           level("between sockets", 2, True,
                 pcie_sums({8: (24.4, 10, 25)}, 0.2) + send(12, 25, "fitted") +
                 [collective("all-to-all", "one-shot", 8, 9.9, 17)])]


def network(name, us, gb_s, shared, source, error, far=None):
    """Between two nodes of 8. A network card that the 8 GPUs of a node share: they take part in a
    sum at once, a send goes alone."""
    part = 8 if shared else 1
    return level(name, 2, False,
                 [collective("send", "one-shot", 2, us, gb_s, far, 256 * 1024 if far else 0, source,
                             error)] +
                 [collective(op, "ring", 2, (2 if op == "sum" else 1) * us, gb_s / part, far and
                             far / part, 256 * 1024 if far else 0, source, error)
                  for op in ("sum", "scatter-sum", "gather")])


# ------------------------------------------------------------------------------- sockets
# Per core: operations a second of one core alone and of all at once (GFLOP/s), GB/s of one alone.
SOCKETS = {
    "epyc-9755": dict(
        device="core of an AMD EPYC 9755", cores=128, gb_s=614.4, reached=0.85, core_gb_s=37,
        all={"f32": 173, "bf16": 345, "int8": 691}, watts=500 / 128, error=0.25,
        about="EPYC 9755, 12 channels of DDR5-6400: memory by the datasheet, of which reading "
              "reaches 85 %. Arithmetic: 64, 128 and 256 operations a cycle and core in f32, bf16 "
              "and int8 at 2.7 GHz, of which products reach 80 %. One core alone, fixed costs and "
              "sums: as measured on two cores of the same family."),
    "xeon-6980p": dict(
        device="core of an Intel Xeon 6980P", cores=128, gb_s=844.8, reached=0.82, core_gb_s=20,
        all={"f32": 173, "bf16": 173, "int8": 8192}, watts=500 / 128, error=0.35,
        about="Xeon 6980P, 12 channels of MRDIMM-8800: memory by the datasheet, of which 82 % were "
              "measured by others on a sibling. int8 by AMX: 4096 operations a cycle and core at 2 "
              "GHz; f32 and bf16 by AVX-512: 64 a cycle at 2.7 GHz; of all, products reach 80 %. No "
              "such machine was at hand: fixed costs and sums are those of another family."),
}


def core_rates(s, active, gb_s):
    bytes_s = gb_s * 1e9
    ops = {t: v * 1e9 for t, v in s["all"].items()}
    def times(bits, by):
        read = bits / 8 / bytes_s
        return [(read**4 + (2 * x / (ops[by] * MATH))**4) ** 0.25 for x in ROWS[:11]]
    madd = curve([1, 16, 1024], [2 / (ops["f32"] * r) for r in (0.4, 0.6, 0.6)], "fitted", 0.4)
    return {
        "active": active,
        "product": {t: curve(ROWS[:11], times(bits, by), "fitted", s["error"])
                    for t, (bits, by) in FORMATS.items()},
        "attend_byte_s": {t: fig(1 / bytes_s, "fitted", s["error"])
                          for t in ("f32", "bf16", "int8")},
        "attend_madd_s": {t: madd for t in ("f32", "bf16", "int8")},
        "byte_s": fig(2e-11, "fitted", 0.5), "op_s": fig(0.5e-6, "fitted", 0.5),
        "draw_s": fig(1e-10, "fitted", 0.5), "split_s": fig(0.15e-6, "fitted", 0.5),
    }


def socket(name, sockets):
    s = SOCKETS[name]
    cores, rate = s["cores"] * sockets, s["gb_s"] * sockets
    alone = s["core_gb_s"]
    knee = int(rate * s["reached"] / alone)  # so many cores alone take all of the memory's rate
    memory = level("shared memory of a socket", s["cores"], True,
                   [collective("sum", "one-shot", p, us, 10, 5, 256 * 1024, error=0.6)
                    for p, us in ((2, 0.8), (8, 2.0), (32, 5.0))] +
                   [collective("sum", "two-shot", p, 2 * us, 10, 5, 256 * 1024, error=0.6)
                    for p, us in ((2, 0.8), (8, 2.0), (32, 5.0))] +
                   [collective(op, "one-shot", p, us, 10, 5, 256 * 1024, error=0.6)
                    for op in ("scatter-sum", "gather") for p, us in ((2, 0.8), (32, 5.0))] +
                   [collective("send", "one-shot", 2, 0.5, 10, 5, 256 * 1024, error=0.6)])
    between = level("between sockets", 2, True,
                    [collective("send", "one-shot", 2, 1.0, 5, error=0.6)] +
                    [collective("sum", way, 2, us, 5, error=0.6)
                     for way, us in (("one-shot", 1.5), ("two-shot", 3.0))])
    return {
        "device": s["device"], "kind": "cpu", "about": s["about"],
        "memory_bytes": fig(768 * GIB * sockets, "given"),
        "reserve_bytes": fig(8 * GIB, "given"),
        "memory_rate": fig(int(rate * 1e9), "datasheet"),
        "price_hour": fig(0.05, "given", 0.5), "watts": fig(s["watts"], "datasheet"),
        "step_s": fig(30e-6, "fitted", 0.5), "seq_s": fig(1e-6, "fitted", 0.5),
        "math_rate": {t: fig(s["all"][by] * 10**9, "datasheet") for t, (_, by) in FORMATS.items()},
        "rates": [core_rates(s, n, min(alone, rate * s["reached"] / n)) for n in (1, knee, cores)],
        "levels": [memory] + ([between] if sockets > 1 else []),
    }


# ------------------------------------------------------------------------------- machines
GPU_ABOUT = ("Memory as the driver shows it, rates by the datasheet (dense); products reach 87 % of "
             "memory and 80 % of arithmetic, fixed costs: fitted to published runs of 70B models. "
             "{} Price: about what clouds listed in 2025; give your own.")
NCCL = ("Collectives: fitted to published nccl-tests ({}) and to kernels that read the peers' "
        "memory.")


def dgx(device, link, about, levels=()):
    return dict(gpu(device), about=GPU_ABOUT.format(about),
                levels=[level("NVSwitch", 8, True, NVSWITCH[link])] + list(levels))


def box(device, levels, about):
    return dict(gpu(device, 0.2), about=GPU_ABOUT.format(about), levels=levels)


def machines():
    h100 = NCCL.format("H100 SXM")
    ib = [c for c in fitted("h100_infiniband", (2,))][0]
    return {
        "dgx-a100-40": dgx("A100 SXM 40 GB", "a100", NCCL.format("A100 SXM 80 GB")),
        "dgx-a100-80": dgx("A100 SXM 80 GB", "a100", NCCL.format("A100 SXM 80 GB")),
        "dgx-h100": dgx("H100 SXM", "h100", h100),
        "dgx-h200": dgx("H200 SXM", "h200", NCCL.format("H200 SXM")),
        "dgx-b200": dgx("B200 SXM", "b200", NCCL.format("B200")),
        "dgx-h100-x2-ib": dgx("H100 SXM", "h100", h100 + " InfiniBand, a card per GPU: fitted to "
                              "published sends between two such nodes.",
                              [network("InfiniBand NDR", ib["latency_s"]["value"] * 1e6,
                                       1e-9 / ib["byte_s"]["value"], False, "fitted", 0.15,
                                       1e-9 / ib["far_byte_s"]["value"])]),
        "dgx-h100-x2-10gbe": dgx("H100 SXM", "h100", h100 + " One 10 GbE port per node, TCP: 92 % "
                                 "of its rate, 30 us.",
                                 [network("10 GbE", 30, 1.15, True, "datasheet", 0.4)]),
        "dgx-h100-x2-100gbe": dgx("H100 SXM", "h100", h100 + " One 100 GbE port per node, TCP over "
                                  "several streams: 80 % of its rate, 25 us.",
                                  [network("100 GbE", 25, 10, True, "datasheet", 0.4)]),
        "8x-l40s-pcie": box("L40S", L40S, "4 GPUs per socket. Collectives: fitted to published "
                            "nccl-tests, those of 8 across sockets, where no peer reads another."),
        "8x-rtx-4090-pcie": box("RTX 4090", RTX_4090, "4 GPUs per socket, no peer reads another: "
                                "sums through the host's memory at a third of PCIe 4.0, a guess "
                                "from L40S boxes."),
        "8x-rtx-pro-6000-pcie": box("RTX PRO 6000", RTX_PRO, "4 GPUs per socket. Sums: fitted to "
                                    "published nccl-tests; the halves of sums derived from them."),
        "epyc-9755": socket("epyc-9755", 1),
        "epyc-9755-x2": socket("epyc-9755", 2),
        "xeon-6980p": socket("xeon-6980p", 1),
    }


# ------------------------------------------------------------------------------- writing
def text(o, depth=0):
    """JSON with a line per figure, curve and collective."""
    one = json.dumps(o)
    if len(one) + depth <= 98 or not isinstance(o, (dict, list)) or "x" in o or "op" in o:
        return one
    pad = "  " * (depth + 1)
    if isinstance(o, dict):
        parts = [f"{json.dumps(k)}: {text(v, depth + 1)}" for k, v in o.items()]
        return "{\n" + ",\n".join(pad + p for p in parts) + "\n" + "  " * depth + "}"
    return "[\n" + ",\n".join(pad + text(v, depth + 1) for v in o) + "\n" + "  " * depth + "]"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "..", "profiles")
    os.makedirs(folder, exist_ok=True)
    for name, rest in machines().items():
        with open(os.path.join(folder, name + ".json"), "w") as f:
            f.write(text({"schema": 1, "name": name, **rest}) + "\n")


if __name__ == "__main__":
    main()
