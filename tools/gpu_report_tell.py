"""gpu_report_tell.py - for gpu_report: the report of results, whatever is missing of them."""


def part(results, name):
    return results["parts"].get(name, {})


def kernel(results, begin):
    for k in part(results, "kernels").get("of", []):
        if k["name"].startswith(begin):
            return k
    return None


def rate(results, begin, what):
    k = kernel(results, begin)
    return k[what] / k["seconds"] if k and k["seconds"] else 0


def yardsticks(results):
    """Bytes a second that are copied, operations a second of cuBLASLt; 0: not measured."""
    of = part(results, "kernels").get("of", [])
    return (rate(results, "copy", "bytes"),
            max([k["flops"] / k["seconds"] for k in of if k["name"].startswith("cublaslt")], default=0))


def share(a, b):
    return f"{100 * a / b:.0f} %" if a and b else ""


def code(text):
    return "```\n" + text.strip() + "\n```\n"


# ------------------------------------------------------------------------------- parts


def tell_parts(results, put):
    put("## What was done\n\n| part | state | s | why |\n|---|---|---|---|")
    for name, p in results["parts"].items():
        why = (p.get("why") or p.get("note") or "").strip().splitlines()
        put(f"| {name} | {p['state']} | {p.get('seconds', 0):.0f} | {why[-1][:200].replace('|', '/') if why else ''} |")
    for name, p in results["parts"].items():
        if p["state"] == "failed" and len(p.get("why", "").strip().splitlines()) > 1:
            put(f"\n`{name}` said:\n\n{code(p['why'])}")


def ended(t):
    if t["code"] in (0, 77):
        return "" if t["code"] == 0 else "skipped"
    return ", ".join(t["failed"]) or {124: "took too long"}.get(t["code"], f"ended with {t['code']}")


def tell_notes(results, put):
    for note in results.get("notes", []):
        put(f"\n- {note}")
    if part(results, "kernels").get("warpgroups"):
        put(f"\n- warpgroup products, tried: {part(results, 'kernels')['warpgroups']}")


def programs(results):
    return part(results, "tests").get("of", []) + part(results, "tests-whole").get("of", [])


def tell_tests(results, put):
    of = programs(results)
    if not of:
        return
    put("\n## Tests\n\n| program | claims that held | failed |\n|---|---|---|")
    for t in of:
        put(f"| `{t['name']}` | {t['passed']} | {ended(t)} |")
    s = part(results, "sanitize")
    if "code" in s:
        put(f"\ncompute-sanitizer: {'clean' if s['code'] == 0 else 'see below'}\n")
    for t in of:
        if t["why"]:
            put(f"`{t['name']}` said:\n\n{code(t['why'])}")
    if s.get("words"):
        put(f"compute-sanitizer said:\n\n{code(s['words'])}")


def tell_kernels(results, put, copy, math):
    of = part(results, "kernels").get("of", [])
    if not of:
        return
    put("\n## Kernels\n\nBytes are those that must be moved, beside what the GPU copies; operations beside what cuBLASLt "
        "multiplies in bf16.\n\n| kernel | us | GB/s | of copying | TFLOP/s | of cuBLASLt |\n|---|---|---|---|---|---|")
    for k in of:
        if not k["seconds"]:
            put(f"| {k['name']} | {k['bytes'] / 2**20:.1f} MiB | | | | |")
            continue
        bytes_s, flops = k["bytes"] / k["seconds"], k["flops"] / k["seconds"]
        put(f"| {k['name']} | {1e6 * k['seconds']:.2f} | {bytes_s * 1e-9:.0f} | {share(bytes_s, copy)} | {flops * 1e-12:.1f} | "
            f"{share(flops, math)} |")
    tried = part(results, "kernels").get("warpgroups", "none")
    if ":" in tried and not tried.endswith("none"):
        put(f"\nWarpgroup instructions, tried beside kernels without: {tried}. They are used where bits are the same.")


def step_parts(results):
    return [p for name, p in results["parts"].items() if name.startswith("steps-") and p.get("steps")]


