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
