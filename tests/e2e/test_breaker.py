"""When Ollama dies, hangs or comes back: refused within 3.2 s, at once while the breaker is open, back within 1 s."""

import resource
import signal
import time

import pytest

from gateway import KEY, chat_body
from wire import wait_for

pytestmark = pytest.mark.timing

PATIENCE = 3.2


@pytest.fixture
def ollama(start_fake):
    return start_fake()


@pytest.fixture
def door(start_gateway, ollama):
    return start_gateway(ollama)


def timed(gateway, **fields):
    began = time.monotonic()
    answer = gateway.chat(**fields)
    return answer, time.monotonic() - began


def assert_unavailable(answer):
    assert (answer.status, answer.code) == (503, "backend_unavailable"), answer
    assert int(answer.header("Retry-After")) >= 1
    assert len(answer.error["message"]) > 20


def test_refused_connections_are_503_and_open_the_breaker(door, ollama):
    ollama.kill()
    answer, took = timed(door)
    assert_unavailable(answer)
    assert took < PATIENCE
    wait_for(lambda: door.metric("backend_up") == 0)
    for _ in range(10):
        answer, took = timed(door)
        assert_unavailable(answer)
        assert took < 0.3, "at once while open"


@pytest.mark.parametrize("stream", [True, None], ids=["streamed", "whole"])
def test_a_backend_that_hangs_is_503_within_the_patience(door, ollama, stream):
    """It is stopped: the kernel takes connections, nobody answers, not even /api/version."""
    ollama.freeze()
    answer, took = timed(door, stream=stream)
    ollama.thaw()
    assert_unavailable(answer)
    assert took < PATIENCE


def test_a_backend_that_falls_dead_while_a_request_waits_is_503(door, ollama):
    ollama.script(silent=True)
    wire = door.open_chat()
    ollama.wait_chats(1, "running")
    began = time.monotonic()
    ollama.freeze()
    answer = wire.answer()
    took = time.monotonic() - began
    ollama.thaw()
    assert_unavailable(answer)
    assert took < PATIENCE + 1


def test_a_blackhole_is_503_and_open_is_at_once(door, ollama):
    ollama.set(blackhole=True)
    answer, took = timed(door)
    assert_unavailable(answer)
    assert took < PATIENCE
    answer, took = timed(door)
    assert_unavailable(answer)
    assert took < 0.3


def test_silent_but_alive_is_waited_for(door, ollama):
    """A prefill of 5 s: /api/version answers, so nothing is refused and no breaker opens."""
    ollama.script(head_delay_ms=5000)
    answer, took = timed(door)
    assert answer.status == 200 and took >= 5
    assert door.metric("backend_up") == 1


def test_back_within_a_second_of_ollamas_return(door, ollama):
    ollama.kill()
    assert_unavailable(door.chat())
    wait_for(lambda: door.metric("backend_up") == 0)
    ollama.start()
    returned = time.monotonic()
    wait_for(lambda: door.chat().status == 200, 5)
    assert time.monotonic() - returned < 1.3, "half-open after 1 s, one probe"


def test_back_within_a_second_of_a_thaw(door, ollama):
    ollama.freeze()
    assert_unavailable(door.chat())
    ollama.thaw()
    returned = time.monotonic()
    wait_for(lambda: door.chat().status == 200, 5)
    assert time.monotonic() - returned < 1.3


def test_the_probe_is_not_a_callers_request(door, ollama):
    ollama.kill()
    door.chat()
    wait_for(lambda: door.metric("backend_up") == 0)
    ollama.start()
    wait_for(lambda: door.metric("backend_up") == 1, 5)
    assert ollama.seen("/api/chat") == [] and ollama.seen("/api/generate") == []
    assert ollama.seen("/api/version") or ollama.seen("/api/tags")


def test_readyz_tells_and_comes_back(door, ollama):
    assert door.get("/readyz", key=None).json == {"status": "ready"}
    ollama.kill()
    door.chat()
    answer = wait_for(lambda: (got := door.get("/readyz", key=None)).status == 503 and got)
    assert answer.json["reason"] == "no_backend"
    assert door.operator("/readyz").status == 503
    assert door.get("/healthz", key=None).json == {"status": "ok"}
    ollama.start()
    wait_for(lambda: door.get("/readyz", key=None).status == 200, 5)


def test_readyz_tells_within_the_patience_though_nobody_asks_anything_else(door, ollama):
    ollama.freeze()
    began = time.monotonic()
    wait_for(lambda: door.operator("/readyz").status == 503)
    took = time.monotonic() - began
    ollama.thaw()
    assert took < PATIENCE + 0.5


