"""One of three backends at a time is killed, frozen or restarted under load: whoever had not begun to be answered is served,
and once. The long form is `tests/long/run fleet`."""

import pytest

import failover
from wire import wait_for

SEED = 5


@pytest.fixture
def backends(start_fake, start_gateway):
    fakes = {f"gpu{n}": start_fake("--num-parallel", failover.SLOTS) for n in range(3)}
    entries = [{"name": name, "url": fake.url, "slots": failover.SLOTS} for name, fake in fakes.items()]
    gateway = start_gateway(fakes["gpu0"], ollama_api=None, backends=entries, slow_start="500ms")
    wait_for(lambda: gateway.metric("backend_up") == len(fakes))
    return gateway, fakes


def test_whoever_had_not_begun_is_served_once_while_backends_come_and_go(backends):
    gateway, fakes = backends
    with failover.trouble(gateway, fakes, SEED) as done:
        done.callers.wait_answers(60)
        for turn, what in enumerate(("killed", "frozen", "restarted", "stumbled", "dropped", "killed")):
            done.happens(what, f"gpu{turn % 3}")
        done.callers.wait_answers(60)
    gateway.check_books()
    failover.say(done)
    faults = failover.faults_of(gateway, done)
    assert not faults, "\n".join(faults[:20])
    assert gateway.metric("backend_resends_total", to="another") > 0, "nobody was sent elsewhere"
