#!/usr/bin/env python3
"""test_bench_serve.py - `tandem bench serve` against the demo model and against a server that misbehaves on purpose.

    test/test_bench_serve.py build/tandem

Claims are functions; each prints one line. No times are asserted. Standard library only.
"""
import http.server, json, os, re, signal, subprocess, sys, tempfile, threading, time, traceback

TANDEM = sys.argv[1]
FOLDER = tempfile.TemporaryDirectory(prefix="tandem-test-")


def path(name, text=None):
    name = os.path.join(FOLDER.name, name)
    if text is not None:
        with open(name, "w") as f:
            f.write(text)
    return name


class Tandem:
    """The demo model on a port of its own choice, behind a key."""

    def __init__(self, *where):
        self.words = path("words", "")
        self.keys = path("keys", "# people\nsk-test-1 tester\n")
        self.process = subprocess.Popen([TANDEM, "serve", *(where or ("--port", "0")), "--api-key-file", self.keys],
                                        stderr=open(self.words, "w"), stdout=subprocess.DEVNULL)
        for _ in range(1200):
            ready = re.search(r"^ready.*?(http://[\d.:]+\d|$)", open(self.words).read(), re.M)
            if ready:
                self.url = ready.group(1) or "unix:" + where[1]
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit("the server did not come up:\n" + open(self.words).read())

    def end(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


def chunk(text="", reason=None, **more):
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": reason}], **more}) + "\n\n"


class Rude(http.server.BaseHTTPRequestHandler):
    """Request n is answered as PLAN[n % len(PLAN)]."""
    protocol_version = "HTTP/1.1"
    PLAN, bodies, lock = ["good"], [], threading.Lock()

    def log_message(self, *_):
        pass

    def reply(self, status, text, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.reply(200, json.dumps({"data": [{"id": "rude"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not body.get("stream"):
            words = len(body["messages"][0]["content"].split())
            return self.reply(200, json.dumps({"usage": {"prompt_tokens": 7 + 2 * words}}))
        with self.lock:
            how = self.PLAN[len(self.bodies) % len(self.PLAN)]
            self.bodies.append(body)
        getattr(self, how)()

    def good(self):
        usage = {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
        self.reply(200, chunk("a") + chunk("b", "length") + chunk(usage=usage) + "data: [DONE]\n\n", "text/event-stream")

    def uncounted(self):
        self.reply(200, chunk("a") + chunk("b") + chunk("c", "stop") + "data: [DONE]\n\n")

    def busy(self):
        self.reply(429, '{"error": {"message": "come back later"}}')

    def broken(self):
        self.reply(503, "no")

    def refused(self):
        self.reply(404, "{}")

    def cut(self):
        self.reply(200, chunk("a"))
        self.close_connection = True

    def gone(self):
        self.close_connection = True

    def plain(self):
        self.reply(200, '{"choices": []}')

    def sorry(self):
        self.reply(200, chunk("a") + 'data: {"error": {"message": "lost a rank"}}\n\n')

    def never(self):
        time.sleep(3)
        self.close_connection = True


class Waiting(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 1024  # or connections in a burst wait seconds for their turn

    def handle_error(self, *_):
        pass  # clients that give up are part of the test


class RudeServer:
    def __init__(self):
        self.server = Waiting(("127.0.0.1", 0), Rude)
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def plan(self, *how):
        Rude.PLAN, Rude.bodies = list(how), []


def run(url, *options):
    return subprocess.run([TANDEM, "bench", "serve", "--url", url, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120)


def figures(url, *options):
    """The JSON, after checking that it adds up."""
    done = run(url, "--json", "-", *options)
    assert done.returncode == 0, done.stderr
    r = json.loads(done.stdout)
    q = r["requests"]
    assert q["sent"] == q["finished"] + q["failed"] and q["failed"] == sum(q["errors"].values()), q
    for name in "ttft_s", "e2e_s", "output_tokens_each":
        d = r[name]
        assert d["count"] == q["finished"] and d["min"] <= d["p50"] <= d["p90"] <= d["p99"] <= d["max"], (name, d)
        assert d["min"] <= d["mean"] <= d["max"] or d["max"] - d["min"] < 1e-9, (name, d)
    assert r["send_delay_s"]["count"] == q["sent"]
    for name in "ttft", "e2e":
        assert sum(r[name + "_histogram"]["counts"]) == q["finished"]
    assert abs(r["output_tokens"] - r["output_tokens_each"]["mean"] * q["finished"]) < 1e-3
    assert abs(r["output_tokens"] - r["output_tok_per_s"] * r["seconds"]) < 1e-3 * (1 + r["output_tokens"])
    return r


def a_closed_loop_is_served_whole(t):
    r = figures(t.url, "--api-key-file", t.keys, "--concurrency", "4", "--requests", "24", "--prompt-tokens", "40-80",
                "--output-tokens", "3-9", "--ignore-eos", "--warm-up", "3", "--slo", "ttft:100,e2e:100")
    assert r["requests"]["sent"] == r["requests"]["finished"] == r["goodput"]["requests"] == 24
    assert r["load"]["timing"] == "closed" and r["load"]["concurrency"] == 4 and r["load"]["model"] == "demo"
    assert r["output_tokens_each"]["min"] >= 3 and r["output_tokens_each"]["max"] <= 9
    assert 30 <= r["prompt_tokens_each"]["min"] and r["prompt_tokens_each"]["max"] <= 100
    assert abs(r["prompt_tokens_each"]["mean"] - 60) < 12


def an_open_loop_is_served_whole(t):
    for arrivals in "poisson", "gamma", "uniform", "burst":
        r = figures(t.url, "--api-key-file", t.keys, "--rate", "200", "--requests", "20", "--arrivals", arrivals,
                    "--prompt-tokens", "30", "--output-tokens", "4", "--endpoint", "completions", "--ignore-eos")
        assert r["requests"]["finished"] == 20 and r["output_tokens"] == 80, r
        assert r["load"]["timing"] == "arrivals" and r["load"]["arrivals"] == arrivals


def a_shared_prefix_is_found_in_the_cache(t):
    r = figures(t.url, "--api-key-file", t.keys, "--concurrency", "1", "--requests", "6", "--prompt-tokens", "30",
                "--output-tokens", "2", "--shared-prefix-tokens", "120")
    assert r["cached_tokens"] >= 5 * 80, r["cached_tokens"]


def a_unix_socket_will_do(t):
    other = Tandem("--unix-socket", path("socket"))
    try:
        r = figures(other.url, "--api-key-file", other.keys, "--requests", "4", "--prompt-tokens", "20", "--output-tokens", "2")
        assert other.url.startswith("unix:/") and r["requests"]["finished"] == 4
    finally:
        assert other.end() == 0


def waiting_for_a_place_counts(t):
    record = path("record")
    r = figures(t.url, "--api-key-file", t.keys, "--rate", "100000", "--concurrency", "1", "--requests", "8", "--prompt-tokens", "20",
                "--output-tokens", "4", "--ignore-eos", "--record", record)
    lines = [json.loads(line) for line in open(record)]
    assert [one["request"] for one in lines] == list(range(8))
    for before, one in zip(lines, lines[1:]):
        assert one["due_s"] < before["end_s"] <= one["sent_s"]
    for name, begin, end in ("ttft_s", "due_s", "first_s"), ("e2e_s", "due_s", "end_s"), ("send_delay_s", "due_s", "sent_s"):
        mean = sum(one[end] - one[begin] for one in lines) / 8
        assert abs(r[name]["mean"] - mean) < 1e-6, (name, r[name], mean)


def a_wrong_key_ends_at_once(t):
    done = run(t.url, "--requests", "1")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1 and "401" in done.stderr


def the_same_seed_sends_the_same_requests(_, rude):
    seen = []
    for seed, concurrency in ("3", "1"), ("3", "4"), ("4", "1"):
        rude.plan("good")
        figures(rude.url, "--seed", seed, "--concurrency", concurrency, "--requests", "12", "--prompt-tokens", "10-90")
        seen.append(sorted(json.dumps(b) for b in Rude.bodies))
    assert seen[0] == seen[1] and len(seen[0]) == 12 and not set(seen[0]) & set(seen[2])


def words_are_counted_by_asking(_, rude):
    rude.plan("good")
    figures(rude.url, "--requests", "4", "--prompt-tokens", "107")
    assert {len(b["messages"][0]["content"].split()) for b in Rude.bodies} == {50}  # 7 and 2 for each word


def every_failure_has_its_kind(_, rude):
    kinds = {"good": None, "uncounted": None, "busy": "busy", "broken": "server_error", "refused": "refused", "cut": "disconnected",
             "gone": "disconnected", "plain": "bad_reply", "sorry": "server_error", "never": "timeout"}
    rude.plan(*kinds)
    r = figures(rude.url, "--concurrency", "1", "--requests", str(len(kinds)), "--timeout", "0.5", "--slo", "e2e:100")
    want = {}
    for kind in kinds.values():
        want[kind] = want.get(kind, 0) + 1
    assert r["requests"]["finished"] == want.pop(None) == r["goodput"]["requests"], r["requests"]
    assert {k: v for k, v in r["requests"]["errors"].items() if v} == want, r["requests"]
    assert "come back later" in r["requests"]["first_errors"]["busy"], r["requests"]["first_errors"]
    assert "lost a rank" in json.dumps(r["requests"]["first_errors"]) or "503" in r["requests"]["first_errors"]["server_error"]
    assert r["output_tokens"] == 5 + 3 and r["prompt_tokens"] == 11 and r["cached_tokens"] == 4


def nothing_finished_is_an_error_with_its_reason(_, rude):
    rude.plan("busy")
    done = run(rude.url, "--requests", "3")
    assert done.returncode == 1 and "come back later" in done.stdout and "no request finished" in done.stderr


def a_sweep_gives_up_what_fails(_, rude):
    rude.plan("busy")
    done = run(rude.url, "--sweep", "--rate", "100", "--duration", "0.25", "--slo", "e2e:1000", "--json", "-")
    r = json.loads(done.stdout)
    assert done.returncode == 0 and r["highest_rate"] == 0 and not any(one["holds"] for one in r["rates"])
    rude.plan("good", "good", "good", "busy")
    done = run(rude.url, "--sweep", "--rate", "400", "--requests", "40", "--slo", "e2e:1000", "--slo-share", "0.75", "--json", "-")
    assert json.loads(done.stdout)["highest_rate"] >= 400


def bad_traces_are_one_line_with_their_number(_, rude):
    for text in TRACE + "x,m,1,1,1,x\n", TRACE + "500,m\n":
        done = run(rude.url, "--trace", path("bad.csv", text))
        assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1 and "line 23" in done.stderr, done


def an_interrupt_prints_what_there_is(_, rude):
    rude.plan("good", "never")
    p = subprocess.Popen([TANDEM, "bench", "serve", "--url", rude.url, "--concurrency", "2", "--json", "-"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(Rude.bodies) < 4:
        time.sleep(0.02)
    p.send_signal(signal.SIGINT)
    out, _ = p.communicate(timeout=30)
    r = json.loads(out)
    assert p.returncode == 130 and r["interrupted"] and r["requests"]["errors"]["cancelled"] > 0


def wrong_options_are_one_line(_, rude):
    for options in ["--slo", "x:1"], ["--slo", "ttft:"], ["--prompt-tokens", "0"], ["--cv", "2"], ["--extra", "[1]"], ["--endpoint", "x"]:
        done = run(rude.url, *options)
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, (options, done)
    for url in "http://127.0.0.1:1", "ftp://x", "unix:" + path("absent"):
        done = run(url)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and url.replace("unix:", "") in done.stderr


TRACE = ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" +
         "".join("%g,m,%d,%d,0,x\n" % (100 + 2 * i, 20 + i, 1 + i % 4) for i in range(20)) + "150,m,9,0,9,x\n")


def a_trace_is_replayed_whole(t):
    record = path("record")
    r = figures(t.url, "--api-key-file", t.keys, "--trace", path("trace.csv", TRACE), "--trace-speed", "100", "--ignore-eos",
                "--record", record)
    assert r["requests"]["finished"] == 20 and r["output_tokens"] == 5 * (1 + 2 + 3 + 4) and r["load"]["timing"] == "trace"
    lines = [json.loads(line) for line in open(record)]
    assert len(lines) == 20 and sum(one["output_tokens"] for one in lines) == 50
    for one in lines:
        assert abs(one["due_s"] - one["request"] * 0.02) < 1e-6 and one["due_s"] <= one["sent_s"] <= one["first_s"] <= one["last_s"]
        assert abs(one["prompt_tokens"] - 20 - one["request"]) < 20


def a_part_of_a_trace_at_another_rate_or_in_a_closed_loop(t):
    trace = "--api-key-file", t.keys, "--trace", path("trace.csv", TRACE), "--trace-seconds", "20", "--ignore-eos"
    for options, timing in (["--rate", "500"], "arrivals"), (["--trace-speed", "0"], "closed"):
        r = figures(t.url, *trace, *options)
        assert r["requests"]["finished"] == 10 and r["load"]["timing"] == timing, r


def blocks_of_a_trace_are_shared(t):
    row = {"timestamp": 0, "input_length": 300, "output_length": 2, "hash_ids": [5]}
    rows = [row, {**row, "timestamp": 300}, {**row, "timestamp": 600, "hash_ids": [6]}]
    r = figures(t.url, "--api-key-file", t.keys, "--trace", path("trace.jsonl", "\n".join(map(json.dumps, rows))), "--concurrency", "1")
    assert 200 < r["cached_tokens"] < 350, r["cached_tokens"]


def prompts_of_a_file_are_sent(t):
    r = figures(t.url, "--api-key-file", t.keys, "--prompts", path("prompts", 'What?\n{"prompt": "Why?"}\n'), "--requests", "5",
                "--output-tokens", "3", "--ignore-eos")
    assert r["requests"]["finished"] == 5 and r["output_tokens"] == 15 and r["prompt_tokens_each"]["max"] < 30


def a_sweep_finds_a_rate(t):
    done = run(t.url, "--api-key-file", t.keys, "--sweep", "--rate", "1000000", "--requests", "20", "--slo", "e2e:1000",
               "--output-tokens", "2", "--prompt-tokens", "20", "--json", path("sweep.json"))
    r = json.load(open(path("sweep.json")))
    assert done.returncode == 0 and r["highest_rate"] >= 1e6 and len(r["rates"]) > 1
    assert all(one["holds"] and one["requests"]["sent"] == 20 for one in r["rates"])
    assert len(done.stdout.splitlines()) == len(r["rates"]) + 2


OURS = [a_closed_loop_is_served_whole, an_open_loop_is_served_whole, a_shared_prefix_is_found_in_the_cache,
        a_trace_is_replayed_whole, a_part_of_a_trace_at_another_rate_or_in_a_closed_loop, blocks_of_a_trace_are_shared,
        prompts_of_a_file_are_sent, a_sweep_finds_a_rate, a_unix_socket_will_do, waiting_for_a_place_counts, a_wrong_key_ends_at_once]
RUDE = [a_sweep_gives_up_what_fails, bad_traces_are_one_line_with_their_number, the_same_seed_sends_the_same_requests, words_are_counted_by_asking, every_failure_has_its_kind,
        nothing_finished_is_an_error_with_its_reason, an_interrupt_prints_what_there_is, wrong_options_are_one_line]


def main():
    tandem, rude, bad = Tandem(), RudeServer(), 0
    for claim in OURS + RUDE:
        try:
            claim(tandem, rude) if claim in RUDE else claim(tandem)
            print("ok -", claim.__name__, flush=True)
        except Exception:
            bad += 1
            print("not ok -", claim.__name__)
            traceback.print_exc(file=sys.stdout)
    if tandem.end():
        bad += 1
        print("not ok - the server ends well")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
