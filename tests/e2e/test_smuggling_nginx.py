"""
The same through a real Nginx with one connection to the gateway that everybody's requests share: whatever a caller
sends, Nginx and the gateway count the same requests with the same answers, and the next on the caller's connection and
the next of another caller get their own. Then the other direction: answers that Nginx must see end where we end them.
"""

import collections

import pytest

from conftest import short_folder
from gateway import KEY, Gateway, chat_body
from nginx import Nginx
from test_smuggling import CASES, KEYED, NEXT, Books, as_bytes, send
from wire import Cut, chunked, wait_for

# As most have it; and as open as it can be made: headers of any name, bodies passed on as they come.
AS_SHIPPED = ""
OPEN = """proxy_request_buffering off; ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;
    client_header_buffer_size 128k; large_client_header_buffers 8 256k; proxy_buffering off; keepalive_requests 100000;"""
BEARER = {"Authorization": f"Bearer {KEY}"}


class Road:
    """Nginx and the gateway behind it, and what both have counted so far."""

    def __init__(self, gateway, nginx):
        self.gateway, self.nginx = gateway, nginx
        self.books = Books(gateway)
        self.wires = []
        self.read = 0
        self.forget()

    def forget(self):
        for wire in self.wires:
            wire.close()
        self.wires.clear()
        self.books.lines()
        _, self.read = self.nginx.passed_on()

    def wire(self):
        self.wires.append(self.nginx.wire())
        return self.wires[-1]

    def ask(self, wire, words):
        """A victim: it must get its own answer."""
        answer = wire.request("POST", "/v1/chat/completions", {**BEARER, "X-Request-Id": words}, chat_body(f"say:{words}")).answer()
        assert (answer.status, answer.header("X-Request-Id")) == (200, words), answer
        assert answer.content == words, answer

    def check(self, are_statuses_alike=True):
        """Closes everything and compares the books: both logs tell of the same requests, with the same answers."""
        for wire in self.wires:
            wire.close()
        self.wires.clear()
        ours = [(line["method"], line["path"], int(line["status"])) for line in self.books.lines()]

        def agree(theirs):
            if not are_statuses_alike:
                return len(ours) == len(theirs)
            read = collections.Counter(row for row in ours if row[0] != "-")  # a head that was refused has no method
            return sorted(row[2] for row in ours) == sorted(row[2] for row in theirs) and not read - collections.Counter(theirs)
        def both():
            theirs, read = self.nginx.passed_on(self.read)
            return agree(theirs) and read
        try:
            self.read = wait_for(both, 5)
        except AssertionError:
            raise AssertionError(f"the gateway answered {ours}, Nginx saw {self.nginx.passed_on(self.read)}") from None


@pytest.fixture(scope="module", params=[AS_SHIPPED, OPEN], ids=["as shipped", "open"])
def shared_road(request, session_fake):
    with short_folder() as behind, short_folder() as before:
        gateway = Gateway(behind, session_fake.url, workers=1, trusted_proxies=["127.0.0.1"])
        nginx = Nginx(before, gateway, extra=request.param, kept=1)
        yield Road(gateway, nginx)
        nginx.stop()
        gateway.stop()


@pytest.fixture
def road(shared_road, fake):
    shared_road.books.is_settled = False
    yield shared_road
    if not shared_road.books.is_settled:
        shared_road.forget()


def read_until_next(wire):
    """Reads until NEXT is answered, by whomever, or the connection ends, or nothing comes any more. True: it is open."""
    wire.socket.settimeout(0.5)
    try:
        while wire.wait_until_bytes().read_ahead.startswith(b"HTTP/1"):
            if wire.answer().header("X-Request-Id") == "next":
                return True
        return not wire.until_closed() # HTTP/0.9 has no head
    except (Cut, TimeoutError):
        return False
    finally:
        wire.socket.settimeout(15)


