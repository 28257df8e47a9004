"""1,500 mixed requests, a tenth given up, backends that do wrong now and then: all books say the same. The long form is
`tests/long/run books`."""

import pytest

import ledger
from wire import wait_for

COUNT, SEED, SLOTS = 1500, 11, 3


@pytest.fixture
def backends(start_fake, start_gateway):
    fakes = [start_fake("--num-parallel", SLOTS) for _ in range(2)]
    entries = [{"name": f"gpu{at}", "url": fake.url, "slots": SLOTS} for at, fake in enumerate(fakes)]
    gateway = start_gateway(fakes[0], ollama_api=None, backends=entries)
    wait_for(lambda: gateway.metric("backend_up") == len(fakes))
    return gateway, fakes


def test_log_metrics_and_backends_agree_to_the_token(backends):
    gateway, fakes = backends
    callers = ledger.ask_all(gateway, fakes, COUNT, SEED)
    faults, figures = ledger.compare(gateway, fakes, callers)
    print(figures)
    assert not faults, f"{len(faults)} faults, seed {SEED}:\n" + "\n".join(faults[:20])
    assert figures["of them waiting"] > 3, figures
    assert figures["requests"] == COUNT and figures["estimated"] > 10 and figures["given up"] > COUNT * ledger.ABORTS / 2, figures
