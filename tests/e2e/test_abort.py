"""A caller that goes away: the connection to Ollama is fully closed within 100 ms, so that the GPU stops."""

import signal
import time

import pytest

from gateway import KEY, chat_body
from wire import wait_for

WITHIN_MS = 100

pytestmark = pytest.mark.timing


def monotonic_ms():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6


def closed_after(fake, left_at, count=1):
    """How long after `left_at` the stand-in saw its connections closed (the slowest one)."""
    chats = fake.wait_chats(count, "aborted")
    return max(chat["ended_ms"] for chat in chats) - left_at


def leave(wire, how):
    at = monotonic_ms()
    {"close": wire.close, "reset": wire.reset, "half close": wire.half_close}[how]()
    return at


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
@pytest.mark.parametrize("stream", [True, None], ids=["streamed", "whole"])
def test_before_the_first_token(gateway, fake, how, stream):
    fake.script(silent=True)
    wire = gateway.open_chat(stream=stream)
    fake.wait_chats(1, "running")
    assert closed_after(fake, leave(wire, how)) < WITHIN_MS


@pytest.mark.parametrize("how", ["close", "reset"])
def test_at_once_after_asking(gateway, fake, how):
    """The request and its end arrive together: it never runs, or is stopped at once."""
    fake.script(times=20, tokens=1000, token_ms=20)
    for _ in range(20):
        leave(gateway.open_chat(stream=True), how)
    wait_for(lambda: gateway.metric("in_flight") == 0, 1)
    wait_for(lambda: not [chat for chat in fake.seen() if chat["outcome"] == "running"], 1)


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
def test_an_end_that_the_kernel_tells_of_together_with_the_request(gateway, fake, how):
    """Nothing more will ever be told of that connection."""
    fake.script(silent=True)
    wire = gateway.wire()
    wire.request("GET", "/healthz").answer()  # it is known, so that request and end are one piece of news
    gateway.signal(signal.SIGSTOP)
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": f"both-{how[:4]}"}
    wire.request("POST", "/v1/chat/completions", headers, chat_body(stream=True))
    leave(wire, how)
    gateway.signal(signal.SIGCONT)
    assert gateway.wait_line(req=f"both-{how[:4]}", timeout=2)["status"] == "499"
    wait_for(lambda: not [chat for chat in fake.seen() if chat["outcome"] == "running"], 1)


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
def test_in_the_midst_of_a_stream(gateway, fake, how):
    fake.script(tokens=1000, token_ms=20)
    wire = gateway.open_chat(stream=True)
    wire.head()
    wire.chunk()
    assert closed_after(fake, leave(wire, how)) < WITHIN_MS


@pytest.mark.parametrize("how", ["close", "half close"])
def test_in_the_midst_of_an_answer_that_is_not_streamed(gateway, fake, how):
    fake.script(stall_after_bytes=300)
    wire = gateway.open_chat()
    fake.wait_chats(1, "running")
    assert closed_after(fake, leave(wire, how)) < WITHIN_MS


def test_while_heartbeats_go_out(start_gateway, fake):
    gateway = start_gateway(commit_after="50ms", heartbeat_interval="50ms")
    fake.script(silent=True)
    wire = gateway.open_chat(stream=True)
    wire.head()
    assert wire.chunk() == b": ping\n\n"
    assert closed_after(fake, leave(wire, "close")) < WITHIN_MS


def test_while_waiting_in_ollamas_own_queue(start_gateway, start_fake):
    ollama = start_fake("--num-parallel", "1")
    gateway = start_gateway(ollama)
    ollama.script(silent=True)
    running = gateway.open_chat(stream=True)
    ollama.wait_running(1)
    queued = gateway.open_chat(stream=True)
    ollama.wait_chats(2)
    left = leave(queued, "close")
    assert closed_after(ollama, left) < WITHIN_MS
    assert len([chat for chat in ollama.seen() if chat["outcome"] == "running"]) == 1
    running.close()
    ollama.wait_chats(2, "aborted")


def test_while_reading_is_paused_because_more_was_pipelined(gateway, fake):
    """So much waits behind the running request that the gateway stops reading; the end is noticed all the same."""
    fake.script(silent=True)
    wire = gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    wire.socket.settimeout(0.3)
    big = chat_body("x" * 30000)
    try:
        for _ in range(1000):
            wire.request("POST", "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}, big)
    except TimeoutError:
        pass
    assert closed_after(fake, leave(wire, "reset")) < WITHIN_MS


@pytest.mark.parametrize("size", [1000, 20000, 50000])
@pytest.mark.parametrize("how", ["close", "half close"])
def test_behind_bytes_that_are_still_unread(gateway, fake, size, how):
    """The end arrives behind pipelined bytes that nobody has asked for yet."""
    fake.script(silent=True)
    wire = gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    one = f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    wire.send(one * (size // len(one)))
    assert closed_after(fake, leave(wire, how)) < WITHIN_MS


def test_after_a_pipelined_request_and_a_half_close(gateway, fake):
    fake.script(silent=True)
    wire = gateway.open_chat(stream=True)
    fake.wait_chats(1, "running")
    wire.request("GET", "/healthz")
    assert closed_after(fake, leave(wire, "half close")) < WITHIN_MS


def test_fifty_leave_at_once(gateway, fake):
    fake.script(times=50, tokens=1000, token_ms=50)
    wires = [gateway.open_chat(stream=True) for _ in range(50)]
    for wire in wires:
        wire.head()
    at = monotonic_ms()
    for wire in wires:
        wire.close()
    assert closed_after(fake, at, 50) < WITHIN_MS + 100  # fifty closes by Python take their time too


def test_leaving_never_counts_against_ollama(gateway, fake):
    for _ in range(12):
        fake.script(silent=True)
        wire = gateway.open_chat()
        fake.wait_chats(1, "running")
        wire.close()
        fake.wait_chats(1, "aborted")
        fake.reset()
    assert gateway.metric("backend_up") == 1
    assert gateway.chat().status == 200


def test_a_body_that_is_never_finished_reaches_nobody(gateway, fake):
    wire = gateway.wire().send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
                               'Content-Length: 400\r\n\r\n{"model":')
    wire.half_close()
    wire.until_closed()
    assert fake.seen() == []


def test_what_was_said_before_leaving_is_in_the_log(gateway, fake):
    fake.script(tokens=1000, token_ms=5)
    wire = gateway.open_chat(stream=True, headers={"X-Request-Id": "left-midway"})
    wire.head()
    for _ in range(5):
        wire.chunk()
    wire.close()
    it = gateway.wait_line(req="left-midway")
    assert it["model"] == "qwen3:32b" and it["stream"] == "1"
