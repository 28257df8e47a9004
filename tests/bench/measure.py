"""One round of a load: through all contenders that take it, each started for it."""

import contextlib
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

from contenders import KEY, stop
from processes import free_port
from slices import in_turn, put_streams_together, put_together

COUNT_MS, COUNT_RATE_MS = 500, 1000
FIRST_MS = 200
COUNT_TOKENS = 60
MANY_STREAMS = 300


def told(bench, job, contender, port, pid):
    """What every kind of load is told: whom to ask what, and what to expect."""
    is_refused = job.load == "e"
    return ["--port", port, "--path", contender.path, "--pid", pid, "--backend-pid", bench.backend_pid,
            "--body", bench.bodies[job.load],
            "--key", "wrong-key" if is_refused else KEY, "--expects", 401 if is_refused else 200]


def told_requests(job):
    rate = ["--rate", job.rate] if job.rate else []
    return ["requests", "--connections", job.connections, "--warm-ms", job.warm_ms, "--run-ms", job.slice_ms, *rate]


def told_streams(job, tokens):
    return ["streams", "--connections", job.connections, "--tokens", tokens, "--spread-ms", job.spread_ms]


def measure_start(bench, job, contender, backend_port):
    """The median of some starts: each from before the program is there until its first answer to a caller."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=bench.folder))
    port = free_port()
    command, _, _ = contender.command(bench, job, folder, port, backend_port)
    core = ["--core", bench.contender_core] if bench.contender_core is not None else []
    said = [bench.callers(["start", *core, *told(bench, job, contender, port, 0), "--", *command])
            for _ in range(bench.options.starts)]
    return {"start_ms": statistics.median(each["start_us"] for each in said) / 1000,
            "start_most_ms": max(each["start_us"] for each in said) / 1000,
            "resident_mib": statistics.median(each["resident"] for each in said) / 2**20,
            "own_mib": statistics.median(each["own"] for each in said) / 2**20}


# --- system calls: counted in a run of their own, since counting costs time ------------------------------------

def perf_can_count():
    if not shutil.which("perf"):
        return False
    tried = subprocess.run(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True, text=True,
                           check=False)
    return re.search(r"^\d+,.*raw_syscalls", tried.stderr, re.M) is not None


def counted_by_perf(bench, pid, arguments):
    output = bench.folder / "syscalls"
    said = bench.callers(arguments, ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", output, "-p", pid, "--"])
    found = re.search(r"^(\d+),.*raw_syscalls", output.read_text(), re.M)
    return said, int(found[1]) if found else None


def is_traced(pid):
    found = re.search(r"^TracerPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)
    return found is not None and found[1] != "0"


def counted_by_strace(bench, pid, arguments):
    output = bench.folder / "syscalls"
    tracer = bench.start(["strace", "-c", "-f", "-q", "-o", output, "-p", pid], bench.own_core, bench.folder)
    try:
        while tracer.poll() is None and not is_traced(pid):
            time.sleep(0.005)
        said = bench.callers(arguments)
    finally:
        stop(tracer, signal.SIGINT)
    found = re.search(r"^\s*100\.00\s+\S+\s+\S+\s+(\d+)(?:\s+\d+)? total$", output.read_text(), re.M)
    return said, int(found[1]) if found else None


def counter_of_system_calls():
    """Perf where the kernel lets it, else strace, else nothing."""
    if perf_can_count():
        return counted_by_perf
    return counted_by_strace if shutil.which("strace") else None


def can_count(bench, job):
    return bench.count and job.connections <= MANY_STREAMS


def count_system_calls(bench, job, contender, port, pid):
    """System calls a request or a token, opening and closing the connections included; None: there was nothing to count."""
    if not pid:
        return None
    arguments = (told_streams(job, COUNT_TOKENS) if job.kind == "streams" else
                 told_requests(job._replace(warm_ms=0, slice_ms=COUNT_RATE_MS if job.rate else COUNT_MS)))
    said, calls = bench.count(bench, pid, [*arguments, *told(bench, job, contender, port, 0)])
    answers = said["tokens"] if job.kind == "streams" else said["all_answers"]
    return calls / answers if calls and answers else None


# --- in turns: slices.py says what becomes of them -------------------------------------------------------------

def ran_us(pid):
    """How long all threads of a process ran so far."""
    said = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has just ended
            said += int(path.read_text().split()[0]) / 1000
    return said


class Running:
    """A contender that runs while others are asked. Knows what it did meanwhile: that has disturbed them."""

    def __init__(self, contender, port, pid):
        self.contender, self.port, self.pid = contender, port, pid
        self.slices = []
        self.idle_us = self.idle_ran_us = 0
        self.rested_s, self.rested_us = time.monotonic(), ran_us(pid)

    def ask(self, bench, job):
        self.idle_us += (time.monotonic() - self.rested_s) * 1e6
        self.idle_ran_us += ran_us(self.pid) - self.rested_us
        said = bench.callers([*told_requests(job), *told(bench, job, self.contender, self.port, self.pid)])
        self.rested_s, self.rested_us = time.monotonic(), ran_us(self.pid)
        return said

    def put_together(self):
        said = put_together(self.slices)
        if self.pid and self.idle_us:
            said["idle_percent"] = 100 * self.idle_ran_us / self.idle_us
        return said


def measure_requests(bench, job, contenders, backend_port):
    """All run at the same time. Each is asked once before it counts: then all it needs is there."""
    with contextlib.ExitStack() as stack:
        running = [Running(each, *stack.enter_context(each.running(bench, job, backend_port))) for each in contenders]
        for each in running:
            each.ask(bench, job._replace(warm_ms=0, slice_ms=FIRST_MS))
        for turn in range(job.slices):
            for each in in_turn(running, turn):
                each.slices.append(each.ask(bench, job))
        calls = [count_system_calls(bench, job, each.contender, each.port, each.pid) for each in running if can_count(bench, job)]
    return [each.put_together() for each in running], calls


def measure_streams(bench, job, contenders, backend_port):
    """Each is started anew for each of its slices, so that one finds it as small as the other, and nobody else is there."""
    slices = {each.name: [] for each in contenders}
    for turn in range(job.slices):
        for each in in_turn(contenders, turn):
            with each.running(bench, job, backend_port) as (port, pid):
                asked = [*told_streams(job, job.tokens), *told(bench, job, each, port, pid)]
                slices[each.name].append(bench.callers(asked))
    calls = []
    for each in contenders if can_count(bench, job) else []:
        with each.running(bench, job, backend_port) as (port, pid):
            calls.append(count_system_calls(bench, job, each, port, pid))
    return [put_streams_together(slices[each.name]) for each in contenders], calls


def measure(bench, job, contenders, backend_port):
    """Gives a measurement for each contender, in their order. `calls` are none where they cannot be counted."""
    if job.kind == "start":
        return [measure_start(bench, job, each, backend_port) for each in contenders]
    in_slices = measure_streams if job.kind == "streams" else measure_requests
    said, calls = in_slices(bench, job, contenders, backend_port)
    for each, count in zip(said, calls):
        if count is not None:
            each["system_calls"] = count
    return said