@pytest.mark.parametrize("which", CASES)
def test_nginx_and_the_gateway_count_the_same_requests(road, which):
    text, _ = CASES[which]
    wire, other = road.wire(), road.wire()
    road.ask(other, "warm")
    send(wire, as_bytes(text) + NEXT.encode(), False)
    if read_until_next(wire):
        road.ask(wire, "mine")
    road.ask(other, "theirs")
    road.ask(road.wire(), "somebodys")
    road.check()


def head(path, key=KEY):
    return f"HEAD {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n"


def chat(key=KEY, extra="", body=b"{}", path="/v1/chat/completions", **fields):
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


BIG = b"x" * (1 << 20)
ANSWERS = {
    # name: (what is asked, the status; None: Nginx may make something of it)
    "HEAD": (head("/v1/models"), 200),
    "HEAD of one model": (head("/v1/models/qwen3:32b"), 200),
    "HEAD of nothing": (head("/v1/nowhere"), 404),
    "HEAD of a model that is not there": (head("/v1/models/none"), 404),
    "HEAD with a wrong key": (head("/v1/models", "wrong"), 401),
    "HEAD where only POST is": (head("/v1/chat/completions"), 405),
    "HEAD of health": (head("/healthz"), 200),
    "HEAD with a body": (head("/v1/models")[:-2] + "Content-Length: 5\r\n\r\nhello", 200),
    "HEAD that a browser sends": (head("/v1/models", "wrong")[:-2] + "Accept: text/html\r\n\r\n", 401),
    "GET of health": ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    "GET of a part": (f"{KEYED}Range: bytes=0-3\r\n\r\n", None),
    "GET of what has not changed": (f"{KEYED}If-None-Match: *\r\nIf-Modified-Since: Sun, 22 Nov 2099 00:00:00 GMT\r\n\r\n", None),
    "OPTIONS": ("OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n\r\n", 405),
    "an empty body": (chat(body=b""), 400),
    "a body that is refused unread": (chat("wrong", body=BIG), 401),
    "a body to nowhere that is refused unread": (chat(path="/v1/nowhere", body=BIG), 404),
    "a body of chunks that is refused unread": (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(*[BIG[:9999]] * 99), 401),
    "a body that is refused when read": (chat(body=b"[" + BIG), 400),
    "an expectation": (chat(extra="Expect: 100-continue\r\n"), 400),
    "an expectation with a wrong key": (chat("wrong", "Expect: 100-continue\r\n"), 401),
    "HTTP/1.0": (f"GET /v1/models HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n", 200),
}


@pytest.mark.parametrize("which", ANSWERS)
def test_nginx_sees_our_answers_end_where_they_end(road, which):
    text, status = ANSWERS[which]
    wire, other = road.wire(), road.wire()
    road.ask(other, "warm")
    send(wire, as_bytes(text), False)
    answer = wire.answer("HEAD" if as_bytes(text).startswith(b"HEAD") else "POST")
    assert status is None or answer.status == status
    if answer.header("Connection") != "close" and "unread" not in which:
        road.ask(wire, "mine")
    road.ask(other, "theirs")
    road.check()


def stream_of(wire):
    return wire.request("POST", "/v1/chat/completions", BEARER, chat_body("say:" + "word " * 200, stream=True))


def test_a_stream_ends_where_it_ends(road):
    wire, other = road.wire(), road.wire()
    assert stream_of(wire).answer().is_done
    road.ask(wire, "mine")
    road.ask(other, "theirs")
    road.check()


def test_a_stream_that_breaks_off_takes_nobody_with_it(road, fake):
    fake.script(tokens=5, error_after_tokens={"n": 2})
    wire, other = road.wire(), road.wire()
    answer = stream_of(wire).answer(may_be_cut=True)
    assert answer.stream_error and not answer.is_done
    road.ask(other, "theirs")
    road.check(are_statuses_alike=False)


def test_a_caller_who_leaves_in_the_midst_leaves_nothing_behind(road, fake):
    fake.script(tokens=1000, token_ms=20)
    wire, other = road.wire(), road.wire()
    stream_of(wire).head()
    wire.chunk()
    wire.close()
    fake.wait_chats(1, "aborted")
    road.ask(other, "theirs")
    road.ask(other, "theirs-again")
    road.check(are_statuses_alike=False)
