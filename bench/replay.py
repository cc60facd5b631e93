#!/usr/bin/env python3
"""replay.py - a load on the real server, and the same requests simulated: predicted beside measured.

    tandem topo --measure -o here.json
    python3 bench/replay.py MODEL --hardware here.json --trace AZURE.csv --seconds 60 --rate 1 \\
        [--shorter 8] [--rounds 2] [-- SERVE-OPTIONS...]

Starts `tandem serve MODEL SERVE-OPTIONS`, sends lengths of the trace (prompts and answers divided by
--shorter) as Poisson arrivals of --rate, or at the trace's own times; then simulates what was sent, with
the lengths that the server counted, the times at which requests were due and the server's own plan.
Prints a table in Markdown. With several rounds the same load is measured so often: the spread of what
was measured is the error of the measurement itself.
"""
import argparse, csv, json, os, random, signal, statistics, subprocess, sys, tempfile, time, urllib.request

ROWS = [("TPOT, mean", "tpot_s", "mean", 6), ("ITL, P99", "itl_s", "p99", None), ("TTFT, mean", "ttft_s", "mean", 12),
        ("TTFT, P50", "ttft_s", "p50", None), ("TTFT, P99", "ttft_s", "p99", 20), ("E2E, mean", "e2e_s", "mean", None),
        ("E2E, P99", "e2e_s", "p99", None)]


def lengths(file):
    rows = list(csv.DictReader(open(file)))
    for prompt, output in (("ContextTokens", "GeneratedTokens"), ("Request tokens", "Response tokens"), ("input_tokens", "output_tokens")):
        if prompt in rows[0]:
            return [(int(r[prompt]), int(r[output])) for r in rows if int(r[prompt]) and int(r[output])]
    sys.exit(f"{file}: no columns of lengths")


def write_trace(path, rows):
    with open(path, "w") as f:
        f.write("arrival_s,input_tokens,output_tokens\n")
        f.writelines(f"{at:.6f},{prompt},{output}\n" for at, prompt, output in rows)


def shortened(file):
    """Lengths of the trace, from a place of its own on, at Poisson times."""
    draw, at, rows = random.Random(A.seed), 0.0, []
    all_lengths = lengths(file)
    first = draw.randrange(len(all_lengths))
    while True:
        at += draw.expovariate(A.rate)
        if at > A.seconds:
            return rows
        prompt, output = all_lengths[(first + len(rows)) % len(all_lengths)]
        rows.append((at, max(prompt // A.shorter, 8), max(output // A.shorter, 2)))


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def serve():
    url = f"http://127.0.0.1:{A.port}"
    server = subprocess.Popen([A.tandem, "serve", A.model, "--port", str(A.port), "-q", *A.serve], stderr=subprocess.DEVNULL)
    while True:
        try:
            if urllib.request.urlopen(url + "/ready", timeout=5).status == 200:
                return server, url
        except OSError:
            if server.poll() is not None:
                sys.exit("the server did not come up")
            time.sleep(0.05)


def measure(folder, trace, number):
    """Figures of the load, and the requests as they were."""
    server, url = serve()
    try:
        record, out = f"{folder}/record", f"{folder}/out{number}.json"
        load = ["--url", url, "--endpoint", "completions", "--ignore-eos", "-t", "0"]
        run(A.tandem, "bench", "serve", *load, "--requests", "6", "--concurrency", "3", "--prompt-tokens", "64", "--output-tokens", "32")
        run(A.tandem, "bench", "serve", *load, "--trace", trace, "--record", record, "--json", out)
        plan = urllib.request.urlopen(url + "/plan").read()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    with open(f"{folder}/plan.json", "wb") as f:
        f.write(plan)
    sent = [json.loads(line) for line in open(record)]
    if any(r["fate"] != "finished" for r in sent):
        sys.exit("some requests did not finish")
    sent.sort(key=lambda r: r["request"])
    return json.load(open(out)), [(r["due_s"], r["prompt_tokens"], r["output_tokens"]) for r in sent]


def simulate(folder, rows, *more):
    write_trace(f"{folder}/sent.csv", rows)
    return json.loads(run(A.tandem, "simulate", A.model, "--plan", f"{folder}/plan.json", "--hardware", A.hardware,
                          "--trace", f"{folder}/sent.csv", "--json", *more))


def spread(values):
    return (max(values) - min(values)) / statistics.mean(values) * 100


def main():
    with tempfile.TemporaryDirectory() as folder:
        trace = f"{folder}/trace.csv"
        write_trace(trace, shortened(A.trace))
        measured, sent = [], None
        for number in range(A.rounds):
            figures, sent = measure(folder, trace, number)
            measured.append(figures)
        predicted = simulate(folder, sent)
        prompts = sum(r[1] for r in sent) / len(sent)
        most = simulate(folder, sent * 10, "--trace-speed", "0", "--concurrency", "32")["requests_per_s"]
        print(f"{len(sent)} requests in {A.seconds:g} s, {prompts:.0f} tokens of prompt and "
              f"{sum(r[2] for r in sent) / len(sent):.0f} of answer on average; "
              f"{100 * len(sent) / A.seconds / most:.0f} % of the {most:.2f} a second that 32 at once would reach; {A.rounds} rounds\n")
        print("| | predicted, ms | measured, ms | spread of rounds | error | goal |\n|---|---|---|---|---|---|")
        for name, digest, figure, goal in ROWS:
            p, values = predicted[digest][figure], [m[digest][figure] for m in measured]
            m = statistics.median(values)
            print(f"| {name} | {1e3 * p:.4g} | {1e3 * m:.4g} | {spread(values):.1f} % | {100 * (p / m - 1):+.1f} % | "
                  f"{f'{goal} %' if goal else ''} |")


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model")
p.add_argument("--tandem", default=os.path.join(os.path.dirname(__file__), "..", "build", "tandem"))
p.add_argument("--hardware", required=True)
p.add_argument("--trace", required=True)
p.add_argument("--seconds", type=float, default=60)
p.add_argument("--rate", type=float, default=1)
p.add_argument("--shorter", type=int, default=8)
p.add_argument("--rounds", type=int, default=1)
p.add_argument("--seed", type=int, default=1)
p.add_argument("--port", type=int, default=18473)
if "--" in sys.argv:
    cut = sys.argv.index("--")
    own, more = sys.argv[1:cut], sys.argv[cut + 1:]
else:
    own, more = sys.argv[1:], []
A = p.parse_args(own)
A.serve = more
main()
