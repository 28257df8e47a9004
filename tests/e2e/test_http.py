"""HTTP/1.1 itself: what is kept open, what is refused as malformed, and answers that arrive whatever was sent."""

import contextlib
import json
import random
import socket
import threading
import time

import pytest

from gateway import KEY, chat_body
from wire import Cut, chunked

BEARER = {"Authorization": f"Bearer {KEY}"}
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
BODY = json.dumps(chat_body("say:well")).encode()


def test_a_connection_serves_many_requests(gateway):
    wire = gateway.wire()
    for n in range(20):
        answer = wire.request("POST", "/v1/chat/completions", BEARER, chat_body(f"say:{n}")).answer()
        assert answer.content == str(n)


def test_pipelined_requests_are_answered_in_order(gateway):
    wire = gateway.wire()
    for n in range(20):
        wire.request("POST", "/v1/chat/completions", BEARER, chat_body(f"say:{n}", stream=n % 3 == 0 or None))
    assert [wire.answer().content for _ in range(20)] == [str(n) for n in range(20)]


def test_a_request_may_come_byte_by_byte(gateway):
    request = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    wire = gateway.wire()
    for byte in request:
        wire.send(bytes([byte]))
    assert wire.answer().content == "well"


def test_a_request_may_be_cut_anywhere(gateway):
    request = f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    wire = gateway.wire()
    for at in range(1, len(request), 7):
        wire.send(request[:at])
        wire.send(request[at:])
        assert wire.answer().content == "well"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_body_may_be_chunked(gateway, size):
    pieces = [BODY[at:at + size] for at in range(0, len(BODY), size)]
    wire = gateway.wire().send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", chunked(*pieces))
    assert wire.answer().content == "well"
    assert wire.request("POST", "/v1/chat/completions", BEARER, chat_body("say:next")).answer().content == "next"


def test_chunks_may_have_extensions_and_trailers(gateway):
    body = b"%x;name=value\r\n%s\r\n0\r\nX-Trailer: ignored\r\n\r\n" % (len(BODY), BODY)
    wire = gateway.wire().send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", body)
    answer = wire.answer()
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert answer.content == "well"


def test_expect_is_answered_before_the_body(gateway):
    wire = gateway.wire().send(f"{HEAD}Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n")
    assert wire.head().status == 100
    assert wire.send(BODY).answer().content == "well"


@pytest.mark.parametrize("head,status", [
    (HEAD.replace(KEY, "wrong") + f"Content-Length: {len(BODY)}\r\n", 401),
    (HEAD + f"Content-Length: {1 << 40}\r\n", 413),
    (HEAD.replace("/v1/chat/completions", "/nowhere") + f"Content-Length: {len(BODY)}\r\n", 404),
])
def test_expect_is_not_asked_for_a_body_that_is_refused(gateway, head, status):
    wire = gateway.wire().send(f"{head}Expect: 100-continue\r\n\r\n")
    assert wire.head().status == status


