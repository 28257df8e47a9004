"""A request's way through queue and backends when something turns up on the way: refusals, lists, reloads, leaving."""

import pytest

from wire import wait_for


@pytest.fixture
def fleet(start_fake, start_gateway):
    """fleet({"gpu1": {...}, "gpu2": {...}}, **settings): a stand-in for each, and a gateway before all of them."""
    def start(sites, **settings):
        fakes = {name: start_fake() for name in sites}
        entries = [{"name": name, "url": fakes[name].url, **options} for name, options in sites.items()]
        gateway = start_gateway(next(iter(fakes.values())), ollama_api=None, backends=entries, **settings)
        wait_for(lambda: gateway.metric("backend_up") == len(fakes))
        return gateway, fakes
    return start


BUSY = {"status": 503, "body": {"error": "server busy, please try again.  maximum pending requests exceeded"}}


def test_nothing_of_a_503_is_left_when_the_second_backend_answers_in_pieces(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script(**BUSY)
    fakes["gpu2"].script(split=100, split_ms=5)
    answer = gateway.chat("say:all of it is here")
    assert (answer.status, answer.content) == (200, "all of it is here"), answer.text
    assert gateway.line_of(answer)["backend"] == "gpu2"


def test_a_503_whose_connection_ends_before_its_body_is_a_503_all_the_same(fleet):
    gateway, fakes = fleet({"gpu1": {}, "gpu2": {"weight": 0}})
    fakes["gpu1"].script_raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 40\r\n\r\n{\"error\":")
    answer = gateway.chat("say:here")
    assert (answer.status, answer.content) == (200, "here"), answer.text


def queues(gateway):
    return {labels["model"] for name, labels, _ in gateway.metrics() if name == "qwen_gateway_queue_running"}


def test_names_that_no_backend_lists_make_no_queues(start_fake, start_gateway):
    fake = start_fake()
    fake.set(tags_silent=True)  # it lives, but never tells what it has
    gateway = start_gateway(fake)
    for n in range(3):
        assert gateway.chat("say:here", model=f"made-up-{n}").status == 404
    assert gateway.chat("say:here").status == 200, "it has the model, though it does not list it"
    assert queues(gateway) == {"other"}


def test_the_time_at_a_backend_that_failed_it_is_no_waiting(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 1}, "gpu2": {"slots": 1}}, queue_timeout="300ms")
    for fake in fakes.values():
        fake.script(silent=True)
    wires = {says: gateway.open_chat(says) for says in ("say:one", "say:two")}
    at = {fake.wait_chats(1, "running")[0]["body_json"]["messages"][0]["content"]: fake for fake in fakes.values()}
    assert gateway.chat().code == "queue_timeout", "it waited as long as is allowed: the two have been there for longer"
    at["say:one"].set(drop=True)
    wait_for(lambda: gateway.metric("queue_waiting") == 1)
    wires["say:two"].close()
    answer = wires["say:one"].answer()
    assert (answer.status, answer.content) == (200, "one"), answer.text


def test_who_waited_in_vain_has_it_in_the_log(fleet):
    gateway, fakes = fleet({"gpu1": {"slots": 1}})
    fakes["gpu1"].script(silent=True)
    holder = gateway.open_chat("hi", {"X-Request-Id": "holder"})
    fakes["gpu1"].wait_chats(1, "running")
    wires = {name: gateway.open_chat("hi", {"X-Request-Id": name}) for name in ("leaves", "loses")}
    wait_for(lambda: gateway.metric("queue_waiting") == 2)
    assert gateway.get("/v1/models").status == 200
    wires["leaves"].close()
    assert int(gateway.wait_line(req="leaves")["queue_ms"]) > 0
    fakes["gpu1"].kill()
    assert wires["loses"].answer().status == 503
    assert int(gateway.wait_line(req="loses")["queue_ms"]) > 0
    holder.close()
