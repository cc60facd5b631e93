#!/usr/bin/env python3
"""test_serve_experts.py - a running `tandem serve` of a mixture: experts are counted, placed anew and balanced, and no
answer changes.

    test/test_serve_experts.py build/tandem

Skips without the small mixture of TANDEM_SHARED (default ../shared). Standard library only.
"""
import json, os, random, subprocess, sys, tempfile, threading, time, traceback
import test_serve_live
from test_serve_live import Server

MODEL = os.path.join(os.environ.get("TANDEM_SHARED", "../shared"), "data/models/stories260K-moe8-hf")
PROMPTS = ["Once upon a time", "One day a cat", "Lily and Tom", "The little bird was", "There was a"]


def answer(s, i):
    ask = {"prompt": PROMPTS[i % len(PROMPTS)], "max_tokens": 40, "temperature": i % 2, "seed": i}
    status, text, _ = s.ask("POST", "/v1/completions", json.dumps(ask))
    assert status == 200, text
    return json.loads(text)["choices"][0]["text"]


def experts(s):
    status, text, _ = s.ask("GET", "/experts", to=s.admin)
    assert status == 200, text
    return json.loads(text)


def place(s, holds):
    body = {"schema": 1, "experts": 8, "runs": len(holds), "layers": [{"holds": holds}]}
    status, text, _ = s.ask("POST", "/experts/placement", json.dumps(body), to=s.admin)
    return status, text


def any_holds(runs):
    holds = [[e for e in range(8) if random.random() < 0.4] for _ in range(runs)]
    for e in range(8):
        if not any(e in run for run in holds):
            random.choice(holds).append(e)
    return holds


def at_once(s, n):
    got = [None] * n

    def one(i):
        got[i] = answer(s, i)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    return got, threads


# --------------------------------------------------------------------------------- claims

def rows_are_told_as_the_next_server_reads_them():
    s = Server(MODEL, "--tp", "2", "--ep", "2")
    answer(s, 0)
    told = experts(s)
    metrics = s.ask("GET", "/metrics")[1]
    s.end()
    rows = [sum(layer["rows"]) for layer in told["layers"]]
    assert told["experts"] == 8 and told["runs"] == 2 and len(rows) == 5
    assert rows[0] > 2 * 40 and rows.count(rows[0]) == 5 and rows[0] % 2 == 0, rows
    assert all(1 <= layer["lambda"] <= 2 and 1 <= layer["lambda_even"] <= 2 for layer in told["layers"])
    assert sum(f'tandem:expert_rows_total{{model_name="stories260K-moe8-hf",expert="{e}"}} ' in metrics for e in range(8)) == 8
    assert 'tandem:expert_lambda{model_name="stories260K-moe8-hf",layer="4"} ' in metrics
    file = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"tandem-loads-{os.getpid()}")
    open(file, "w").write(json.dumps(told))
    s = Server(MODEL, "--tp", "2", "--ep", "2", "--expert-loads", file, "--redundant-experts", "1")
    answer(s, 0)
    again = experts(s)
    s.end()
    os.unlink(file)
    assert [layer["rows"] for layer in again["layers"]] == [layer["rows"] for layer in told["layers"]]


def every_figure_is_in_the_manual():
    s = Server(MODEL)
    metrics = s.ask("GET", "/metrics")[1]
    s.end()
    text = open(os.path.join(os.path.dirname(__file__), "../docs/SERVING.md")).read()
    names = {line.split()[2].split(":")[-1] for line in metrics.splitlines() if line.startswith("# TYPE tandem:expert")}
    assert len(names) == 6, names
    assert not [name for name in names if f"`{name}`" not in text], names


def placements_at_random_change_no_answer():
    s = Server(MODEL, "--tp", "2", "--ep", "2")
    want = [answer(s, i) for i in range(12)]
    got, threads = at_once(s, 12)
    placed = 0
    while any(t.is_alive() for t in threads):
        assert place(s, any_holds(2))[0] == 200
        placed += 1
    for t in threads:
        t.join()
    assert "tandem:expert_placements_total{" in s.ask("GET", "/metrics")[1]
    s.end()
    assert placed > 0 and got == want


def balancing_changes_no_answer():
    s = Server(MODEL)
    want = [answer(s, i) for i in range(12)]
    s.end()
    s = Server(MODEL, "--tp", "2", "--ep", "2", "--rebalance", "0.1", "--redundant-experts", "2")
    for _ in range(3):
        got, threads = at_once(s, 12)
        for t in threads:
            t.join()
        assert got == want
    s.end()


