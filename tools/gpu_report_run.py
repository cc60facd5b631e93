"""gpu_report_run.py - for gpu_report: where things are, programs that are started with a time limit and
whose last words are kept, and how much time is left."""
import ctypes, json, os, shutil, signal, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUNDLE = os.path.join(ROOT, "BUNDLE.json")  # there: unpacked from gpu_report --bundle
BEGAN = time.monotonic()
ROOM = 20 << 30  # bytes, for a model of 16 GB


LIBC = ctypes.CDLL(None)


def end_with_parent():
    """A server that outlived a killed report would still be at work when the next one measures."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Skip(Exception):
    """What cannot be done here, and why; no failure."""


def say(text):
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)


class Ended:
    """A program that ended, or was ended because it took too long (code 124)."""

    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def words(self):
        """Why it failed: the end of what it said."""
        text = (self.err.strip() or self.out.strip())[-2000:]
        return text or f"exit code {self.code}"


def roomy():
    """A folder with room for the model; one in memory only if there is no other."""
    for place in (tempfile.gettempdir(), ROOT, "/dev/shm"):
        if os.path.isdir(place) and os.access(place, os.W_OK) and shutil.disk_usage(place).free > ROOM:
            return place
    return tempfile.gettempdir()


def find_gpu():
    """(compute capability, number of GPUs) and why not."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "no driver: libcuda.so.1 is not found"
    n, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    code = cuda.cuInit(0)
    if code:
        return None, f"the driver does not begin: CUDA error {code}"
    if cuda.cuDeviceGetCount(ctypes.byref(n)) or n.value == 0:
        return None, "the driver shows none"
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    return (10 * major.value + minor.value, n.value), None


class Run:
    def __init__(self, args):
        self.args, self.began, self.dry = args, BEGAN, args.model_gpu
        self.bundle = os.path.exists(BUNDLE)
        self.builds = not (self.bundle or self.dry or args.no_build)
        default = "build" if self.bundle or self.dry else "build-gpu"
        self.build = os.path.abspath(args.build or os.path.join(ROOT, default))
        self.work = tempfile.mkdtemp(prefix="gpu_report-", dir=args.work or (None if self.dry else roomy()))
        self.notes = []
        self.started = []  # and not ended yet
        self.writing = None  # the process that writes the model meanwhile
        self.until = 0
        self.gpu = (80, 1) if self.dry else None
        self.profile, self.measured_profile, self.measured_formats = args.profile, None, set()
        shipped = os.path.join(ROOT, "profiles", args.profile + ".json")
        if os.path.exists(shipped):
            self.profile = shipped

    # ------------------------------------------------------------------------- the machine

    def no_gpu(self):
        """Asked in a process of its own: a driver may hang."""
        if self.dry:
            return None
        code = "import gpu_report_run as r, json; print(json.dumps(r.find_gpu()))"
        ended = self.command([sys.executable, "-c", code], 60, cwd=os.path.dirname(os.path.abspath(__file__)))
        if ended.code:
            return "the driver does not answer: " + ended.words()[-200:]
        self.gpu, why = json.loads(ended.out)
        return why

    def about(self):
        def first(command):
            return (self.command(command, 20).out.splitlines() or [""])[0].strip()
        commit = first(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
        if self.bundle:
            with open(BUNDLE) as f:
                commit = json.load(f).get("commit", "")
        return {"arch": self.gpu[0], "n": self.gpu[1], "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "commit": commit or "unknown",
                "driver": first(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]) or "unknown"}

    def program(self, name):
        """A program of the build; one that is not there cannot be run."""
        path = os.path.join(self.build, name)
        if not os.path.exists(path):
            raise Skip(f"{name} was not built")
        return path

    def environment(self):
        env = dict(os.environ)
        env["TANDEM_PLUGIN_PATH"] = os.path.join(self.build, "model") if self.dry else self.build
        env.setdefault("TANDEM_DEMO", os.path.join(ROOT, "models", "demo"))
        if self.bundle:
            env["LD_LIBRARY_PATH"] = ":".join(filter(None, [os.path.join(ROOT, "lib"), env.get("LD_LIBRARY_PATH")]))
        return env

    # ------------------------------------------------------------------------- time

    def begin(self, seconds):
        """A part may take so long, and not longer than there is for all."""
        now = time.monotonic()
        self.until = min(now + seconds, self.began + 60 * self.args.minutes)

    def left(self):
        return self.until - time.monotonic()

    # ------------------------------------------------------------------------- programs

    def start(self, command, env=None, cwd=ROOT):
        """With all that it starts in a group of its own; what it says goes to files."""
        out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        p = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=cwd, env=env,
                             start_new_session=True, preexec_fn=end_with_parent)
        p.out, p.err = out, err
        self.started.append(p)
        return p

    def finish(self, p, limit):
        begun = time.monotonic()
        try:
            code = p.wait(max(limit, 0.1))
        except subprocess.TimeoutExpired:
            code = 124
        self.kill(p)
        p.out.seek(0), p.err.seek(0)
        err = p.err.read()
        if code == 124:
            err += f"\nnot done after {limit:.0f} s"
        return Ended(code, p.out.read(), err, time.monotonic() - begun)

    def kill(self, p):
        """Whatever is left of its group: tandem's ranks, say. What a driver holds is not waited for."""
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            p.wait(5)
        except subprocess.TimeoutExpired:
            self.notes.append(f"process {p.pid} ({os.path.basename(p.args[0])}) did not end when it was killed")
        if p in self.started:
            self.started.remove(p)

    def command(self, command, limit, **more):
        """Ends when its time, or the part's, is over."""
        if self.until:
            limit = min(limit, self.left())
        try:
            return self.finish(self.start(command, **more), limit)
        except OSError as e:
            return Ended(127, "", str(e), 0)

    def tandem(self, *words):
        return [self.program("tandem"), *words]

    def measured(self, command, limit):
        """Of a program of ours: what it says, or why it failed."""
        ended = self.command(command, limit, env=self.environment())
        for line in ended.err.splitlines():  # what was not done as it might have been
            if "note: " in line and line not in self.notes:
                self.notes.append(line.strip())
        if ended.code:
            raise RuntimeError(ended.words())
        return ended.out

    def end(self):
        for p in self.started[:]:
            self.kill(p)
        shutil.rmtree(self.work, ignore_errors=True)
