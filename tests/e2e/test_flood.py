"""Floods of connections that keep the gateway waiting: whoever asks gets in, and those that are being served stay."""

import contextlib
import json
import statistics
import time

import pytest

from attack import Attackers
from gateway import KEY, chat_body
from processes import resident_bytes
from wire import Cut, wait_for

SLOW_KEY = "the-key-of-the-attackers"
KEYS = {"auth": {"valid_keys": [KEY, {"key": SLOW_KEY, "name": "slow", "max_requests": 40}]},
        "rate_limit": {"enabled": True, "max_requests": 100000, "window_seconds": 60}}
HONEST = "127.0.0.9"
PATIENCE = 1.1  # as long as the gateway gives those that it waits for, and a bit


def stand_for_a_while():
    time.sleep(PATIENCE)  # standing there for that long is the fact


@pytest.mark.parametrize("kind", ["silent", "head", "body", "unread"])
def test_honest_callers_are_served_beside_more_attackers_than_places(start_gateway, fake, kind):
    gateway = start_gateway(max_connections=300, **KEYS)
    spent, kept, asked_at = [], None, 0
    with Attackers(gateway.port, kind, 400, 20, 100, SLOW_KEY):
        stand_for_a_while()
        for _ in range(40):
            began = time.monotonic()
            if began - asked_at > PATIENCE / 3:  # at first, and where this machine is too slow for us to be patient with
                kept = gateway.wire(HONEST)
            answer = kept.request("POST", "/v1/chat/completions", {"X-Api-Key": KEY}, chat_body("say:kept")).answer()
            assert answer.content == "kept"
            asked_at = time.monotonic()
            assert gateway.chat("say:fresh", source=HONEST).content == "fresh"
            spent.append(time.monotonic() - began)
        assert gateway.metric("connections_open") <= 300 + 2
        assert gateway.metric("connections_crowded_out_total") > 0
    assert statistics.median(spent) < 0.5


def test_the_first_request_of_a_flood_is_not_lost(start_gateway):
    """No time to stand: all places are taken by connections that are as new as the caller's."""
    gateway = start_gateway(max_connections=50)
    for _ in range(3):
        held = [gateway.wire(f"127.0.1.{n % 20 + 1}") for n in range(60)]
        assert gateway.chat(source=HONEST).status == 200
        assert len(held) == 60


def test_silent_strangers_go_before_callers_who_were_let_in(start_gateway):
    gateway = start_gateway(max_connections=2, workers=1)
    kept = gateway.wire().request("GET", "/v1/models", {"X-Api-Key": KEY})
    assert kept.answer("GET").status == 200
    stranger = gateway.wire()
    stand_for_a_while()
    assert gateway.chat().status == 200
    assert stranger.is_closed()
    assert kept.request("GET", "/v1/models", {"X-Api-Key": KEY}).answer("GET").status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /v1/models HTT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
                                  b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Api-Key: wrong\r\n\r\n"])
def test_nobody_keeps_a_place_without_a_key(start_gateway, sent):
    gateway = start_gateway(max_connections=1, workers=1)
    stranger = gateway.wire().send(sent)
    wait_for(lambda: gateway.metric("connections_open") == 1)
    stand_for_a_while()
    assert gateway.chat(source=HONEST).status == 200
    stranger.until_closed()


def test_who_is_being_served_stays(start_gateway, fake):
    gateway = start_gateway(max_connections=20)
    fake.script(times=3, first_token_ms=2000, tokens=2)
    waiting = [gateway.open_chat("say:long") for _ in range(3)]
    fake.wait_chats(3)
    with Attackers(gateway.port, "silent", 40, 10, 50):
        for _ in range(20):
            assert gateway.chat("say:quick", source=HONEST).content == "quick"
    assert [wire.answer().status for wire in waiting] == [200] * 3


def test_a_worker_without_anybody_to_spare_asks_the_others(start_gateway, fake):
    """Each of eight workers meets some of forty callers, though three connections take all places."""
    gateway = start_gateway(max_connections=3, workers=8)
    idle = [gateway.wire() for _ in range(3)]
    for _ in range(40):
        assert gateway.chat(source=HONEST).status == 200
        wait_for(lambda: gateway.metric("connections_open") <= 3)
    assert len(idle) == 3 and gateway.metric("connections_crowded_out_total") > 0


