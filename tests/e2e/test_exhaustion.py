"""What runs out: file descriptors, memory, room for the log. The gateway refuses clearly, lives, and comes back."""

import contextlib
import os
import pathlib
import resource
import select
import subprocess
import time

import pytest

from gateway import KEY
from processes import BIN, environment, is_thread_sanitized
from wire import Cut, wait_for

LOOK_S = 2


def with_descriptors(count):
    return {"preexec": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count)), "workers": 2}


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_at_rest(gateway):
    """It does not spin: well below a tenth of one core."""
    before = cpu_seconds(gateway.process.pid)
    time.sleep(LOOK_S)  # doing nothing for that long is the fact
    assert cpu_seconds(gateway.process.pid) - before < LOOK_S / 10


# Descriptors --------------------------------------------------------------------------------------------------

def test_idle_connections_give_their_descriptors_away(start_gateway):
    gateway = start_gateway(max_connections=10000, **with_descriptors(100))
    held = [gateway.wire() for _ in range(150)]
    for _ in range(20):
        assert gateway.chat(source="127.0.0.9").status == 200
    assert len(held) == 150 and gateway.metric("connections_crowded_out_total") >= 150 - 100
    gateway.close_wires()
    wait_for(lambda: gateway.metric("connections_open") == 0)
    assert gateway.metric("breaker_opened_total") == 0


def is_readable(wire):
    return bool(select.select([wire.socket], [], [], 0)[0])


def fill(gateway, fake, count):
    """Requests that Ollama does not answer, sent until one is refused: (those that wait, the refusal; None: not let in)."""
    fake.script(times=0, silent=True)
    held = []
    for _ in range(count):
        wire = gateway.open_chat()
        wait_for(lambda: is_readable(wire) or fake.stats()["running"] > len(held))
        if is_readable(wire):
            with contextlib.suppress(Cut):
                return held, wire.answer()
            return held, None
        held.append(wire)
    raise AssertionError("nothing ran out")


def test_a_request_without_a_descriptor_for_ollama_is_told_so(start_gateway, fake):
    """A request takes two: whether the last one is a caller's depends on whether their number is even."""
    for count in (80, 81):
        gateway = start_gateway(max_connections=10000, **with_descriptors(count))
        held, refusal = fill(gateway, fake, count)
        if refusal:
            break
        fake.reset()
    assert len(held) >= 10
    assert refusal.status == 503 and refusal.code == "out_of_descriptors" and refusal.header("Retry-After")
    gateway.close_wires()
    fake.reset()
    wait_for(lambda: gateway.metric("in_flight") == 0)
    assert [gateway.chat().status for _ in range(10)] == [200] * 10
    assert gateway.metric("breaker_opened_total") == 0


def test_a_gateway_without_descriptors_rests_and_the_operator_still_gets_in(start_gateway, fake):
    gateway = start_gateway(max_connections=10000, **with_descriptors(80))
    held, _ = fill(gateway, fake, 80)
    waiting = []
    for _ in range(30):
        with contextlib.suppress(OSError):
            waiting.append(gateway.wire())
    assert_at_rest(gateway)
    assert gateway.metric("in_flight") >= len(held)
    assert gateway.operator("/readyz").status == 200
    gateway.close_wires()
    fake.reset()
    wait_for(lambda: gateway.metric("in_flight") == 0)
    assert gateway.chat().status == 200


def is_served(wire):
    try:
        return wire.request("GET", "/healthz").answer("GET").status == 200
    except (Cut, ConnectionError):
        return False  # it has made room for another


def test_accepting_pauses_without_spinning_and_goes_on(start_gateway, fake):
    """The limit is lowered to what is in use, so that not one descriptor is left, for anybody."""
    gateway = start_gateway(**with_descriptors(200))
    pid = gateway.process.pid
    fake.script(times=0, silent=True)
    held = [gateway.open_chat() for _ in range(5)]
    fake.wait_chats(5)
    numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, 200))
    waiting = [gateway.wire(patience=5) for _ in range(max(numbers) + 20 - len(numbers))]
    operator = gateway.operator_wire().request("GET", "/healthz")
    gateway.wait_log("all file descriptors are in use")
    assert_at_rest(gateway)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (200, 200))
    assert operator.answer("GET").status == 200
    assert any(is_served(wire) for wire in reversed(waiting))
    assert gateway.metric("in_flight") >= len(held)
    said = [line for line in gateway.log.splitlines() if "no new connections for a moment" in line]
    assert len(said) <= 2 * 2  # each worker once in ten seconds


