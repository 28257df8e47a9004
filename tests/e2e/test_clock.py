"""The wall clock is set while the gateway works, an hour ahead and back: only what people read follows it."""

import calendar
import email.utils
import struct
import threading
import time

import pytest

from gateway import KEY, chat_body
from processes import BIN, environment
from wire import wait_for

HOUR = 3600
SLACK = 60


class WallClock:
    """How far ahead the gateway believes to be, in seconds."""

    def __init__(self, path):
        self.path = path
        library = BIN / "libwall-clock.so"
        assert library.exists()
        self.environment = {"LD_PRELOAD": str(library), "QG_WALL_CLOCK": path}
        with open(path, "wb") as file:
            file.write(bytes(8))

    def set(self, ahead):
        with open(self.path, "r+b", 0) as file:
            file.write(struct.pack("q", ahead))

    def swing(self, stop):
        """An hour ahead, an hour back, in turns."""
        turn = 0
        while not stop.wait(0.15):
            turn += 1
            self.set(HOUR * (1, -1, 0)[turn % 3])


@pytest.fixture
def clock(folder):
    return WallClock(f"{folder}/ahead")


@pytest.fixture
def start_clocked(start_gateway, clock):
    def start(**settings):
        extra = {**clock.environment, "ASAN_OPTIONS": environment()["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
        return start_gateway(environment_extra=extra, **{"workers": 1, **settings})  # each looks at the clock by itself
    return start


def date_of(answer):
    return calendar.timegm(email.utils.parsedate(answer.header("Date")))


def logged_at(line):
    return calendar.timegm(time.strptime(line["time"][:19], "%Y-%m-%dT%H:%M:%S"))


def is_about(seen, ahead):
    return abs(seen - time.time() - ahead) < SLACK


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_what_people_read_follows_the_wall_clock(start_clocked, clock, ahead):
    gateway = start_clocked()
    before = gateway.chat()
    assert is_about(date_of(before), 0) and is_about(logged_at(gateway.line_of(before)), 0)
    clock.set(ahead)
    wait_for(lambda: is_about(date_of(gateway.get("/v1/models")), ahead))
    after = gateway.chat()
    assert is_about(after.json["created"], ahead)
    line = gateway.line_of(after)
    assert is_about(logged_at(line), ahead) and float(line["response_time"]) < SLACK
    lines = [found["req"] for found in gateway.requests_logged()]
    assert lines.index(before.header("X-Request-Id")) < lines.index(after.header("X-Request-Id"))


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_rate_window_is_neither_emptied_nor_prolonged(start_clocked, clock, ahead):
    gateway = start_clocked(rate_limit={"enabled": True, "max_requests": 3, "window_seconds": 3, "retry_after": "exact"})
    assert [gateway.chat().status for _ in range(3)] == [200] * 3
    clock.set(ahead)
    wait_for(lambda: is_about(date_of(gateway.get("/v1/models/none")), ahead))
    refused = gateway.chat()
    assert refused.status == 429 and 0 <= int(refused.header("Retry-After")) <= 3
    wait_for(lambda: gateway.chat().status == 200, 5)


def test_no_deadline_is_moved(start_clocked, fake, clock):
    """Requests that wait for the model, streams, slow heads and idle connections, all while the clock swings."""
    gateway = start_clocked(first_token_timeout="2s", head_timeout="2s", idle_timeout="60s", write_timeout="60s",
                            stream_idle_timeout="60s", heartbeat_interval="300ms", commit_after="100ms")
    fake.script(first_token_ms=600, tokens=20, token_ms=30)
    stop = threading.Event()
    swinging = threading.Thread(target=clock.swing, args=(stop,))
    kept, dates = gateway.wire(), set()
    swinging.start()
    try:
        began = time.monotonic()
        stream = gateway.open_chat(stream=True)
        fake.wait_chats(1)

        def ask_until_all_were_seen():
            answer = kept.request("POST", "/v1/chat/completions", {"X-Api-Key": KEY}, chat_body("say:kept")).answer()
            assert answer.content == "kept"
            dates.add(round((date_of(answer) - time.time()) / HOUR))
            return dates == {-1, 0, 1}
        wait_for(ask_until_all_were_seen)
        answer = stream.answer()
        assert answer.is_done and len(answer.pings) <= 4
        fake.script(silent=True)
        late = gateway.chat()
        assert late.status == 504 and late.code == "first_token_timeout"
        slow = gateway.wire().send("GET /hea")
        assert slow.answer("GET").status == 408
        assert 3.5 < time.monotonic() - began < 20
    finally:
        stop.set()
        swinging.join()
    assert gateway.metric("breaker_opened_total") == 0
    assert gateway.chat().status == 200


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_the_breaker_opens_and_closes_in_its_own_time(start_clocked, start_fake, clock, ahead):
    ollama = start_fake()
    gateway = start_clocked(ollama=ollama)
    assert gateway.chat().status == 200
    ollama.kill()
    wait_for(lambda: gateway.chat().status == 503)
    clock.set(ahead)
    assert gateway.chat().code == "backend_unavailable"
    ollama.start()
    wait_for(lambda: gateway.chat().status == 200, 5)
