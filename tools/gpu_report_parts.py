"""gpu_report_parts.py - for gpu_report: what is built, tested and measured, part by part, in the order of
their worth. A part fills a dictionary as it goes, so that what it had found stays when it fails."""
import json, os, re, shutil, socket, sys, time, urllib.request
from collections import namedtuple

from gpu_report_run import ROOT, Run, Skip, say

Part = namedtuple("Part", "name seconds what do")

# What is measured, and on the model of a GPU how little of it, to see that it works.
SIZES = {False: dict(prompt=2048, batch="1,8,64", context=512, rounds=5, profile_batch="1,64", clients=32, requests=96,
                     prompt_tokens=128, answer=128, seqs=32, ctx=1024),
         True: dict(prompt=8, batch="1,2", context=16, rounds=1, profile_batch="1", clients=2, requests=4,
                    prompt_tokens=8, answer=24, seqs=2, ctx=256)}


# ------------------------------------------------------------------------------- building


def toolkit():
    """nvcc, wherever the toolkit is."""
    places = [shutil.which("nvcc")] + [os.path.join(os.environ[v], "bin", "nvcc") for v in ("CUDA_HOME", "CUDA_PATH")
                                       if os.environ.get(v)]
    places += [f"/usr/local/cuda{v}/bin/nvcc" for v in ("", "-13", "-13.0", "-13.1", "-13.2")] + ["/opt/cuda/bin/nvcc"]
    for place in places:
        if place and os.path.exists(place):
            true = os.path.realpath(place)  # beside it are headers and libraries
            return true if os.path.basename(true) == "nvcc" else place
    raise Skip("no nvcc: set CUDA_HOME, or build elsewhere and take --bundle")


def lacking(words):
    """What to do about libraries that CMake did not find."""
    names = re.findall(r"^ +- (\S+)$", words, re.M) + re.findall(r"Could NOT find (\w+)", words)
    if not names:
        return words
    return f"{words}\nmissing: {', '.join(names)}: tools/setup installs them, or build elsewhere and take --bundle"


def build(run, to):
    """Only what is used here, for this GPU alone. Warnings of compilers that were never tried are none."""
    if not run.builds:
        raise Skip(f"what is in {run.build} is used")
    nvcc, arch = toolkit(), run.gpu[0]
    to["nvcc"] = nvcc
    env = dict(os.environ, CUDA_HOME=os.path.dirname(os.path.dirname(nvcc)))
    configure = ["cmake", "-S", ROOT, "-B", run.build, "-DTANDEM_CUDA=ON", f"-DTANDEM_CUDA_ARCHITECTURES={arch}",
                 f"-DNVCC={nvcc}", "-DTANDEM_MPI=OFF", "-DTANDEM_WERROR=OFF"] + (["-G", "Ninja"] if shutil.which("ninja") else [])
    ended = run.command(configure, 90, env=env)
    if ended.code and "cmocka" in ended.words():
        say("no cmocka: tests are not built")
        to["note"] = "cmocka is not installed: no tests"
        ended = run.command(configure + ["-DBUILD_TESTING=OFF"], 90, env=env)
    if ended.code:
        raise RuntimeError(lacking(ended.words()))
    listed = run.command(["cmake", "--build", run.build, "--target", "help"], 30).out
    targets = ["tandem", "tandem-cuda", "tandem-bench-gpu"] + sorted(set(re.findall(rf"\b({TESTS})\b", listed)))
    ended = run.command(["cmake", "--build", run.build, "-j", str(os.cpu_count()), "--target", *targets], run.left(), env=env)
    if ended.code:
        raise RuntimeError(ended.words())


# ------------------------------------------------------------------------------- tests


TESTS = r"real_gpu_\w+|test_gpu_(?:run|keeper|engine|placement)"
WHOLE = ["real_gpu_peer", "test_gpu_run", "test_gpu_keeper", "test_gpu_engine", "test_gpu_placement"]  # where ranks wait for each other


def built_tests(run):
    return set(f for f in os.listdir(run.build) if re.fullmatch(TESTS, f)) if os.path.isdir(run.build) else set()


