"""Processes and ports of the tests: every process ends with the test that started it, every port is taken once."""

import ctypes
import os
import pathlib
import random
import signal
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("QG_BIN", ROOT / "build" / "dev" / "bin"))
REPORTS = ("Sanitizer", "runtime error:")
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_thread_sanitized():
    return BIN.parent.name == "tsan"


def environment(extra=None):
    """The sanitizers' settings: every report ends the program with status 99."""
    env = dict(os.environ)
    env["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1:exitcode=99"
    env["TSAN_OPTIONS"] = "exitcode=99:halt_on_error=0:second_deadlock_stack=1"
    env["LSAN_OPTIONS"] = f"exitcode=99:print_suppressions=0:suppressions={ROOT / 'tests/e2e/leaks.txt'}"
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        env.pop(name, None)
    env.update(extra or {})
    return env


def spawn(arguments, **options):
    """A child that dies with us, even when we are killed."""
    arguments = [str(argument) for argument in arguments]
    before = options.pop("preexec_fn", None)
    options.setdefault("stdin", subprocess.DEVNULL)

    def prepare():
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a script's background job ignores it, and so would its children
        if before:
            before()

    return subprocess.Popen(arguments, preexec_fn=prepare, **options)


def run(arguments, timeout=30, **options):
    """Runs to the end; gives status, stdout and stderr as text."""
    options.setdefault("env", environment())
    return subprocess.run([str(argument) for argument in arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=timeout, preexec_fn=die_with_parent, **options)


def free_port():
    """
    A port nobody has and no other test run will be given: below the range the kernel hands out, and claimed for as
    long as this process lives by a socket of that name.
    """
    while True:
        port = random.randint(15000, 32000)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0qwen-gateway-test-port-{port}")
            for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    try:
                        probe.bind((address, port))
                    except OSError:
                        if family == socket.AF_INET or has_ipv6():
                            raise
        except OSError:
            claim.close()
            continue
        claim.detach()  # nobody closes it before we end
        return port


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def resident_bytes(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