def on_gpus(*options):
    """On the model of a GPU; None where it is not built."""
    model = os.path.join(os.path.dirname(os.path.abspath(test_serve_live.TANDEM)), "model")
    if not os.path.isdir(model):
        return None
    return Server(MODEL, "--device", "cuda", "--dtype", "f32", "--tp", "2", "--ep", "2", *options, TANDEM_PLUGIN_PATH=model)


def experts_move_between_gpus_and_no_answer_changes():
    s = on_gpus("--expert-placement", "even", "--redundant-experts", "0", "--rebalance", "0.2")
    if not s:
        return print("skipped: no model of a GPU")
    got, threads = at_once(s, 4)
    placed = 0
    while any(t.is_alive() for t in threads):
        some = random.sample(range(8), 8)
        assert place(s, [sorted(some[:4]), sorted(some[4:])])[0] == 200
        placed += 1
        time.sleep(0.05)
    for t in threads:
        t.join()
    status, text = place(s, [[0, 1, 2, 3, 4], [4, 5, 6, 7]])
    assert status == 400 and "have room for 4" in text, text
    assert sum(experts(s)["layers"][0]["rows"]) > 4 * 40
    s.end()
    s = on_gpus()
    status, text = place(s, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert status == 400 and "has no slots" in text, text
    s.end()
    s = Server(MODEL, "--dtype", "f32")
    assert placed > 3 and got == [answer(s, i) for i in range(4)]
    s.end()


def a_packed_mixture_may_exceed_what_is_kept_of_it():
    with tempfile.TemporaryDirectory() as folder:
        packed = os.path.join(folder, "packed")
        subprocess.run([test_serve_live.TANDEM, "pack", MODEL, packed, "-q"], check=True)
        s = Server(packed)
        want = [answer(s, i) for i in range(6)]
        assert "expert_cache" not in s.ask("GET", "/metrics")[1]
        s.end()
        for layout in (), ("--tp", "2", "--ep", "2"):
            s = Server(packed, *layout, "--expert-cache", "1M")
            assert [answer(s, i) for i in range(6)] == want
            metrics = s.ask("GET", "/metrics")[1]
            text = open(os.path.join(os.path.dirname(__file__), "../docs/SERVING.md")).read()
            for name in "expert_cache_hits_total", "expert_cache_misses_total", "expert_cache_read_bytes_total":
                assert f"tandem:{name}{{" in metrics and f"`{name}`" in text, name
            s.end()
    try:
        Server(MODEL, "--expert-cache", "1M")
        assert False, "it came up"
    except Exception as e:
        assert "--expert-cache reads packed weights" in str(e), e


def a_bad_placement_is_refused_and_nothing_happens():
    s = Server(MODEL, "--tp", "2", "--ep", "2")
    want = answer(s, 0)
    for holds, says in [([[0, 1, 2, 3], [4, 5, 6]], "expert 7 is held by none"),
                        ([[0, 1, 2, 3, 3], [4, 5, 6, 7]], "names expert 3 twice"),
                        ([[0, 1, 2, 3, 4, 5, 6, 7]], "here are 8 on 2")]:
        status, text = place(s, holds)
        assert status == 400 and says in text, text
    assert s.ask("POST", "/experts/placement", "{", to=s.admin)[0] == 400
    assert s.ask("POST", "/experts/placement", "", to=s.admin)[0] == 400
    assert s.ask("GET", "/experts")[0] == 404  # only on the admin's socket
    assert answer(s, 0) == want
    s.end()


CLAIMS = [rows_are_told_as_the_next_server_reads_them, every_figure_is_in_the_manual, placements_at_random_change_no_answer, balancing_changes_no_answer,
          experts_move_between_gpus_and_no_answer_changes,
          a_packed_mixture_may_exceed_what_is_kept_of_it,
          a_bad_placement_is_refused_and_nothing_happens]


def main():
    test_serve_live.TANDEM = sys.argv[1]
    if not os.path.isdir(MODEL):
        print(f"skipped: no {MODEL}")
        return 77
    bad = 0
    for claim in CLAIMS:
        try:
            claim()
            print("ok      ", claim.__name__, flush=True)
        except Exception:
            traceback.print_exc()
            print("FAILED  ", claim.__name__, flush=True)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
