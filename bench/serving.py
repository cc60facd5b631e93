#!/usr/bin/env python3
"""serving.py - the server's figures of docs/PERFORMANCE.md, beside llama-server in turns.

    python3 bench/serving.py --model PACKED --peer LLAMA-SERVER GGUF [--trace AZURE.csv] [CLAIM...] > figures.md

PACKED is a folder that `tandem pack` wrote, GGUF the same model for the peer. Claims: chats long prefix
trace ready idle streams overhead pauses; all by default. Loads come from `tandem bench serve`. Every server is
started afresh for every run; medians over --rounds, least to most in brackets; ratios are medians of the
ratios of single rounds. A run of chats is half a minute for us and two minutes for the peer.
"""
import argparse, json, os, resource, select, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

GEN = ["--endpoint", "completions", "--ignore-eos", "-t", "0"]


class Server:
    def __init__(self, name, command, port):
        self.url, self.port = f"http://127.0.0.1:{port}", port
        begun = time.time()
        self.words = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.words, stderr=self.words)
        while True:
            try:
                if urllib.request.urlopen(self.url + "/health", timeout=5).status == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None or time.time() > begun + 120:
                self.words.seek(0)
                sys.exit(f"{name} did not come up: {self.words.read()[-500:]}")
            time.sleep(0.01)
        self.ready_s = time.time() - begun

    def processes(self):
        def children(pid):
            found = [pid]
            for task in os.listdir(f"/proc/{pid}/task"):
                for child in open(f"/proc/{pid}/task/{task}/children").read().split():
                    found += children(int(child))
            return found
        return children(self.process.pid)

    def cpu_s(self):
        """Seconds by process."""
        used = {}
        for pid in self.processes():
            f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            used[pid] = (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
        return used

    def rss_mib(self):
        return int(open(f"/proc/{self.process.pid}/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    def metric(self, name):
        for line in urllib.request.urlopen(self.url + "/metrics").read().decode().splitlines():
            if line.startswith(name + "{"):
                return float(line.split()[-1])
        raise KeyError(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def tandem(*more):
    return Server("tandem", [A.tandem, "serve", A.model, "--port", str(A.port), "-q", *more], A.port)


def peer(slots, context):
    return Server("llama-server", [A.peer[0], "-m", A.peer[1], "--port", str(A.port + 1), "-np", str(slots), "-c", str(slots * context),
                                   "-t", str(A.threads), "-fa", "on"], A.port + 1)


def load(server, *what, wait=True):
    out = tempfile.NamedTemporaryFile("r", suffix=".json")
    p = subprocess.Popen([A.tandem, "bench", "serve", "--url", server.url, *GEN, *what, "--json", out.name],
                         stdout=subprocess.DEVNULL)

    def figures():
        if p.wait():
            sys.exit("tandem bench serve failed: " + " ".join(p.args))
        return json.load(out)
    return figures() if wait else figures


def spread(values, scale=1.0, digits=0):
    m = f"{statistics.median(values) * scale:.{digits}f}"
    return m if len(values) < 2 else f"{m} ({min(values) * scale:.{digits}f} to {max(values) * scale:.{digits}f})"


def beside(title, rows, ours, theirs):
    """rows: (name, path into the figures, scale, digits)."""
    print(f"\n**{title}**\n\n| | tandem | llama-server | ratio |\n|---|---|---|---|")
    for name, path, scale, digits in rows:
        get = lambda f: f[path[0]] if len(path) == 1 else f[path[0]][path[1]]
        a, b = [get(f) for f in ours], [get(f) for f in theirs]
        ratio = spread([x / y for x, y in zip(a, b)], 1, 2) if b and all(b) else "-"
        print(f"| {name} | {spread(a, scale, digits)} | {spread(b, scale, digits) if b else '-'} | {ratio} |")
    sys.stdout.flush()


LATENCY = [("TTFT P50, s", ("ttft_s", "p50"), 1, 2), ("TTFT P99, s", ("ttft_s", "p99"), 1, 2), ("TPOT P50, ms", ("tpot_s", "p50"), 1e3, 0),
           ("TPOT P99, ms", ("tpot_s", "p99"), 1e3, 0), ("ITL P50, ms", ("itl_s", "p50"), 1e3, 0), ("ITL P99, ms", ("itl_s", "p99"), 1e3, 0)]


def chats():
    """32 clients at once, new prompts of 128 tokens, answers of 64."""
    what = ["--concurrency", "32", "-n", "64", "--prompt-tokens", "128", "--output-tokens", "64"]
    ours, theirs = [], []
    for _ in range(A.rounds):
        with tandem("--max-seqs", "32", "--ctx", "1024") as s:
            ours.append(load(s, *what))
        if A.peer:
            with peer(32, 1024) as s:
                theirs.append(load(s, *what))
    beside(chats.__doc__, [("output tokens/s", ("output_tok_per_s",), 1, 1), *LATENCY], ours, theirs)


def long():
    """16 answers of 220 tokens, 8 begun a second; after 4 s comes a prompt of 2000."""
    def run(s):
        done = load(s, "--rate", "8", "--arrivals", "uniform", "-n", "16", "--prompt-tokens", "32", "--output-tokens", "220", wait=False)
        time.sleep(4)
        one = load(s, "--concurrency", "1", "-n", "1", "--prompt-tokens", "2000", "--output-tokens", "4", "-s", "7")
        f = done()
        return {**f, "long_s": one["ttft_s"]["p50"], "stall": f["itl_s"]["p99"] / f["itl_s"]["p50"]}
    ours, theirs = [], []
    for _ in range(A.rounds):
        with tandem("--ctx", "4096") as s:
            ours.append(run(s))
        if A.peer:
            with peer(17, 4096) as s:
                theirs.append(run(s))
    beside(long.__doc__, [("output tokens/s", ("output_tok_per_s",), 1, 1), ("ITL P50, ms", ("itl_s", "p50"), 1e3, 0),
                          ("ITL P99, ms", ("itl_s", "p99"), 1e3, 0), ("ITL longest, ms", ("itl_s", "max"), 1e3, 0),
                          ("ITL P99 / P50", ("stall",), 1, 2), ("TTFT of the long prompt, s", ("long_s",), 1, 1)], ours, theirs)


def prefix():
    """8 clients, 32 requests: 1000 tokens that all share, and 32 of their own; answers of 16."""
    what = ["--concurrency", "8", "-n", "32", "--prompt-tokens", "32", "--shared-prefix-tokens", "1000", "--output-tokens", "16"]
    ours, theirs = [], []
    for _ in range(A.rounds):
        with tandem("--ctx", "2048", "--max-seqs", "8") as s:
            ours.append(load(s, *what))
        if A.peer:
            with peer(8, 2048) as s:
                theirs.append(load(s, *what))
    for f in [*ours, *theirs]:
        f["hit"] = f["cached_tokens"] / f["prompt_tokens"]
    beside(prefix.__doc__, [("output tokens/s", ("output_tok_per_s",), 1, 1), *LATENCY[:2],
                            ("prompt tokens found in the cache, %", ("hit",), 100, 0)], ours, theirs)


def trace():
    """A recorded trace at the highest speed that keeps the SLO."""
    if not A.trace:
        print("\n(trace: none given)")
        return
    slo = ["--slo", A.slo]
    what = ["--trace", A.trace, "--trace-seconds", str(A.trace_seconds), "--trace-speed", str(A.trace_speed), *slo]
    ours, theirs = [], []
    for _ in range(A.rounds):
        with tandem("--ctx", "8192") as s:
            ours.append(load(s, *what))
        if A.peer:
            with peer(8, 8192) as s:
                theirs.append(load(s, *what))
    for f in [*ours, *theirs]:
        f["good"] = f["goodput"]["share"]
    beside(f"{os.path.basename(A.trace)}, {A.trace_seconds} s of it at {A.trace_speed} times its speed, SLO {A.slo}",
           [("requests within the SLO, %", ("good",), 100, 1), ("output tokens/s", ("output_tok_per_s",), 1, 1), *LATENCY], ours, theirs)


def ready():
    """From the command to a 200 of /health."""
    ours, theirs = [], []
    for _ in range(2 * A.rounds + 1):
        with tandem() as s:
            ours.append({"s": s.ready_s})
        if A.peer:
            with peer(32, 1024) as s:
                theirs.append({"s": s.ready_s})
    beside(ready.__doc__, [("seconds", ("s",), 1, 2)], ours, theirs)


def idle():
    """Idle: share of one core that all processes use, over 10 s."""
    small = lambda: tandem("--kv-memory", "256M")  # or memory would be made real for minutes on some machines
    ours, theirs = [], []
    for make, to in ((small, ours), (lambda: peer(32, 1024), theirs)):
        if make is small or A.peer:
            with make() as s:
                load(s, "--concurrency", "4", "-n", "4", "--prompt-tokens", "16", "--output-tokens", "8")
                time.sleep(15)
                before = s.cpu_s()
                time.sleep(10)
                to.append({"share": sum(t - before[pid] for pid, t in s.cpu_s().items()) / 10})
    beside(idle.__doc__, [("percent", ("share",), 100, 2)], ours, theirs)


def streams():
    """2,000 open streams, of which 64 run and the rest wait: memory of the control process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 24, "ignore_eos": True, "stream": True})
    text = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with Server("tandem", [A.tandem, "serve", "--port", str(A.port), "-q", "--max-queue", "4096"], A.port) as s:
        before, open_, done, peak = s.rss_mib(), {}, 0, 0
        poll = select.poll()
        for _ in range(2000):
            c = socket.create_connection(("127.0.0.1", A.port))
            c.sendall(text)
            c.setblocking(False)
            open_[c.fileno()] = [c, b""]
            poll.register(c, select.POLLIN)
        end = time.time() + 300
        while open_ and time.time() < end:
            for fd, _ in poll.poll(1000):
                data = open_[fd][0].recv(1 << 16)
                open_[fd][1] = (open_[fd][1] + data)[-40:]
                if not data or b"[DONE]" in open_[fd][1]:
                    done += b"[DONE]" in open_[fd][1]
                    poll.unregister(fd)
                    del open_[fd]
            peak = max(peak, s.rss_mib())
        print(f"\n**{streams.__doc__}** The demo model: {before:.0f} MiB before, {peak:.0f} MiB at most; {done} of 2000 answers whole.")


def idle_share(server, first, last):
    """Of the time from the first-th token that is drawn from now on to the last-th, what rank 0 waits for the next step."""
    def at(n):
        while server.metric("tandem:generation_tokens_total") < drawn + n and time.time() < end:
            time.sleep(0.2)  # asking is work of the control process
        return server.metric("tandem:rank_idle_seconds_total"), time.time()
    drawn, end = server.metric("tandem:generation_tokens_total"), time.time() + 300
    (idle, begun), (later, done) = at(first), at(last)
    return (later - idle) / (done - begun)


def overhead():
    """32 answers at once: how long ranks wait for the next step, the control process, and the step beside one without a server."""
    idle, control, longer = [], [], []
    for _ in range(A.rounds):
        with tandem("--max-seqs", "32", "--ctx", "1024") as s:
            load(s, "--concurrency", "32", "-n", "32", "--prompt-tokens", "8", "--output-tokens", "16")
            cpu = s.cpu_s()[s.process.pid]
            ended = load(s, "--concurrency", "32", "-n", "32", "--prompt-tokens", "120", "--output-tokens", "128", "-s", "5", wait=False)
            idle.append(idle_share(s, 4 * 32, 124 * 32))
            f = ended()
            control.append((s.cpu_s()[s.process.pid] - cpu) / f["seconds"])
        out = subprocess.run([A.tandem, "bench", "latency", A.model, "--prompt", "0", "--batch", "32", "--context", "184", "--rounds", "9",
                              "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        longer.append(f["itl_s"]["p50"] * json.loads(out)["steps"][0]["tokens_per_s"] / 32 - 1)
    print(f"\n**{overhead.__doc__}** Rank 0 waits for the next step: {spread(idle, 100, 2)} % of the time. Control process: {spread(control, 100, 1)} % of one core."
          f" ITL P50 above the same step of `bench latency`, the load's own client on the same cores: {spread(longer, 100, 1)} %.")


def stream(s, seed, each):
    """One seeded answer; each(n) after its n-th token. Returns the text and the longest time between two tokens."""
    ask = {"prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True, "stream": True, "temperature": 1, "seed": seed}
    text, last, longest, n = "", None, 0, 0
    with urllib.request.urlopen(s.url + "/v1/completions", json.dumps(ask).encode(), timeout=120) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            now, n = time.monotonic(), n + 1
            longest, last = max(longest, now - (last or now)), now
            text += json.loads(line[6:])["choices"][0]["text"]
            each(n)
    return text, longest


def pauses():
    """One of two ranks is killed, or stopped, in the middle of an answer: the longest time without a token."""
    rows = []
    for title, what, more in (("killed", signal.SIGKILL, []), ("stopped", signal.SIGSTOP, []),
                              ("stopped, --patience 0.2", signal.SIGSTOP, ["--patience", "0.2"])):
        with tandem("--tp", "2", "--ctx", "512", "--max-seqs", "4", *more) as s:
            named = lambda: [p for p in s.processes() if open(f"/proc/{p}/comm").read().startswith("tandem-rank-")]
            stream(s, 0, lambda n: None)  # shapes that were not met have more time
            calm, torn, same = [], [], 0
            for seed in range(A.rounds):
                want, longest = stream(s, seed, lambda n: None)
                calm.append(longest)
                got, longest = stream(s, seed, lambda n: n == 20 + seed and os.kill(named()[seed % 2], what))
                torn.append(longest)
                same += got == want
            rows.append(f"| {title} | {spread(torn, 1, 2)} | {spread(calm, 1, 3)} | {same} of {A.rounds} |")
    print(f"\n**{pauses.__doc__}**\n\n| | s | undisturbed | the same answer |\n|---|---|---|---|\n" + "\n".join(rows))


CLAIMS = {f.__name__: f for f in (chats, long, prefix, trace, ready, idle, streams, overhead, pauses)}

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tandem", default="build/tandem")
    p.add_argument("--model", required=True)
    p.add_argument("--peer", nargs=2, metavar=("LLAMA-SERVER", "GGUF"))
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peer")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--port", type=int, default=8490)
    p.add_argument("--trace")
    p.add_argument("--trace-seconds", type=float, default=120)
    p.add_argument("--trace-speed", type=float, default=1)
    p.add_argument("--slo", default="ttft:10,tpot:0.2")
    p.add_argument("claims", nargs="*", metavar="CLAIM", help=" ".join(CLAIMS))
    A = p.parse_args()
    for name in A.claims or CLAIMS:
        CLAIMS[name]()
