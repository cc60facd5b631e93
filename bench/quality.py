#!/usr/bin/env python3
"""quality.py - what formats of weights and of the KV cache cost in quality: python3 bench/quality.py MODEL [PROMPT]...

Lets the model as stored, computed in f32, write texts (temperature 1, some seeds), and then asks it
in every format for the logits of the same tokens. Prints the perplexity of the texts, the mean
Kullback-Leibler divergence from the f32 original in nats per token, and how often the likeliest
token is the same. Needs nothing but Python.
"""
import array, json, math, subprocess, sys

TANDEM, SEEDS, TOKENS = "build/tandem", 12, 160
FORMATS = [("f32", "f32"), ("bf16", "f32"), ("fp8", "f32"), ("int8", "f32"), ("int4", "f32"),  # of weights, KV cache
           ("f32", "bf16"), ("f32", "int8"), ("bf16", "bf16"), ("bf16", "int8")]


def run(model, *options):
    return subprocess.run([TANDEM, "run", model, "-q", *options], check=True,
                          capture_output=True).stdout


def texts(model, prompts):
    for seed in range(SEEDS):
        raw = [] if prompts else ["--raw"]
        prompt = prompts[seed % len(prompts)] if prompts else "Once upon a time"
        said = json.loads(run(model, "--dtype", "f32", "--kv", "f32", "--temperature", "1", "--top-p", "1", "--top-k", "0", "--seed",
                              str(seed), "-n", str(TOKENS), "--json", *raw, prompt))
        yield said["ids"]


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(x - top) for x in row))
    return [x - total for x in row]


def rows(model, ids, dtype, kv):
    run(model, "--dtype", dtype, "--kv", kv, "--raw", "--ids", " ".join(map(str, ids)), "--logits", "/tmp/tandem-quality")
    with open("/tmp/tandem-quality", "rb") as f:
        numbers = array.array("f", f.read())
    n = len(numbers) // len(ids)
    return [log_softmax(numbers[i * n:(i + 1) * n]) for i in range(len(ids))]


def main():
    model, prompts = sys.argv[1], sys.argv[2:]
    sums = {d: [0.0, 0.0, 0] for d in FORMATS}
    tokens = 0
    for ids in texts(model, prompts):
        if len(ids) < 2:
            continue
        original = rows(model, ids, "f32", "f32")
        tokens += len(ids) - 1
        for d in FORMATS:
            for i, (p, q) in enumerate(zip(original[:-1], rows(model, ids, *d))):
                sums[d][0] -= q[ids[i + 1]]
                sums[d][1] += sum(math.exp(a) * (a - b) for a, b in zip(p, q))
                sums[d][2] += max(range(len(p)), key=p.__getitem__) == max(range(len(q)), key=q.__getitem__)
    print(f"{model}, {tokens} tokens of its own text")
    print("weights  cache  perplexity  KL nats/token  same likeliest token")
    for d in FORMATS:
        nll, kl, same = sums[d]
        print(f"{d[0]:7}  {d[1]:5}  {math.exp(nll / tokens):10.4f}  {kl / tokens:13.6f}  {100 * same / tokens:19.2f} %")


main()