def test_a_slow_body_gives_way_and_is_told_in_the_log(start_gateway):
    gateway = start_gateway(max_connections=1, workers=1)
    slow = gateway.wire().send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\n"
                               "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    wait_for(lambda: gateway.metric("in_flight") == 1)
    stand_for_a_while()
    assert gateway.chat(source=HONEST).status == 200
    slow.until_closed()
    assert gateway.wait_line(why="crowded_out")["status"] == "499"


def test_newcomers_by_the_hundred_do_not_end_an_upload(start_gateway):
    """Nobody of such a flood has stood there for long; the one with a key, whose body takes its time, has."""
    gateway = start_gateway(max_connections=40, workers=1)
    body = json.dumps(chat_body()).encode()
    upload = gateway.wire(source=HONEST).send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\n"
                                              f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n", body[:9])
    wait_for(lambda: gateway.metric("in_flight") == 1)
    stand_for_a_while()
    flood = [gateway.wire() for _ in range(200)]
    wait_for(lambda: gateway.metric("connections_crowded_out_total") >= len(flood) - 40)
    assert upload.send(body[9:]).answer().status == 200


@pytest.mark.parametrize("kind", ["silent", "body"])
def test_one_address_takes_its_share_only(start_gateway, kind):
    gateway = start_gateway(max_connections=300, max_connections_per_address=50)
    with Attackers(gateway.port, kind, 200, 1, 100):
        for _ in range(20):
            assert gateway.chat(source=HONEST).status == 200
        assert gateway.metric("connections_open") <= 52
    assert gateway.metric("connections_refused_total", reason="address_cap") > 0
    assert gateway.metric("connections_crowded_out_total") == 0


def test_one_real_client_takes_its_share_only_behind_a_proxy(start_gateway, fake):
    gateway = start_gateway(max_connections_per_address=5, trusted_proxies=["127.0.0.1"])
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\nContent-Type: application/json\r\n"
    slow = [gateway.wire().send(head + "X-Forwarded-For: 10.9.9.9\r\nContent-Length: 100\r\n\r\n{") for _ in range(5)]
    wait_for(lambda: gateway.metric("in_flight") == 5)
    assert gateway.chat(headers={"X-Forwarded-For": "10.9.9.9"}).code == "too_many_connections"
    assert gateway.chat(headers={"X-Forwarded-For": "10.1.1.1, 10.9.9.9"}).code == "too_many_connections"
    assert gateway.chat(headers={"X-Forwarded-For": "10.9.9.8"}).status == 200
    for wire in slow:
        wire.close()
    wait_for(lambda: gateway.metric("in_flight") == 0)
    assert gateway.chat(headers={"X-Forwarded-For": "10.9.9.9"}).status == 200


def test_large_unfinished_heads_take_no_more_than_their_memory(start_gateway):
    gateway = start_gateway(max_buffer_memory_bytes="256KiB", max_head_bytes="64KiB", workers=1)
    with Attackers(gateway.port, "fat", 60, 10, 20):
        wait_for(lambda: gateway.metric("connections_crowded_out_total") > 20)
        assert gateway.chat(headers={"X-Long": "a" * 30000}).status == 200
        assert gateway.metric("connections_open") < 20


def test_unread_answers_take_no_more_than_their_memory(start_gateway, start_fake):
    endless = start_fake("--num-ctx", "100000000")
    gateway = start_gateway(endless, write_timeout="30s", write_buffer_bytes="64MiB", max_buffer_memory_bytes="1MiB")
    gateway.chat()
    before = resident_bytes(gateway.process.pid)
    endless.script(times=6, tokens=4_000_000, token_ms=0)
    wires = [gateway.open_chat(stream=True, receive_buffer=4096) for _ in range(6)]
    for wire in wires:
        wire.wait_until_bytes()

    def has_stopped():
        seen = endless.stats()["tokens_sent"]
        time.sleep(0.2)  # the fact is that nothing moves for that long
        return endless.stats()["tokens_sent"] == seen
    wait_for(has_stopped, 30, "the backend held back")
    assert resident_bytes(gateway.process.pid) - before < 150 << 20
    with contextlib.suppress(Cut):
        assert gateway.chat().status == 200
