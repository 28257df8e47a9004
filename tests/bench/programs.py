"""The programs of the bench, built as they are installed, and what versions of everything there are."""

import contextlib
import os
import pathlib
import platform
import subprocess
import time

from contenders import ROOT, SBIN

PROGRAMS = ("qwen-gateway", "fake-ollama", "bench_load")


def build():
    """Builds the preset `release`. Gives the folder of its programs."""
    for command in (["cmake", "--preset", "release"],
                    ["cmake", "--build", "--preset", "release", "--target", *PROGRAMS]):
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-4000:] + done.stderr[-4000:])
    return ROOT / "build" / "release" / "bin"


def first_line(*command):
    """What a program says of its version, or None when it is not there."""
    environment = dict(os.environ, PATH=SBIN)
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0] if lines and done.returncode == 0 else None
    return None


def commit():
    name = first_line("git", "rev-parse", "--short=12", "HEAD")
    return f"{name}, changed since" if name and first_line("git", "status", "--porcelain", "--untracked-files=no") else name


def processor():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def machine(gateways):
    """What the figures were taken on and with."""
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)),
            "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20, "kernel": platform.release(),
            "load_average": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "commit": commit(), "nginx": first_line("nginx", "-v"), "haproxy": first_line("haproxy", "-v"),
            "gateways": {each.name: first_line(each.program, "--version") for each in gateways}}