def test_a_gateway_that_slept_does_not_blame_ollama(door, ollama):
    """A suspended machine: the gateway stands still for longer than the patience, and Ollama was alive all the while."""
    ollama.script(head_delay_ms=6000)
    wire = door.open_chat()
    ollama.wait_chats(1, "running")
    door.signal(signal.SIGSTOP)
    time.sleep(4)  # standing still for that long is the fact
    door.signal(signal.SIGCONT)
    assert wire.answer().status == 200
    assert door.metric("backend_up") == 1


def test_running_out_of_descriptors_is_not_ollamas_death(start_gateway, ollama):
    gateway = start_gateway(ollama, workers=1, max_connections=10000,
                            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)))
    assert gateway.chat().status == 200
    held = []
    for _ in range(80):
        try:
            held.append(gateway.wire())
        except OSError:
            break
    for wire in held:
        wire.close()
    wait_for(lambda: gateway.chat().status == 200, 5)
    assert gateway.metric("breaker_opened_total") == 0


def test_busy_is_ready(door, ollama):
    ollama.script(silent=True)
    wire = door.open_chat()
    ollama.wait_chats(1, "running")
    assert door.get("/readyz", key=None).status == 200
    wire.close()


def test_a_restart_between_two_requests_is_not_seen(door, ollama):
    """The kept connection is dead by the next request: it is sent again on a new one, once."""
    assert door.chat().status == 200
    ollama.kill()
    ollama.start()
    assert door.chat("say:again").content == "again"
    assert len(ollama.seen()) == 1


def test_a_kept_connection_that_dies_at_once_is_tried_again_once(door, ollama):
    assert door.chat().status == 200
    ollama.script(close_before_answer=True)
    answer = door.chat("say:second try")
    assert answer.status in (200, 502, 503)
    if answer.status == 200:
        assert answer.content == "second try"
    assert len(ollama.seen()) <= 3


def test_five_failures_in_a_row_open_it(door, ollama):
    ollama.script(times=0, close_before_answer=True)
    for _ in range(6):
        assert door.chat().status in (502, 503)
    wait_for(lambda: door.metric("backend_up") == 0, 3)
    ollama.reset()
    wait_for(lambda: door.chat().status == 200, 5)


def test_answers_of_4xx_never_open_it(door, ollama):
    ollama.script(times=20, status=400, body='{"error":"no"}', content_type="application/json")
    assert [door.chat().status for _ in range(20)] == [400] * 20
    assert door.metric("backend_up") == 1


def test_callers_leaving_never_open_it(door, ollama):
    ollama.script(times=0, silent=True)
    for _ in range(15):
        wire = door.open_chat()
        ollama.wait_running(1)
        wire.close()
        ollama.wait_running(0)
    ollama.reset()
    assert door.metric("backend_up") == 1
    assert door.chat().status == 200


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("stream", [True, None], ids=["streamed", "whole"])
def test_six_who_leave_at_once_before_the_head_never_open_it(door, ollama, how, stream):
    ollama.script(times=6, silent=True)
    wires = [door.open_chat(stream=stream) for _ in range(6)]
    ollama.wait_running(6)
    for wire in wires:
        getattr(wire, how)()
    ollama.wait_running(0)
    assert door.chat().status == 200
    assert door.metric("breaker_opened_total") == 0 and door.metric("backend_up") == 1


def test_a_gateway_may_start_before_ollama(start_gateway, start_fake):
    ollama = start_fake()
    ollama.kill()
    gateway = start_gateway(ollama, is_ready_wanted=False)
    assert gateway.get("/readyz", key=None).status == 503
    assert gateway.get("/healthz", key=None).status == 200
    answer = gateway.chat()
    assert answer.status == 503
    ollama.start()
    wait_for(lambda: gateway.chat().status == 200, 5)


def test_one_backend_silent_does_not_hold_up_refusals(door, ollama):
    """While requests wait for a frozen Ollama, what needs no Ollama is answered at once."""
    ollama.freeze()
    waiting = [door.open_chat() for _ in range(8)]
    began = time.monotonic()
    assert door.chat(key="wrong").status == 401
    assert door.get("/healthz", key=None).status == 200
    assert time.monotonic() - began < 0.5
    for wire in waiting:
        assert_unavailable(wire.answer())
    ollama.thaw()


def test_many_waiting_are_all_told_within_the_patience(door, ollama):
    ollama.freeze()
    began = time.monotonic()
    wires = [door.open_chat() for _ in range(100)]
    for wire in wires:
        assert_unavailable(wire.answer())
    assert time.monotonic() - began < PATIENCE + 0.5
    ollama.thaw()


def test_a_stream_that_was_begun_ends_in_an_event_when_ollama_dies(door, ollama):
    ollama.script(tokens=3, stall_after_tokens=2)
    wire = door.wire().request("POST", "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}, chat_body(stream=True))
    wire.wait_until_bytes()
    ollama.wait_chats(1, "running")
    ollama.kill()
    answer = wire.answer(may_be_cut=True)
    assert answer.status == 200 and answer.stream_error["message"]
    assert answer.finish is None and not answer.is_done