def tell_steps(results, put, copy, math):
    if not step_parts(results):
        return
    put(f"\n## Steps of {results['model']}\n\nOne GPU; GB/s are weights and cache read, TFLOP/s what the model needs. Ready: from "
        "the files to weights on the GPU, packed on the way.\n\n| weights | step | ms | GB/s | of copying | TFLOP/s | of cuBLASLt "
        "| predicted ms | off by |\n|---|---|---|---|---|---|---|---|---|")
    for p in step_parts(results):
        for s in p["steps"]:
            predicted = f"{s['predicted_ms']:.3f}" if "predicted_ms" in s else ""
            off = f"{100 * s['off_by']:+.0f} %" if "off_by" in s else ""
            put(f"| {p['dtype']} | {s['step']} | {s['ms']:.3f} | {s['gb_s']:.0f} | {share(1e9 * s['gb_s'], copy)} | "
                f"{1e-3 * s['gflop_s']:.1f} | {share(1e9 * s['gflop_s'], math)} | {predicted} | {off} |")
    put("")
    for p in step_parts(results):
        put(f"- {p['dtype']}: ready in {p['start_s']:.1f} s, {p['weight_bytes'] * 1e-9 / p['start_s']:.2f} GB/s of weights; predicted "
            f"by `{p['predicted_by']}`")


def tell_profile(results, put):
    for s in part(results, "profile").get("steps", []):
        put(f"\n## Where the time goes: {s['step']}, bf16\n\nMarks after every operation, launched one by one: small ones may "
            f"take as long as launching the next.\n\n| operation | calls | ms | share |\n|---|---|---|---|")
        for o in s["profile"]:
            put(f"| {o['operation']} | {o['calls']:.0f} | {o['ms']:.3f} | {100 * o['share']:.1f} % |")


def tell_serve(results, put):
    s, p = part(results, "serve"), part(results, "peers")
    if "load" in s:
        put(f"\n## Server\n\n{s['clients']} clients at once; ready after {s['ready_s']:.1f} s; the GPU waits between "
            f"steps for {100 * s['idle_share']:.1f} % of the time.\n\n| | tokens/s | TTFT P50 ms | ITL P50 ms | longest wait s | failed |\n"
            "|---|---|---|---|---|---|")
        for name, f in (("load", s["load"]), ("a rank killed", s.get("killed"))):
            if f:
                put(f"| {name} | {f['output_tok_s']:.0f} | {1e3 * f['ttft_p50_s']:.0f} | {1e3 * f['itl_p50_s']:.1f} | "
                    f"{f['itl_max_s']:.2f} | {f['failed']} |")
    if "transformers" in p:
        said = ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in p.items()
                         if k not in ("state", "why", "seconds"))
        put(f"\ntransformers: {said}")


# ------------------------------------------------------------------------------- aims


def step_of(results, dtype, words):
    for s in part(results, "steps-" + dtype).get("steps", []):
        if s["step"].startswith(words):
            return s
    return None


def beyond_kernels(results):
    """Of a decode step of one sequence: what is not in the operations' own time."""
    whole = step_of(results, "bf16", "decode 1 ")
    for s in part(results, "profile").get("steps", []):
        if whole and s["step"] == whole["step"]:
            inside = sum(o["ms"] for o in s["profile"] if o["operation"] not in ("rest", "fetch"))
            return f"{100 * (1 - inside / whole['ms']):.1f} %"
    return None


def off_by(results):
    of = sorted(abs(s["off_by"]) for p in step_parts(results) for s in p["steps"] if "off_by" in s)
    return f"{100 * of[len(of) // 2]:.0f} %" if of else None