def kernel_tests(run):
    if run.dry:
        return ["test_gpu_device", "test_gpu_rows"]
    here = built_tests(run) - set(WHOLE)
    first = ["real_gpu_rows", "real_gpu_device", "real_gpu_products", "real_gpu_attend"]
    return [t for t in first if t in here] + sorted(here - set(first))


def whole_tests(run):
    return [t for t in WHOLE if t in built_tests(run)]


def tests(programs_of, seconds):
    """Each program on its own: how it ended, how many claims held, which did not."""
    def do(run, to):
        to["of"] = []
        begin_model(run)
        programs = programs_of(run)
        if not programs:
            raise Skip("no tests were built")
        for name in programs:
            if run.left() < 2:
                to["of"].append({"name": name, "code": 124, "passed": 0, "failed": [], "why": "no time was left"})
                continue
            say(f"  {name}")
            ended = run.command([run.program(name)], 10 if run.dry else seconds, env=run.environment())
            said = ended.out + ended.err
            passed = len(re.findall(r"^\[       OK \]", said, re.M))
            failed = sorted(set(re.findall(r"^\[  FAILED  \] ([a-z]\w+)$", said, re.M)))
            to["of"].append({"name": name, "code": ended.code, "passed": passed, "failed": failed, "seconds": ended.seconds,
                             "why": "" if ended.code in (0, 77) else said[-1500:]})
    return do


def sanitize(run, to):
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(tool):
        raise Skip("compute-sanitizer is not installed")
    if run.dry:
        raise Skip("nothing to look at on the model of a GPU")
    ended = run.command([tool, "--error-exitcode", "9", run.program("real_gpu_rows")], 60, env=run.environment())
    to["code"], to["words"] = ended.code, "" if ended.code == 0 else ended.words()


# ------------------------------------------------------------------------------- kernels


def lines_of_json(text):
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                pass  # cut off where the program was ended
    return found


def kernels(run, to):
    begin_model(run)
    command = [run.program("bench_gpu_model"), "--tiny"] if run.dry else [run.program("tandem-bench-gpu")]
    ended = run.command(command, run.left(), env=run.environment())
    lines = lines_of_json(ended.out)
    to.update(next((x for x in lines if "gpu" in x), {}))
    to["warpgroups"] = next((x["warpgroups"] for x in lines if "warpgroups" in x), "none")
    to["of"] = [x for x in lines if "name" in x]
    if ended.code:
        raise RuntimeError(ended.words())


def calibrate(run, to):
    """The profile that all predictions after this are made by; the report keeps it."""
    path = os.path.join(run.work, "this-gpu.json")
    words = ["topo", "--measure", "--device", "cuda", "-o", path, "-q"] + (["--dtype", "bf16"] if run.dry else [])
    run.measured(run.tandem(*words), run.left())
    with open(path) as f:
        to["profile"] = json.load(f)
    predict_by(run, path, to["profile"])


def predict_by(run, path, profile):
    run.measured_profile, run.measured_formats = path, set(profile["rates"][0]["product"])


def resume(run, results):
    """What parts of an earlier run are for later ones."""
    run.notes = results.get("notes", [])
    found = results["parts"].get("calibrate", {}).get("profile")
    if found:
        path = os.path.join(run.work, "this-gpu.json")
        with open(path, "w") as f:
            json.dump(found, f)
        predict_by(run, path, found)


# ------------------------------------------------------------------------------- steps


def begin_model(run):
    """Random weights are written while the GPU is tested."""
    known = not os.path.isdir(run.args.model)
    run.folder = run.args.model if not known else os.path.join(run.work, "model")
    if run.dry:
        run.folder = os.path.join(ROOT, "models", "demo")
    if run.dry or not known or run.writing:
        return
    run.writing = run.start(run.tandem("make-model", run.args.model, run.folder, "--quiet"), env=run.environment())


def model(run):
    begin_model(run)
    if run.writing:
        ended = run.finish(run.writing, run.left())
        if ended.code:
            run.writing = None
            raise RuntimeError("the model was not written: " + ended.words())
    return run.folder


