#!/usr/bin/env python3
"""peers.py - tandem and programs of llama.cpp's family side by side, in turns, on the same numbers.

    python3 bench/peers.py --model bf16 FOLDER GGUF --model int8 FOLDER GGUF \\
        --peer llama.cpp BIN --peer ik_llama.cpp BIN > table.md

FOLDER is for tandem (packed ones start fastest), GGUF the same model for the peers (tools/to_gguf.py),
BIN a folder with llama-bench and llama-batched-bench. Prints the table of docs/PERFORMANCE.md: tokens/s,
medians over the rounds (least to most). For every step all programs run one right after the other, in
an order that rotates from round to round; a ratio is the median of the ratios of single rounds, as what
the neighbours of a shared machine do changes from minute to minute. Each run is a minute at most, but
for peers that must first compute a prompt of 8192 tokens.
"""
import argparse, json, os, re, resource, statistics, subprocess, sys, tempfile, time

PROMPT, GENERATED, DEPTH = 512, 16, 128  # tokens of a prompt; generated in a run; before them in a batch


class Tandem:
    name = "tandem"

    def __init__(self, program, threads, options):
        self.program, self.options = program, [*threads, *options]

    def rate(self, model, step):
        if "prompt" in step:
            what = ["--prompt", str(step["prompt"]), "--batch", "0"]
        else:  # where the peers are in the middle of what they generate
            what = ["--prompt", "0", "--batch", str(step["batch"]), "--context", str(step["depth"] + GENERATED // 2)]
        out = run([self.program, "bench", "latency", model[0], "--rounds", "3", "--json", *self.options, *what]).stdout
        return json.loads(out)["steps"][0]["tokens_per_s"]


class Llama:
    def __init__(self, name, folder, threads):
        self.name, self.folder = name, folder
        self.threads = str(threads)
        self.depth = "--n-depth" in run([self.program("llama-bench"), "--help"], check=False).stdout

    def program(self, name):
        return os.path.join(self.folder, name)

    def rate(self, model, step):
        return self.batched(model[1], step) if step.get("batch", 1) > 1 else self.single(model[1], step)

    def single(self, gguf, step):
        what = ["-p", str(step.get("prompt", 0)), "-n", "0", "-r", "2"]
        if "depth" in step and self.depth:
            what = ["-p", "0", "-n", str(GENERATED), "-d", str(step["depth"]), "-r", "1"]
        elif "depth" in step:
            what = ["-p", "0", "-n", "0", "-gp", f"{step['depth']},{GENERATED}", "-r", "1"]
        out = run([self.program("llama-bench"), "-m", gguf, "-t", self.threads, "-fa", "1", "-o", "json", *what]).stdout
        return json.loads(out)[-1]["avg_ts"]

    def batched(self, gguf, step):
        n = step["batch"]
        done = run([self.program("llama-batched-bench"), "-m", gguf, "-c", str(n * (step["depth"] + 2 * GENERATED)),
                    "-b", "2048", "-ub", "512", "-npp", str(step["depth"]), "-ntg", str(GENERATED), "-npl", str(n),
                    "-t", self.threads, "-tb", self.threads, "-fa", "on"])
        for line in (done.stdout + done.stderr).splitlines():  # | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | ...
            cells = [c.strip() for c in line.strip("| ").split("|")]
            if len(cells) == 10 and re.fullmatch(r"\d+", cells[0]):
                return float(cells[7])
        raise ValueError("no table in the output of llama-batched-bench")


def run(command, check=True):
    with tempfile.TemporaryDirectory() as folder:  # some leave a log where they run
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=600, cwd=folder)


def busy_seconds():
    """Of all cores, for anyone, by Linux' count; what the host of a virtual machine took is in it."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(programs, models, steps, rounds):
    """rate[model][step][program]: a list over the rounds, None where a program failed."""
    rate = {m: {s: {p.name: [] for p in programs} for s in steps} for m in models}
    for r in range(rounds):
        for m in models:
            for s in steps:
                for k in range(len(programs)):
                    p = programs[(k + r) % len(programs)]
                    begun = time.time()
                    try:
                        got = p.rate(models[m], steps[s])
                    except (subprocess.SubprocessError, ValueError, OSError) as why:
                        got = None
                        print(f"{p.name}: {why} {(getattr(why, 'stderr', None) or '')[-300:]}", file=sys.stderr)
                    rate[m][s][p.name].append(got)
                    print(f"round {r + 1}, {m}, {s}: {p.name} {got or 0:.1f} tokens/s, run of "
                          f"{time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    return rate


def number(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def cell(rates):
    got = [x for x in rates if x]
    if not got:
        return "fails"
    return f"{number(statistics.median(got))} ({number(min(got))} to {number(max(got))})"


def ratio(ours, theirs):
    got = [a / b for a, b in zip(ours, theirs) if a and b]
    return f"{statistics.median(got):.2f} ({min(got):.2f} to {max(got):.2f})" if got else ""


def print_table(programs, rate):
    peers = programs[1:]
    print("| weights | step | tandem |" + "".join(f" {p.name} | ratio |" for p in peers))
    print("|---" * (3 + 2 * len(peers)) + "|")
    for m, steps in rate.items():
        for s, of in steps.items():
            ours = of["tandem"]
            print(f"| {m} | {s} | {cell(ours)} |" +
                  "".join(f" {cell(of[p.name])} | {ratio(ours, of[p.name])} |" for p in peers))


def choose_steps(a):
    steps = {f"prompt of {PROMPT}": {"prompt": PROMPT}}
    steps |= {f"decode {b}": {"batch": b, "depth": DEPTH} for b in a.batch}
    steps |= {f"decode 1 at {d}": {"batch": 1, "depth": d} for d in a.context}
    return {s: v for s, v in steps.items() if a.only in s}


def main():
    numbers = lambda text: [int(x) for x in text.split(",") if int(x)]
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", nargs=3, action="append", required=True, metavar=("NAME", "FOLDER", "GGUF"))
    ask.add_argument("--peer", nargs=2, action="append", default=[], metavar=("NAME", "BIN"))
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--batch", type=numbers, default=[1, 4, 16, 32], help="sequences of a decode step, after 128 tokens")
    ask.add_argument("--context", type=numbers, default=[2048, 8192], help="tokens before decode of one sequence")
    ask.add_argument("--only", default="", help="steps whose name contains this")
    ask.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ask.add_argument("--tp", type=int, default=1, help="tandem: so many ranks, which share the threads")
    ask.add_argument("--tandem", default="build/tandem")
    ask.add_argument("options", nargs="*", help="more options for tandem, after --")
    a = ask.parse_args()
    path = os.path.abspath
    threads = ["--tp", str(a.tp), "--threads-per-rank", str(max(1, a.threads // a.tp))]
    programs = [Tandem(path(a.tandem), threads, a.options), *(Llama(n, path(f), a.threads) for n, f in a.peer)]
    models = {n: (path(folder), path(gguf)) for n, folder, gguf in a.model}
    begun, busy, own = time.time(), busy_seconds(), own_seconds()
    rate = measure(programs, models, choose_steps(a), a.rounds)
    took = time.time() - begun
    foreign = busy_seconds() - busy - (own_seconds() - own)
    print_table(programs, rate)
    print(f"\nTokens/s, medians of {a.rounds} rounds in turns (least to most), {a.threads} threads, tandem with "
          f"--tp {a.tp}; {time.strftime('%-d %B %Y')}. Other programs took {100 * foreign / took / os.cpu_count():.0f} % "
          "of the cores meanwhile.")


main()
