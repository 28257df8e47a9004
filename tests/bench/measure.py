"""One measurement: a load, through a contender that is started for it."""

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
from slices import in_turn, put_together

COUNT_MS = 500
SLICE_MS, SLICE_WARM_MS = 400, 100
COUNT_TOKENS = 60
MANY_STREAMS = 300


def told(bench, job, contender, port, pid):
    """What every kind of load is told: whom to ask what, and what to expect."""
    is_refused = job.load == "e"
    return ["--port", port, "--path", contender.path, "--pid", pid, "--backend-pid", bench.backend_pid,
            "--body", bench.bodies[job.load],
            "--key", "wrong-key" if is_refused else KEY, "--expects", 401 if is_refused else 200]


def told_requests(bench, job, run_ms):
    rate = ["--rate", job.rate] if job.rate else []
    return ["requests", "--connections", job.connections, "--warm-ms", bench.options.warm_ms, "--run-ms", run_ms, *rate]


def told_streams(job, tokens):
    return ["streams", "--connections", job.connections, "--tokens", tokens, "--spread-ms", job.spread_ms]


def measure_slice(bench, job, contender, port, pid):
    turn = ["requests", "--connections", job.connections, "--rate", job.rate, "--warm-ms", SLICE_WARM_MS,
            "--run-ms", SLICE_MS, "--slice"]
    return bench.callers([*turn, *told(bench, job, contender, port, pid)])


def measure_requests(bench, job, contender, port, pid):
    run_ms = bench.options.rate_ms if job.rate else bench.options.run_ms
    return bench.callers([*told_requests(bench, job, run_ms), *told(bench, job, contender, port, pid)])


def measure_streams(bench, job, contender, port, pid):
    said = bench.callers([*told_streams(job, job.tokens), *told(bench, job, contender, port, pid)])
    for name in ("first_p50", "first_p99", "gap_p50", "gap_p99", "gap_p999"):
        said[f"{name}_ms"] = said.pop(f"{name}_us") / 1000
    grown = said.pop("resident_a_stream")
    if "cpu_us" in said:  # else there was no moment when all of them ran
        said["kib_a_stream"] = grown / 1024
    return said


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


def count_system_calls(bench, job, contender, port, pid):
    """System calls a request or a token, opening and closing the connections included; None: cannot be counted."""
    if not bench.count or not pid or job.connections > MANY_STREAMS:
        return None
    arguments = (told_streams(job, COUNT_TOKENS) if job.kind == "streams" else told_requests(bench, job, COUNT_MS))
    said, calls = bench.count(bench, pid, [*arguments, *told(bench, job, contender, port, 0)])
    answers = said["tokens"] if job.kind == "streams" else said["all_answers"]
    return calls / answers if calls and answers else None


def measure(bench, job, contender, backend_port):
    if job.kind == "start":
        return measure_start(bench, job, contender, backend_port)
    with contender.running(bench, job, backend_port) as (port, pid):
        said = (measure_streams if job.kind == "streams" else measure_requests)(bench, job, contender, port, pid)
        calls = count_system_calls(bench, job, contender, port, pid)
    if calls is not None:
        said["system_calls"] = calls
    return said


def measure_in_slices(bench, job, contenders, backend_port):
    """All contenders run at once and are asked by turns. Gives a measurement for each, in their order."""
    slices = {contender.name: [] for contender in contenders}
    with contextlib.ExitStack() as stack:
        running = [(contender, *stack.enter_context(contender.running(bench, job, backend_port))) for contender in contenders]
        for turn in range(job.slices):
            for contender, port, pid in in_turn(running, turn):
                slices[contender.name].append(measure_slice(bench, job, contender, port, pid))
        said = [put_together(slices[contender.name]) for contender in contenders]
        for (contender, port, pid), each in zip(running, said):
            calls = count_system_calls(bench, job, contender, port, pid)
            if calls is not None:
                each["system_calls"] = calls
    return said