def latency(run, *words):
    size = SIZES[run.dry]
    out = run.measured(run.tandem("bench", "latency", model(run), "--device", "cuda", "--tp", "1", "--prompt", str(size["prompt"]),
                                  "--chunk", str(size["prompt"]), "--context", str(size["context"]), "--json", *words), run.left())
    return json.loads(out)


def steps(dtype, *more):
    """more: an option that not every build has."""
    def do(run, to):
        known = run.command(run.tandem("bench", "latency", "--help"), 10, env=run.environment()).out
        if dtype not in known or not all(word in known for word in more):
            raise Skip(f"no {' '.join((dtype,) + more)}")
        size = SIZES[run.dry]
        profile = run.measured_profile if dtype in run.measured_formats else run.profile
        found = latency(run, "--dtype", dtype, "--batch", size["batch"], "--rounds", str(size["rounds"]), "--predict", profile, *more)
        to.update({k: found[k] for k in ("steps", "start_s", "weight_bytes")}, dtype=" ".join((dtype,) + more))
        to["predicted_by"] = os.path.basename(profile)
    return do


def profile(run, to):
    """Where a step's time goes, by marks in the stream, outside recordings."""
    found = latency(run, "--dtype", "bf16", "--batch", SIZES[run.dry]["profile_batch"], "--rounds", "2", "--profile")
    to["steps"] = found["steps"]


# ------------------------------------------------------------------------------- the server


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children(pid):
    try:
        return [int(c) for t in os.listdir(f"/proc/{pid}/task") for c in open(f"/proc/{pid}/task/{t}/children").read().split()]
    except OSError:
        return []


def comm(pid):
    try:
        return open(f"/proc/{pid}/comm").read()
    except OSError:
        return ""


def ranks_of(pid):
    """The server's ranks, by their names."""
    ranks, todo = [], children(pid)
    while todo:
        one = todo.pop()
        todo += children(one)
        if comm(one).startswith("tandem-rank-"):
            ranks.append(one)
    return ranks


class Server:
    def __init__(self, run):
        size, self.run = SIZES[run.dry], run
        folder = model(run)
        self.url = f"http://127.0.0.1:{free_port()}"
        begun = time.monotonic()
        self.process = run.start(run.tandem("serve", folder, "--device", "cuda", "--tp", "1", "--max-seqs", str(size["seqs"]), "--ctx",
                                            str(size["ctx"]), "--port", self.url.rsplit(":")[-1], "-q"), env=run.environment())
        while not self.healthy():
            if self.process.poll() is not None or run.left() < 1:
                raise RuntimeError("the server did not come up: " + run.finish(self.process, 0).words())
            time.sleep(0.02)
        self.ready_s = time.monotonic() - begun

    def healthy(self):
        try:
            return urllib.request.urlopen(self.url + "/health", timeout=5).status == 200
        except OSError:
            return False

    def metric(self, name):
        for line in urllib.request.urlopen(self.url + "/metrics", timeout=5).read().decode().splitlines():
            if re.match(name + r"[{ ]", line):
                return float(line.split()[-1])
        return 0.0

    def load(self, requests):
        """A load that runs; finish() ends it."""
        size = SIZES[self.run.dry]
        return self.run.start(self.run.tandem("bench", "serve", "--url", self.url, "--endpoint", "completions", "--ignore-eos", "-t", "0",
                                              "--concurrency", str(size["clients"]), "-n", str(requests), "--prompt-tokens",
                                              str(size["prompt_tokens"]), "--output-tokens", str(size["answer"]), "--json", "-"),
                              env=self.run.environment())

    def figures(self, load):
        ended = self.run.finish(load, self.run.left())
        if not ended.out.strip().startswith("{"):
            raise RuntimeError(ended.words())
        f = json.loads(ended.out)
        return {"output_tok_s": f["output_tok_per_s"], "ttft_p50_s": f["ttft_s"]["p50"], "itl_p50_s": f["itl_s"]["p50"],
                "itl_max_s": f["itl_s"]["max"], "failed": f["requests"]["failed"], "finished": f["requests"]["finished"]}


