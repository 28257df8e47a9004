"""Behind a real Nginx: both forms of proxy_pass, streams that are not held up, refusals that are not turned into 502."""

import contextlib
import json
import subprocess
import time

import openai
import pytest

from conftest import short_folder
from gateway import KEY, MODEL, chat_body
from nginx import Nginx

BEARER = {"Authorization": f"Bearer {KEY}"}
UNBUFFERED = "proxy_request_buffering off;"


@pytest.fixture
def start_nginx():
    with contextlib.ExitStack() as stack:
        def start(gateway, **options):
            nginx = Nginx(stack.enter_context(short_folder()), gateway, **options)
            stack.callback(nginx.stop)
            return nginx
        yield start


@pytest.fixture(params=[False, True], ids=["proxy_pass without a slash", "proxy_pass with a slash"])
def front(request, gateway, start_nginx):
    return start_nginx(gateway, strips=request.param)


def test_everything_is_there_behind_either_form(front):
    answer = front.call("POST", "/v1/chat/completions", chat_body("say:through"), BEARER)
    assert answer.status == 200 and answer.content == "through"
    assert front.call("GET", "/v1/models", headers=BEARER).status == 200
    assert front.call("GET", f"/v1/models/{MODEL}", headers=BEARER).json["id"] == MODEL
    assert front.call("GET", "/v1/nowhere", headers=BEARER).status == 404
    assert front.call("POST", "/v1/chat/completions", chat_body(), {"Authorization": "Bearer x"}).status == 401


def test_a_stream_is_not_held_up(front, fake):
    """The second piece never comes, and yet the first is here."""
    fake.script(tokens=3, stall_after_tokens=1)
    wire = front.wire().request("POST", "/v1/chat/completions", BEARER, chat_body(stream=True))
    assert wire.head().status == 200
    assert wire.chunk().startswith(b"data: ")
    wire.close()
    fake.wait_chats(1, "aborted")


def test_a_stream_is_whole(front):
    text = "all of it, in order. " * 500
    wire = front.wire().request("POST", "/v1/chat/completions", BEARER, chat_body("say:" + text, stream=True))
    answer = wire.answer()
    assert answer.content == text and answer.is_done


def test_the_sdk_works_through_it(front):
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=KEY, max_retries=0) as client:
        chunks = list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "say:hello"}],
                                                     stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"


def test_curl_works_through_it(front):
    done = subprocess.run(["curl", "-sS", "-N", f"{front.url}/v1/chat/completions", "-H", f"X-Api-Key: {KEY}", "-H",
                           "Content-Type: application/json", "-d", json.dumps(chat_body("say:curled"))],
                          capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "curled"


def pushed(front, size, key):
    wire = front.wire()
    wire.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
              f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n")
    for _ in range(size >> 20):
        if not wire.send_as_far_as_possible(b"x" * (1 << 20)):
            break
    try:
        return wire.answer().status
    finally:
        wire.close()


@pytest.mark.parametrize("extra", ["", UNBUFFERED], ids=["buffered", "unbuffered"])
def test_8_mb_with_a_wrong_key_are_401_a_hundred_times_of_a_hundred(gateway, start_nginx, extra):
    front = start_nginx(gateway, extra=extra)
    assert [pushed(front, 8 << 20, "wrong") for _ in range(100)] == [401] * 100


@pytest.mark.parametrize("extra", ["", UNBUFFERED], ids=["buffered", "unbuffered"])
def test_40_mib_with_a_good_key_are_413_a_hundred_times_of_a_hundred(gateway, start_nginx, extra):
    front = start_nginx(gateway, extra=extra)
    assert [pushed(front, 40 << 20, KEY) for _ in range(100)] == [413] * 100


@pytest.mark.timing
def test_a_caller_leaving_nginx_closes_ollamas_side(gateway, start_nginx, fake):
    front = start_nginx(gateway)
    fake.script(tokens=1000, token_ms=20)
    wire = front.wire().request("POST", "/v1/chat/completions", BEARER, chat_body(stream=True))
    wire.wait_until_bytes()
    left = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6
    wire.close()
    assert fake.wait_chats(1, "aborted")[0]["ended_ms"] - left < 200


def test_the_real_client_counts_behind_a_trusted_proxy(start_gateway, start_nginx):
    gateway = start_gateway(trusted_proxies=["127.0.0.1"], auth={"valid_keys": [
        KEY, {"key": "placed", "name": "placed", "allow": ["10.1.0.0/16"]}]})
    front = start_nginx(gateway)

    def status(address):
        return front.call("POST", "/v1/chat/completions", chat_body(),
                          {"Authorization": "Bearer placed", "X-Forwarded-For": address}).status
    # Nginx appends its own peer, 127.0.0.1, which is trusted: the next to the left is the client.
    assert status("10.1.2.3") == 200
    assert status("10.2.2.3") == 403
    assert status("10.1.2.3, 10.2.2.3") == 403
    answer = front.call("POST", "/v1/chat/completions", chat_body(), {**BEARER, "X-Forwarded-For": "192.0.2.7"})
    assert gateway.line_of(answer)["address"] == "192.0.2.7"


def test_kept_connections_of_nginx_serve_many_callers(front, gateway):
    for n in range(50):
        assert front.call("POST", "/v1/chat/completions", chat_body(f"say:{n}"), BEARER).content == str(n)


def test_the_next_caller_does_not_meet_the_end_of_a_broken_stream(gateway, start_nginx, fake):
    """The connection ends with the stream, unannounced: Nginx must not lend it to whoever asks next."""
    front = start_nginx(gateway)
    for n in range(20):
        fake.script(tokens=5, error_after_tokens={"n": 2})
        other = front.wire()
        answer = front.wire().request("POST", "/v1/chat/completions", BEARER, chat_body(stream=True)).answer(may_be_cut=True)
        assert answer.stream_error and not answer.is_done
        assert other.request("POST", "/v1/chat/completions", BEARER, chat_body(f"say:{n}")).answer().status == 200
