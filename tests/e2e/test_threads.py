"""
Four workers under every kind of load at once, while the configuration changes without a pause, the log is rotated and
the metrics are read: nothing fails, the books agree, and the thread sanitizer has nothing to say (tests/run threads).
"""

import collections
import contextlib
import random
import signal
import threading

import pytest

from gateway import ACCESS_LINE, KEY, chat_body
from wire import wait_for

pytestmark = pytest.mark.threads

SECONDS = 5
FEW_KEY, OTHER_KEY, FRONT_KEY = "a-key-with-few-requests", "a-key-that-comes-and-goes", "a-front-end-speaks-with-this"
PATH = "/v1/chat/completions"
BEARER = {"Authorization": f"Bearer {KEY}"}
FEW = {"key": FEW_KEY, "name": "few", "max_requests": 5}
FRONT = {"key": FRONT_KEY, "name": "front", "delegate": True}


class Load:
    """Callers, each a thread. What goes wrong is kept; every request sent is counted."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.ends = threading.Event()
        self.sent = collections.Counter()
        self.wrong = []
        self.threads = []

    def add(self, work, number=0):
        def loop():
            chance = random.Random(number)
            try:
                while not self.ends.is_set():
                    self.sent[work.__name__, number] += work(self.gateway, chance) or 0
            except Exception as wrong:  # whatever it is, it is a finding
                self.wrong.append(f"{work.__name__}: {type(wrong).__name__}: {str(wrong)[:1000]}")
                self.ends.set()
        self.threads.append(threading.Thread(target=loop))

    def run(self, seconds):
        for thread in self.threads:
            thread.start()
        self.ends.wait(seconds)
        self.ends.set()
        for thread in self.threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self.threads), "a caller waits for ever"
        assert not self.wrong, "\n".join(self.wrong)
        for work, number in self.sent:
            assert self.sent[work, number] or work in ("reloads", "rotates", "scrapes"), f"{work} did nothing"


def whole(gateway, chance):
    answer = gateway.chat("say:whole")
    assert answer.content == "whole", answer
    return 1


def streams(gateway, chance):
    with contextlib.closing(gateway.wire()) as wire:
        for number in range(3):
            answer = wire.request("POST", PATH, BEARER, chat_body(f"say:{number} in a stream", stream=True)).answer()
            assert answer.is_done and answer.content == f"{number} in a stream", answer
    return 3


def leaves(gateway, chance):
    with contextlib.closing(gateway.open_chat("tokens:10000@5", stream=True).wait_until_bytes()) as wire:
        if chance.random() < 0.5:
            wire.reset()
    return 1


def is_refused(gateway, chance):
    assert gateway.chat(key="wrong").status == 401
    assert gateway.get("/nowhere").status == 404
    assert gateway.chat(temperature="hot").status == 400
    assert gateway.chat(model="nobody-knows:cloud").status == 404
    return 4


def is_limited(gateway, chance):
    answer = gateway.chat("say:few", key=FEW_KEY)
    assert answer.status in (200, 429), answer
    return 1


def comes_and_goes(gateway, chance):
    """Its key is in every other configuration."""
    assert gateway.chat("say:x", key=OTHER_KEY).status in (200, 401)
    return 1


def persons(gateway, chance):
    headers = {"X-User-Id": f"person-{chance.randrange(1000)}"}
    assert gateway.chat("say:you", headers=headers, key=FRONT_KEY).content == "you"
    assert gateway.get("/v1/models").status in (200, 503)  # the next reload may replace a backend before its list has come
    return 2


def scrapes(gateway, chance):
    assert gateway.metric("in_flight") >= 0
    assert gateway.operator("/readyz").status in (200, 503)  # a backend that is new has yet to be asked


def test_four_workers_under_load_while_the_configuration_changes_without_a_pause(start_gateway, fake, start_fake):
    """The backend changes with every reload too: what has begun ends where it began."""
    rates = {"enabled": True, "max_requests": 1000000, "window_seconds": 1}
    gateway = start_gateway(workers=4, rate_limit=rates, auth={"valid_keys": [KEY, FRONT, FEW]})
    configs = []
    for ollama, keys in ((fake, [KEY, FRONT, FEW]), (start_fake(), [KEY, OTHER_KEY, FRONT, FEW, *(f"extra-{n}" for n in range(50))])):
        gateway.write_config(ollama_api=ollama.url, auth={"valid_keys": keys})
        configs.append(gateway.config_path.read_text())
    moved = []

    def reloads(gateway, chance):
        fresh = gateway.config_path.with_suffix(".fresh")
        fresh.write_text(configs[reloads.count % 2])
        fresh.chmod(0o600)
        fresh.rename(gateway.config_path)
        gateway.signal(signal.SIGHUP)
        reloads.count += 1
        load.ends.wait(0.02)  # the pace is what is tried
    reloads.count = 0

    def rotates(gateway, chance):
        moved.append(gateway.log_path.with_suffix(f".{len(moved)}"))
        gateway.log_path.rename(moved[-1])
        gateway.signal(signal.SIGUSR1)
        wait_for(gateway.log_path.exists)

    load = Load(gateway)
    for work, count in ((whole, 2), (streams, 3), (leaves, 2), (is_refused, 1), (is_limited, 1), (comes_and_goes, 1), (persons, 2),
                        (scrapes, 1), (reloads, 1), (rotates, 1)):
        for number in range(count):
            load.add(work, number)
    load.run(SECONDS)
    check_books(gateway, sum(load.sent.values()), moved)
    assert gateway.metric("reloads_total", result="ok") > 10 and gateway.metric("reloads_total", result="refused") == 0
    assert len(moved) > 2


def check_books(gateway, sent, moved):
    """All that was sent is in the logs and the metrics, and nothing is taken any more."""
    def lines():
        return sum(1 for log in [*moved, gateway.log_path] for line in log.read_text().splitlines() if ACCESS_LINE.match(line))

    def books():
        return {"sent": sent, "lines": lines() + int(gateway.metric("log_dropped_total")),
                "counted": int(gateway.metric("requests_total")),
                "taken": [gateway.metric(name) for name in ("in_flight", "connections_open", "backend_running", "body_bytes")]}
    wanted = {"sent": sent, "lines": sent, "counted": sent, "taken": [0] * 4}
    with contextlib.suppress(AssertionError):
        wait_for(lambda: books() == wanted, 10)
    assert books() == wanted
    gateway.log_path.write_text("".join(log.read_text() for log in [*moved, gateway.log_path]))  # for the check at the end