def serve(run, to):
    size = SIZES[run.dry]
    server = Server(run)
    try:
        to["ready_s"], to["clients"] = server.ready_s, size["clients"]
        server.figures(server.load(size["clients"]))  # shapes are recorded
        load = server.load(size["requests"])
        to["idle_share"] = idle_share(run, server, load)
        to["load"] = server.figures(load)
        kill_a_rank(run, to, server)
    finally:
        to["words"] = run.finish(server.process, 0).err[-500:]


def await_tokens(run, server, load, n):
    """Until so many were drawn, or the load ended."""
    while server.metric("tandem:generation_tokens_total") < n and load.poll() is None and run.left() > 1:
        time.sleep(0.01)


def idle_share(run, server, load):
    """Of the time between a load's first and last tokens, what the rank's GPU waits for the next step."""
    size = SIZES[run.dry]
    drawn = server.metric("tandem:generation_tokens_total")
    await_tokens(run, server, load, drawn + 4 * size["clients"])
    idle, begun = server.metric("tandem:rank_idle_seconds_total"), time.monotonic()
    await_tokens(run, server, load, drawn + (size["requests"] - size["clients"]) * size["answer"])
    return (server.metric("tandem:rank_idle_seconds_total") - idle) / (time.monotonic() - begun)


def kill_a_rank(run, to, server):
    """Under load; what its clients see is the longest wait between two tokens."""
    say("  a rank is killed under load")
    before, drawn = server.metric("tandem:restarts_total"), server.metric("tandem:generation_tokens_total")
    load = server.load(SIZES[run.dry]["requests"])
    await_tokens(run, server, load, drawn + 4 * SIZES[run.dry]["clients"])
    if load.poll() is not None or run.left() < 1:
        raise RuntimeError("the load ended before a rank could be killed: " + run.finish(load, 0).words())
    ranks = ranks_of(server.process.pid)
    if not ranks:
        raise RuntimeError("no rank was found to kill")
    os.kill(ranks[0], 9)
    to["killed"] = server.figures(load)
    to["killed"]["restarts"] = server.metric("tandem:restarts_total") - before
    to["killed"]["kept"] = server.metric("tandem:restarts_kept_total")
    to["killed"]["restart_s"] = server.metric("tandem:restart_seconds_total")
    if not to["killed"]["restarts"]:
        raise RuntimeError(f"process {ranks[0]} was killed, but no rank was started again")


def peers(run, to):
    """Hugging Face transformers on the same shape."""
    script = os.path.join(ROOT, "bench", "gpu_peers.py")
    python = [sys.executable] + (["-S"] if run.dry else [])  # -S: as if nothing were installed
    model(run)
    ended = run.command([*python, script, run.folder, "--batch", str(SIZES[run.dry]["clients"]), "--prompt",
                         str(SIZES[run.dry]["prompt_tokens"]), "--answer", str(SIZES[run.dry]["answer"])], run.left())
    for line in lines_of_json(ended.out):
        to.update(line)
    if "cannot be measured" in ended.err and ended.code:
        raise Skip(ended.err.strip().splitlines()[-1])
    if ended.code:
        raise RuntimeError(ended.words())


PARTS = [Part("build", 300, "for this GPU", build),
         Part("tests", 150, "kernels beside the CPU", tests(kernel_tests, 45)),
         Part("kernels", 70, "alone, beside copying and cuBLASLt", kernels),
         Part("calibrate", 90, "the hardware profile of this GPU", calibrate),
         Part("steps-bf16", 120, "decode and prompts", steps("bf16")),
         Part("serve", 120, "many clients, and a rank that is killed", serve),
         Part("tests-whole", 280, "whole models beside the CPU, groups, ranks that are killed", tests(whole_tests, 90)),
         Part("profile", 45, "where a step's time goes", profile),
         Part("peers", 200, "transformers", peers),
         Part("steps-int8", 60, "decode and prompts", steps("int8")),
         Part("steps-int4", 60, "decode and prompts", steps("int4")),
         Part("steps-fp8", 60, "decode and prompts", steps("fp8")),
         Part("steps-fast", 60, "decode and prompts, by cuBLASLt", steps("bf16", "--fast")),
         Part("sanitize", 60, "compute-sanitizer", sanitize)]
NAMES = [p.name for p in PARTS]