def tell_aims(results, put, copy, math):
    def row(what, aim, value):
        put(f"| {what} | {aim} | {value or 'not measured'} |")

    def us(begin):
        k = kernel(results, begin)
        return k and f"{1e6 * k['seconds']:.1f} us"

    put("\n## Aims\n\n| what | aim | measured |\n|---|---|---|")
    for dtype, aim in (("bf16", "85 %"), ("int8", "80 %"), ("int4", "80 %"), ("fp8", "80 %")):
        s = step_of(results, dtype, "decode 1 ")
        if s or dtype != "fp8":
            row(f"decode, batch 1, {dtype}, of copying", f">= {aim}", s and share(1e9 * s["gb_s"], copy))
    s = step_of(results, "bf16", "decode 64 ")
    least = s and max(s["gb_s"] * 1e9 / copy if copy else 0, s["gflop_s"] * 1e9 / math if math else 0)
    row("decode, batch 64, bf16, of the nearer limit", ">= 75 %", least and f"{100 * least:.0f} %")
    s = step_of(results, "bf16", "prompt of 2048")
    row("prompt of 2048, bf16, of cuBLASLt", ">= 65 %", s and share(1e9 * s["gflop_s"], math))
    row("attention of a prompt of 2048, of cuBLASLt", ">= 60 %",
        share(rate(results, "attend bf16 sequences 1 rows 2048", "flops"), math))
    row("decode step beyond its operations", "<= 3 %", beyond_kernels(results))
    row("all-reduce of 16 KiB, two ranks (streams) on one GPU", "<= 10 us", us("all-reduce 16 KiB, 2 streams"))
    row("the same by two processes, of which a GPU runs one at a time", "", us("all-reduce 16 KiB, 2 processes"))
    kept, copied = kernel(results, "copy in kept memory"), kernel(results, "copy")
    row("copying in kept memory beside other memory", "100 %",
        kept and copied and kept["seconds"] and f"{100 * copied['seconds'] / kept['seconds']:.0f} %")
    k = kernel(results, "memory of a gpu-keeper")
    row("memory of a gpu-keeper beside what it keeps", "0 MiB", k and f"{k['bytes'] / 2**20:.0f} MiB")
    k = kernel(results, "memory of a process")
    row("memory of a process beside what it asks for", "<= 640 MiB", k and k["bytes"] and f"{k['bytes'] / 2**20:.0f} MiB")
    mine, peer = step_of(results, "bf16", "decode 1 "), part(results, "peers")
    best = min([peer[k] for k in ("decode_ms", "decode_eager_ms") if peer.get(k)], default=0)
    row("decode, batch 1, beside transformers", ">= 2 x", mine and best and f"{best / mine['ms']:.1f} x ({best:.2f} ms)")
    mine = part(results, "serve").get("load", {}).get("output_tok_s")
    best = peer.get("batch_tok_s")
    row(f"{part(results, 'serve').get('clients', 32)} clients at once beside transformers", ">= 3 x",
        mine and best and f"{mine / best:.1f} x ({best:.0f} tokens/s)")
    row("predicted beside measured, median of the steps", "<= 5 %", off_by(results))
    killed = part(results, "serve").get("killed")
    row("a rank killed under load: longest wait, requests that failed", "", killed and f"{killed['itl_max_s']:.2f} s, {killed['failed']}")
    row("of it, until ranks worked again, on kept weights and cache", "<= 3 s, yes",
        killed and "kept" in killed and f"{killed['restart_s']:.2f} s, {'yes' if killed['kept'] == killed['restarts'] else 'no'}")


# ------------------------------------------------------------------------------- all


def report(results):
    lines = []
    copy, math = yardsticks(results)
    gpu = part(results, "kernels").get("gpu") or "GPU"
    lines.append(f"# Report of a GPU\n\n{gpu} (sm_{results['arch']}, {results['n']} of them, driver {results['driver']}), "
                 f"{results['date']}, commit {results['commit']}; by `tools/gpu_report` in {results.get('seconds', 0):.0f} s. "
                 + ("**On the model of a GPU: no figure means anything.**" if results.get("dry") else "All figures are measured "
                    "in this run.") + f"\n\nCopying: {copy * 1e-9:.0f} GB/s read and written. cuBLASLt bf16: "
                 + (f"{math * 1e-12:.0f} TFLOP/s.\n" if math else "not measured.\n"))
    tell_aims(results, lines.append, copy, math)
    lines.append("")
    tell_parts(results, lines.append)
    tell_notes(results, lines.append)
    tell_tests(results, lines.append)
    tell_kernels(results, lines.append, copy, math)
    tell_steps(results, lines.append, copy, math)
    tell_profile(results, lines.append)
    tell_serve(results, lines.append)
    return "\n".join(lines) + "\n"


def failures(results):
    return (sum(t["code"] not in (0, 77) for t in programs(results)), sum(p["state"] == "failed" for p in results["parts"].values()))


def summary(results, out):
    tests, parts = failures(results)
    return (f"{out}: {len(programs(results))} programs of tests, {tests} failed; {len(results['parts'])} parts, "
            f"{parts} failed")


def exit_code(results):
    return 1 if any(failures(results)) else 0
