"""Slow readers: held back, never robbed of a byte, never filling the gateway's memory; stalled ones are cut."""

import time

import pytest

from fake import last_line, line
from processes import resident_bytes
from wire import wait_for

PIECE = "0123456789abcdef" * 64


def much(count):
    return [line(f"{n:06d}{PIECE}") for n in range(count)] + [last_line()]


def test_a_slow_reader_gets_every_byte(gateway, fake):
    fake.script_lines(*much(3000))
    wire = gateway.open_chat(stream=True, receive_buffer=4096)
    head = wire.head()
    while piece := wire.chunk():
        head.body += piece
        if len(head.body) < 200_000:
            time.sleep(0.001)  # the reader is slow; nothing is waited for
    assert head.content == "".join(f"{n:06d}{PIECE}" for n in range(3000))
    assert head.is_done


@pytest.fixture
def endless(start_fake):
    """A stand-in whose context never fills."""
    return start_fake("--num-ctx", "100000000")


def test_ollama_is_held_back_and_memory_stays_bounded(start_gateway, endless):
    gateway = start_gateway(endless, write_timeout="30s")
    gateway.chat()
    before = resident_bytes(gateway.process.pid)
    endless.script(tokens=4_000_000, token_ms=0)
    wire = gateway.open_chat(stream=True, receive_buffer=4096)
    wire.wait_until_bytes()

    def tokens():
        return endless.stats()["tokens_sent"]

    def has_stopped():
        seen = tokens()
        time.sleep(0.2)  # the fact is that nothing moves for that long
        return tokens() == seen
    wait_for(has_stopped, 30, "the backend held back")
    assert tokens() < 1_000_000
    assert resident_bytes(gateway.process.pid) - before < 64 << 20
    wire.close()
    endless.wait_chats(1, "aborted")


def test_many_stalled_readers_stay_bounded(start_gateway, endless):
    gateway = start_gateway(endless, write_timeout="30s")
    gateway.chat()
    before = resident_bytes(gateway.process.pid)
    endless.script(times=30, tokens=4_000_000, token_ms=0)
    wires = [gateway.open_chat(stream=True, receive_buffer=4096) for _ in range(30)]
    for wire in wires:
        wire.wait_until_bytes()

    def has_stopped():
        seen = endless.stats()["tokens_sent"]
        time.sleep(0.2)  # the fact is that nothing moves for that long
        return endless.stats()["tokens_sent"] == seen
    wait_for(has_stopped, 30, "the backend held back")
    assert resident_bytes(gateway.process.pid) - before < 256 << 20
    for wire in wires:
        wire.close()
    endless.wait_chats(30, "aborted")


@pytest.mark.timing
def test_a_stalled_reader_is_cut_after_write_timeout(start_gateway, endless):
    gateway = start_gateway(endless, write_timeout="700ms")
    endless.script(tokens=4_000_000, token_ms=0)
    began = time.monotonic()
    wire = gateway.open_chat(stream=True, receive_buffer=4096)
    endless.wait_chats(1, "aborted", 15)
    assert time.monotonic() - began > 0.6
    assert not wire.until_closed().endswith(b"0\r\n\r\n")
    assert gateway.metric("backend_up") == 1


@pytest.mark.timing
def test_a_slow_and_steady_reader_of_more_than_the_kernel_holds_is_not_cut(start_gateway, endless):
    """The kernel asks for more only when a third of its buffer is free, which takes this reader longer than allowed."""
    gateway = start_gateway(endless, write_timeout="700ms")
    endless.script(tokens=4_000_000, token_ms=0)
    wire = gateway.open_chat(stream=True, receive_buffer=65536)
    began = time.monotonic()
    while time.monotonic() - began < 3:
        assert wire.socket.recv(16384)
        time.sleep(0.05)  # the reader is slow; nothing is waited for
    wire.close()
    assert gateway.wait_line(why="caller_left")


def test_a_reader_slower_than_the_timeout_but_moving_is_not_cut(start_gateway, fake):
    gateway = start_gateway(write_timeout="1s")
    fake.script_lines(*much(1500))
    wire = gateway.open_chat(stream=True, receive_buffer=4096)
    got = b""
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        piece = wire.socket.recv(4096)
        assert piece
        got += piece
        time.sleep(0.02)  # the reader is slow; nothing is waited for
    got += rest(wire)
    assert got.count(PIECE.encode()) == 1500
    assert b"data: [DONE]" in got


def rest(wire):
    taken = b""
    while not taken.endswith(b"0\r\n\r\n"):
        got = wire.more()
        assert got, "cut"
        taken += got
    return taken


def test_a_whole_answer_of_30_mb_reaches_a_slow_reader(gateway, fake):
    fake.script(long_line=30 << 20)
    wire = gateway.open_chat(receive_buffer=65536)
    answer = wire.answer()
    assert answer.status == 200 and len(answer.content) == 30 << 20


def test_pipelined_requests_of_one_who_never_reads_are_bounded(start_gateway):
    gateway = start_gateway(write_timeout="30s")
    gateway.chat()
    before = resident_bytes(gateway.process.pid)
    wire = gateway.wire(receive_buffer=4096)
    wire.socket.settimeout(1)
    request = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer prod-key-2024-qwen3\r\n\r\n" * 100
    with pytest.raises(TimeoutError):
        for _ in range(20000):
            wire.send(request)
    assert resident_bytes(gateway.process.pid) - before < 64 << 20
