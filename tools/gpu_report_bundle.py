"""gpu_report_bundle.py - for gpu_report: what was built, with the libraries it needs, as an archive that
is unpacked and run on a machine with a GPU, where there may be neither compiler nor libraries.

    tar xf gpu.tar.xz && gpu/tools/gpu_report
"""
import glob, io, json, os, re, shutil, subprocess, tarfile, tempfile

from gpu_report_run import ROOT, Skip, say

# Of the C library and the driver the machine has its own, which fit together.
OWN = re.compile(r"/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|cuda|nvidia-ml))\.so")
PROGRAMS = ["tandem", "tandem-load", "tandem-bench-gpu", "libtandem-cuda.so", "test_gpu_run", "test_gpu_keeper", "test_gpu_engine", "test_gpu_placement"]
FOLDERS = ["models/demo", "profiles", "tools", "bench", "docs"]


def libraries(path):
    said = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    return {m for m in re.findall(r"=> (/\S+)", said) if not OWN.search(m)}


def stripped(path, work):
    to = os.path.join(work, os.path.basename(path))
    shutil.copy(path, to)
    subprocess.run(["strip", "--strip-debug", to], check=False, stderr=subprocess.DEVNULL)
    return to


def write(run, to):
    programs = [os.path.join(run.build, p) for p in PROGRAMS]
    programs += sorted(glob.glob(os.path.join(run.build, "real_gpu_*")))
    missing = [os.path.basename(p) for p in programs if not os.path.exists(p)]
    if missing:
        print(f"gpu_report: {run.build} lacks {', '.join(missing)}: build it with TANDEM_CUDA=ON")
        return 1
    needed = sorted(set().union(*map(libraries, programs)))
    about = json.dumps({"commit": run.command(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], 10).out.strip()})
    with tempfile.TemporaryDirectory() as work, tarfile.open(to, "w:xz", preset=9) as tar:
        for path in programs:
            say(os.path.basename(path))
            tar.add(stripped(path, work), "gpu/build/" + os.path.basename(path))
        for path in needed:
            tar.add(os.path.realpath(path), "gpu/lib/" + os.path.basename(path))
        for folder in FOLDERS:
            tar.add(os.path.join(ROOT, folder), "gpu/" + folder,
                    filter=lambda i: None if "__pycache__" in i.name else i)
        info = tarfile.TarInfo("gpu/BUNDLE.json")
        info.size = len(about)
        tar.addfile(info, io.BytesIO(about.encode()))
    print(f"{to}: {len(programs)} programs, {len(needed)} libraries, {os.path.getsize(to) / 2**20:.1f} MiB")
    return 0