# Memory -------------------------------------------------------------------------------------------------------

def is_address_sanitized():
    return b"__asan_init" in (BIN / "qwen-gateway").read_bytes()


def with_little_memory(mib, folder):
    """The sanitizer takes address space by the terabyte, but can itself refuse large pieces of memory."""
    if is_address_sanitized():
        # Its warnings go to a file; a report still ends the program with a status of its own.
        options = f"{environment()['ASAN_OPTIONS']}:max_allocation_size_mb=16:log_path={folder}/told"
        return {"environment_extra": {"ASAN_OPTIONS": options}}
    return {"preexec": lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20)),
            "environment_extra": {"MALLOC_ARENA_MAX": "1"}}


@pytest.mark.skipif(is_thread_sanitized(), reason="the sanitizer's own memory")
def test_without_memory_requests_are_refused_and_the_gateway_lives(start_gateway, folder):
    gateway = start_gateway(max_body_memory_bytes="64GiB", max_prompt_chars=0, **with_little_memory(200, folder))
    assert gateway.chat().status == 200
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {30 << 20}\r\n\r\n").encode()
    part = b'{"a":"' + b"x" * (24 << 20)
    large = [gateway.wire() for _ in range(12)]
    for wire in large:
        wire.send_as_far_as_possible(head + part)
    refused = wait_for(lambda: [line for line in gateway.requests_logged() if line["status"] == "503"], 10)
    assert {line["why"] for line in refused} == {"out_of_memory"}
    answer = next(wire.answer() for wire in large if is_readable(wire))
    assert answer.status == 503 and answer.code == "out_of_memory" and "memory" in answer.error["message"]
    assert gateway.chat().status == 200  # beside them
    gateway.close_wires()
    wait_for(lambda: gateway.metric("in_flight") == 0)
    assert [gateway.chat().status for _ in range(20)] == [200] * 20


# The log's disk -----------------------------------------------------------------------------------------------

def small_disk(folder):
    """Starts what follows with a tiny file system of its own at that folder; None where that is not allowed."""
    for unshare in ("unshare -m", "unshare -rm"):
        wrap = f"exec {unshare} /bin/bash -c 'mount -t tmpfs -o size=2m none {folder} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
        tried = subprocess.run(["/bin/bash", "-c", wrap, "true"], capture_output=True)
        if tried.returncode == 0:
            return wrap
    return None


def test_a_full_disk_loses_lines_but_no_request_and_is_told_once(start_gateway, folder):
    wrap = small_disk(folder)
    if not wrap:
        pytest.skip("no file systems may be mounted here")
    gateway = start_gateway(log_file=f"{folder}/access.log", shell_wrap=wrap, workers=1)
    inside = pathlib.Path(f"/proc/{gateway.process.pid}/root{folder}")
    gateway.config["log_file"] = str(inside / "access.log")
    assert gateway.chat().status == 200
    gateway.wait_line(status=200)
    with contextlib.suppress(OSError), open(inside / "filler", "wb", 0) as filler:
        while filler.write(b"x" * 4096):
            pass
    wire = gateway.wire()

    def ask():
        return wire.request("GET", "/v1/models", {"X-Api-Key": KEY}).answer("GET").status

    def lose_some():
        assert [ask() for _ in range(100)] == [200] * 100
        return gateway.metric("log_dropped_total") > 0
    wait_for(lose_some, 30, "lost lines")
    os.unlink(inside / "filler")
    gateway.wait_log("the request log is written again", 10)
    assert gateway.chat().status == 200
    told = [line for line in (gateway.log + gateway.errors).splitlines() if "request log cannot be written" in line]
    assert len(told) == 1, told
    gateway.wait_line(path="/v1/chat/completions", model="qwen3:32b")