def test_a_body_that_came_already_needs_no_100(gateway):
    wire = gateway.wire().send(f"{HEAD}Expect: 100-continue\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
    assert wire.answer().content == "well"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/slow"])
def test_head_is_get_without_a_body(gateway, path):
    wire = gateway.wire()
    got = wire.request("GET", path, BEARER).answer("GET")
    headed = wire.request("HEAD", path, BEARER).answer("HEAD")
    assert headed.status == got.status == 200
    assert headed.header("Content-Length") == str(len(got.body))
    assert headed.header("Content-Type") == got.header("Content-Type")
    assert wire.request("GET", path, BEARER).answer("GET").status == 200


def test_connection_close_is_obeyed(gateway):
    wire = gateway.wire().request("GET", "/healthz", {"Connection": "close"})
    answer = wire.answer("GET")
    assert answer.header("Connection") == "close" and wire.is_closed()


def test_http_1_0_is_served_and_closed(gateway):
    for path, body in (("/healthz", b'{"status":"ok"}'),):
        wire = gateway.wire().send(f"GET {path} HTTP/1.0\r\n\r\n")
        whole = wire.until_closed()
        assert b" 200 " in whole.split(b"\r\n")[0] and whole.endswith(body) and b"chunked" not in whole.lower() or \
            b" 505 " in whole.split(b"\r\n")[0] or b" 400 " in whole.split(b"\r\n")[0]


def test_a_stream_to_http_1_0_is_not_chunked(gateway):
    wire = gateway.wire().send(f"{HEAD.replace('HTTP/1.1', 'HTTP/1.0')}Content-Length: ")
    body = json.dumps(chat_body("say:well", stream=True))
    whole = wire.send(f"{len(body)}\r\n\r\n{body}").until_closed()
    if b" 200 " in whole.split(b"\r\n")[0]:
        assert b"transfer-encoding" not in whole.lower() and whole.endswith(b"data: [DONE]\n\n")


def test_names_of_headers_have_no_case(gateway):
    wire = gateway.wire().send(f"POST /v1/chat/completions HTTP/1.1\r\nhOST: a\r\nAUTHORIZATION: Bearer {KEY}\r\n"
                               f"cONTENT-lENGTH: {len(BODY)}\r\n\r\n", BODY)
    assert wire.answer().content == "well"


def test_an_empty_line_before_a_request_is_forgiven_or_refused(gateway):
    assert gateway.wire().send("\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").answer("GET").status in (200, 400)


OK = "GET /v1/models HTTP/1.1\r\n"
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
MALFORMED = {
    "no HTTP": "HELLO\r\n\r\n",
    "no version": "GET /\r\n\r\n",
    "two spaces": "GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the path": "GET /v1/mo dels HTTP/1.1\r\nHost: a\r\n\r\n",
    "version 2": "GET /v1/models HTTP/2.0\r\nHost: a\r\n\r\n",
    "version of letters": "GET /v1/models HTTP/x.y\r\nHost: a\r\n\r\n",
    "no host": OK + "\r\n",
    "two hosts": OK + "Host: a\r\nHost: a\r\n\r\n",
    "two lengths": POST + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two different lengths": POST + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": POST + "Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": POST + "Content-Length: -1\r\n\r\n",
    "a length with a plus": POST + "Content-Length: +2\r\n\r\n{}",
    "a length in hex": POST + "Content-Length: 0x2\r\n\r\n{}",
    "a length beyond all": POST + "Content-Length: 99999999999999999999999\r\n\r\n",
    "an empty length": POST + "Content-Length: \r\n\r\n",
    "length and chunks": POST + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks twice": POST + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunks misspelt": POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two authorizations": OK + f"Host: a\r\nAuthorization: Bearer {KEY}\r\nAuthorization: Bearer x\r\n\r\n",
    "two key headers": OK + f"Host: a\r\nX-Api-Key: {KEY}\r\nx-api-key: {KEY}\r\n\r\n",
    "a space before the colon": OK + "Host : a\r\n\r\n",
    "a header without colon": OK + "Host: a\r\nnonsense\r\n\r\n",
    "a header without name": OK + "Host: a\r\n: x\r\n\r\n",
    "a folded header": OK + "Host: a\r\nX-Long: one\r\n two\r\n\r\n",
    "a control character in a name": OK + "Host: a\r\nX-\x01: x\r\n\r\n",
    "a control character in a value": OK + "Host: a\r\nX-A: \x00\r\n\r\n",
    "a lone carriage return": OK + "Host: a\r\nX-A: b\rc\r\n\r\n",
    "a bare newline": OK + "Host: a\nX-A: b\r\n\r\n",
    "a method of odd letters": "G@T /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bad chunk size": POST + f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative chunk size": POST + f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a huge chunk size": POST + f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "a chunk longer than said": POST + f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "random bytes": random.Random(3).randbytes(400) + b"\r\n\r\n",
}


@pytest.mark.parametrize("which", MALFORMED)
def test_what_is_malformed_or_ambiguous_is_refused_and_closed(gateway, fake, which):
    wire = gateway.wire()
    wire.send_as_far_as_possible(MALFORMED[which].encode("latin-1") if isinstance(MALFORMED[which], str) else MALFORMED[which])
    answer = wire.answer()
    assert 400 <= answer.status <= 505 and answer.status != 404, answer
    if which not in ("version 2", "HTTP/2", "version of letters", "chunks misspelt", "chunks that are not last",
                     "a huge chunk size", "a length beyond all"):
        assert answer.status == 400, answer
    assert wire.is_closed()
    assert fake.seen() == []


def test_a_head_without_end_is_refused(gateway):
    wire = gateway.wire()
    wire.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n")
    for n in range(4000):
        if not wire.send_as_far_as_possible(b"X-Filler-%d: %s\r\n" % (n, b"x" * 100)):
            break
    try:
        assert wire.answer("GET").status in (400, 431)
    except Cut:
        pytest.fail("closed without a word")


def test_a_path_without_end_is_refused(gateway):
    wire = gateway.wire()
    wire.send_as_far_as_possible(b"GET /" + b"x" * 400000)
    assert wire.answer("GET").status in (400, 414, 431)


def test_a_head_that_does_not_come_is_closed(start_gateway):
    gateway = start_gateway(head_timeout="300ms")
    silent, half = gateway.wire(), gateway.wire().send("GET /v1/models HT")
    for wire in (silent, half):
        said = wire.until_closed()
        assert said == b"" or said.startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_closed(start_gateway):
    gateway = start_gateway(idle_timeout="300ms")
    wire = gateway.wire().request("GET", "/healthz")
    assert wire.answer("GET").status == 200
    assert wire.is_closed()


def test_a_connection_closed_at_once_does_no_harm(gateway):
    for _ in range(50):
        gateway.wire().reset()
        gateway.wire().close()
    assert gateway.chat().status == 200


def test_random_bytes_crash_nothing(gateway):
    chance = random.Random(7)
    for _ in range(200):
        wire = gateway.wire()
        wire.send_as_far_as_possible(chance.randbytes(chance.randint(1, 600)) + b"\r\n\r\n")
        wire.half_close()
        wire.until_closed()
        wire.close()
    assert gateway.chat().status == 200


def test_broken_requests_crash_nothing(gateway):
    """A good request with a few bytes changed, often enough to get far in."""
    chance = random.Random(11)
    good = f"{HEAD}Connection: close\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    for _ in range(300):
        request = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        wire = gateway.wire()
        wire.send_as_far_as_possible(bytes(request))
        try:
            wire.half_close()
        except OSError:
            pass
        wire.until_closed()
        wire.close()
    assert gateway.chat().status == 200


# --- refusing early without losing the answer -----------------------------------------------------------------

def push(gateway, head, size, piece=1 << 16):
    """Sends a big body as fast as it goes and reads what comes; a caller that never reads before it has sent all."""
    wire = gateway.wire()
    wire.send(head)
    filler = b"x" * piece
    for _ in range(size // piece):
        if not wire.send_as_far_as_possible(filler):
            break
    return wire.answer()


def test_8_mb_with_a_wrong_key_are_401_a_hundred_times_of_a_hundred(gateway):
    size = 8 << 20
    head = HEAD.replace(KEY, "wrong") + f"Content-Length: {size}\r\n\r\n"
    assert [push(gateway, head, size).status for _ in range(100)] == [401] * 100


def test_40_mib_with_a_good_key_are_413_a_hundred_times_of_a_hundred(gateway):
    size = 40 << 20
    head = HEAD + f"Content-Length: {size}\r\n\r\n"
    assert [push(gateway, head, size).status for _ in range(100)] == [413] * 100


def test_two_at_once_are_refused_as_well(gateway):
    size = 8 << 20
    head = HEAD.replace(KEY, "wrong") + f"Content-Length: {size}\r\n\r\n"
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(push(gateway, head, size).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [401] * 8


def test_lingering_ends(start_gateway):
    """A caller that goes on sending after its refusal is cut once linger_timeout is over."""
    gateway = start_gateway(linger_timeout="300ms")
    wire = gateway.wire().send(HEAD.replace(KEY, "wrong") + f"Content-Length: {1 << 40}\r\n\r\n")
    answer = wire.answer()
    assert answer.status == 401
    while wire.send_as_far_as_possible(b"x" * 65536):
        pass


@pytest.mark.timing
def test_one_caller_without_end_does_not_hold_up_the_others(start_gateway):
    """It pipelines as fast as it is answered, without a key, on the only worker."""
    gateway = start_gateway(workers=1)
    flood = gateway.wire(patience=600)
    stop = threading.Event()

    def pour():
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 200
        while not stop.is_set() and flood.send_as_far_as_possible(request):
            pass

    def drain():
        while not stop.is_set() and flood.more():
            pass
    threads = [threading.Thread(target=work) for work in (pour, drain)]
    for thread in threads:
        thread.start()
    try:
        began = time.monotonic()
        for _ in range(5):
            assert gateway.call("GET", "/healthz").status == 200
        assert time.monotonic() - began < 2
    finally:
        stop.set()
        flood.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_a_chunked_body_grows_too_big_behind_answers_nobody_reads(start_gateway):
    """The refusal does not fit into the full socket; more of the body comes all the same."""
    gateway = start_gateway(max_body_bytes="64KiB", write_timeout="2s")
    wire = gateway.wire(receive_buffer=4096)
    wire.socket.settimeout(0.3)
    asking = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    with contextlib.suppress(TimeoutError):
        wire.send(asking * 600, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            wire.send(b"8000\r\n" + b" " * 0x8000 + b"\r\n")
    wire.socket.settimeout(10)
    with contextlib.suppress(OSError):
        wire.until_closed()
    assert gateway.chat("say:alive").content == "alive"


def test_a_large_body_is_served(gateway):
    """30 MiB of messages with images' worth of base64 in a field nobody reads."""
    body = json.dumps(chat_body("say:still here", metadata={"blob": "A" * (30 << 20)})).encode()
    assert gateway.call("POST", "/v1/chat/completions", body).content == "still here"


def test_deadline_of_a_body_counts_from_its_head(start_gateway):
    """Bytes that trickle in do not buy time."""
    gateway = start_gateway(body_timeout="700ms")
    wire = gateway.wire().send(HEAD + "Content-Length: 1000000\r\n\r\n")
    wire.socket.settimeout(0.02)
    answer = None
    for _ in range(400):
        if not wire.send_as_far_as_possible(b" "):
            break
        try:
            wire.wait_until_bytes()
            break
        except TimeoutError:
            continue
    wire.socket.settimeout(10)
    answer = wire.answer()
    assert answer.status == 408


def test_bodies_in_all_are_bounded(start_gateway):
    """Over max_body_memory_bytes a new body waits unread, and is served when there is room again."""
    gateway = start_gateway(max_body_memory_bytes="4MiB", max_body_bytes="2MiB")
    size = 900 * 1024
    said = []

    def ask():
        wire = gateway.wire()
        wire.send(HEAD + f"Content-Length: {size + len(BODY)}\r\n\r\n", b" " * size, BODY)
        said.append(wire.answer().content)
    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["well"] * 12


def test_a_key_has_a_quarter_of_the_memory_and_waiting_ends_in_503(start_gateway):
    gateway = start_gateway(workers=1, max_body_memory_bytes="2MiB", max_body_bytes="2MiB", body_timeout="1500ms")
    held = gateway.wire().send(HEAD + f"Content-Length: {500 * 1024}\r\n\r\n")
    held.send(b" " * (400 * 1024))
    late = gateway.wire().send(HEAD + f"Content-Length: {500 * 1024}\r\n\r\n")
    late.socket.settimeout(10)
    threading.Thread(target=lambda: late.send_as_far_as_possible(b" " * (499 * 1024)), daemon=True).start()
    assert late.answer().status in (408, 503)
    assert held.answer().status == 408
