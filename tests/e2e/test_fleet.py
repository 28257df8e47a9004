"""The judge of queue and routing (tests/bench/fleet) in short, with what does not hang on how busy this machine is: who gets how
many requests, and that its callers notice what they must."""

import asyncio
import sys
import types

import pytest

from processes import BIN, ROOT
from wire import wait_for

sys.path.insert(0, str(ROOT / "tests" / "bench"))
from contenders import KEY, Bench  # noqa: E402
from crowd import Crowd, percentile  # noqa: E402
from waiting import measure_waiting  # noqa: E402

SPEEDS, SLOTS, TOKEN_MS = (100, 200, 400), 3, 24


@pytest.fixture
def backends(start_fake, start_gateway):
    fakes = [start_fake("--num-parallel", SLOTS, "--token-ms", TOKEN_MS, "--speed", speed) for speed in SPEEDS]
    entries = [{"name": f"gpu{at}", "url": fake.url, "slots": SLOTS} for at, fake in enumerate(fakes)]
    gateway = start_gateway(fakes[0], ollama_api=None, backends=entries, auth={"valid_keys": [{"key": KEY, "delegate": True}]})
    wait_for(lambda: gateway.metric("backend_up") == len(fakes))
    return gateway, fakes


def answered(fake):
    return sum(outcome == "answered" for _, outcome, *_ in fake.ask("GET", "/ids")["ids"])


def test_under_full_load_every_slot_is_taken_and_work_goes_by_speed(backends):
    gateway, fakes = backends
    crowd = Crowd(gateway.port, "/v1/chat/completions", seed=3)
    asyncio.run(crowd.keep_asking(24, 2))
    assert not crowd.failed(), crowd.failed()[:3]
    assert [fake.stats()["peak_running"] for fake in fakes] == [SLOTS] * 3
    served = [answered(fake) for fake in fakes]
    assert sum(served) == len(crowd.questions)
    parts = [count / sum(served) / (speed / sum(SPEEDS)) for count, speed in zip(served, SPEEDS)]
    assert all(0.6 <= part <= 1.5 for part in parts), (served, parts)
    assert served[0] < served[1] < served[2]


def test_conversations_stay_while_their_backend_is_below_its_bound(backends):
    gateway, _ = backends
    crowd = Crowd(gateway.port, "/v1/chat/completions", seed=4)
    asyncio.run(crowd.ask_at_random(15, 2, sessions=12))
    assert not crowd.failed(), crowd.failed()[:3]
    tries, hits = gateway.metric("queue_affinity_tries_total"), gateway.metric("queue_affinity_hits_total")
    assert hits >= 0.9 * tries and tries >= 0.3 * len(crowd.questions), (hits, tries, len(crowd.questions))


def test_the_crowd_notices_what_is_refused_and_what_is_cut(start_fake):
    fake = start_fake()
    fake.script(status=503, body={"error": "busy"}).script(tokens=5, hangup_after_bytes=600).script(close_before_answer=True)
    crowd = Crowd(fake.port, "/api/chat", seed=1)
    asyncio.run(crowd.keep_asking(1, 0.5))
    assert [question.is_served for question in crowd.questions[:4]] == [False, False, False, True]
    assert crowd.questions[0].status == 503 and len(crowd.failed()) == 3


def test_the_crowd_counts_a_wait_from_when_a_question_was_due(start_fake):
    fake = start_fake("--num-parallel", 1, "--token-ms", 4)
    crowd = Crowd(fake.port, "/api/chat", seed=2)
    asyncio.run(crowd.ask_at_random(25, 0.5))
    assert not crowd.failed() and len(crowd.questions) > 5
    started = {chat["id"]: chat["started_ms"] for chat in fake.seen()}  # by the same clock
    waits = sorted(started[question.number] - question.due * 1000 for question in crowd.questions)
    assert all(question.first * 1000 >= started[question.number] - 1 for question in crowd.questions)
    assert percentile(crowd.waits_ms(0), 0.99) >= percentile(waits, 0.99) - 1 and waits[-1] > 10


@pytest.mark.hardened
@pytest.mark.parametrize("prompt_bytes", [100, 3000])
def test_a_waiting_request_takes_less_than_2_kib_beside_its_body(folder, prompt_bytes):
    bench = Bench(types.SimpleNamespace(bin=BIN, wrap=[]), folder)
    said = measure_waiting(bench, BIN / "qwen-gateway", prompt_bytes, 1000, 200)
    assert 500 < said["waiting"] - said["body"] <= 2048, said
