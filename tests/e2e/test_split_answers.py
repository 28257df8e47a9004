"""
A backend that answers with what could be read as two answers, or as one that ends elsewhere. Its caller gets one answer
or a refusal; the next on the caller's connection and the next of somebody else get their own; and the backend's
connection, of which nobody knows any more where its answers end, is closed and never lent again.
"""

import json
import socket
import threading

import pytest

from conftest import short_folder
from fake import compact, last_line, line
from gateway import KEY, Gateway, chat_body
from wire import wait_for

BEARER = {"Authorization": f"Bearer {KEY}"}
TAGS = {"models": [{"name": "qwen3:32b", "model": "qwen3:32b", "modified_at": "2026-11-22T14:11:37Z",
                    "capabilities": ["completion"]}]}


def whole(text, head="HTTP/1.1 200 OK\r\n", extra=""):
    return f"{head}Content-Type: application/json\r\n{extra}Content-Length: {len(text.encode())}\r\n\r\n{text}"


class Liar:
    """An Ollama that tells the truth but for the lies it is given: bytes that answer the next chats. It never hangs up."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lies, self.chats, self.closed, self.connections = [], [], set(), []
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self.threads.append(threading.Thread(target=self.serve, args=(connection, len(self.connections) - 1)))
            self.threads[-1].start()

    def serve(self, connection, number):
        try:
            with connection.makefile("rb") as reader:
                while request := reader.readline():
                    head = {}
                    while (field := reader.readline().strip()):
                        name, _, value = field.partition(b":")
                        head[name.lower()] = value.strip()
                    body = reader.read(int(head.get(b"content-length", 0)))
                    connection.sendall(self.answer(number, request.split()[1], body))
        except OSError:
            pass
        self.closed.add(number)

    def answer(self, number, path, body):
        if path != b"/api/chat":
            return whole(compact(TAGS if path == b"/api/tags" else {"version": "0.32.15"})).encode()
        asked = json.loads(body)
        words = asked["messages"][-1]["content"]
        self.chats.append((number, words))
        if self.lies:
            return self.lies.pop(0)
        return whole(compact(last_line(words)) + "\n").encode()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join()
        for connection in self.connections:
            connection.close()


@pytest.fixture(scope="module")
def shared():
    liar = Liar()
    try:
        with short_folder() as path:
            gateway = Gateway(path, liar.url, workers=1)
            try:
                yield gateway, liar
            finally:
                gateway.stop()
    finally:
        liar.stop()


@pytest.fixture
def liar(shared):
    shared[1].lies.clear()
    shared[1].chats.clear()
    return shared[1]


@pytest.fixture
def door(shared):
    yield shared[0]
    shared[0].close_wires()


def ask(wire, words, **fields):
    return wire.request("POST", "/v1/chat/completions", BEARER, chat_body(words, **fields)).answer(may_be_cut=True)


GOOD = compact(last_line("fine"))
EVIL = whole(compact(last_line("evil")))
TYPED = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = f"Content-Length: {len(GOOD)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = f"{len(GOOD):x}\r\n{GOOD}\r\n0\r\n\r\n"
LINES = compact(line("fine")) + "\n" + compact(last_line()) + "\n"


def chunks(text, end="0\r\n\r\n", size=None):
    return f"{TYPED}{CHUNKED}\r\n{size or format(len(text), 'x')}\r\n{text}\r\n{end}"


REFUSED, SERVED = 502, 200
LIES = {
    # name: (what comes from the backend, what its caller gets)
    "a second answer behind the first": (whole(GOOD) + EVIL, SERVED),
    "a second answer behind chunks": (chunks(GOOD) + EVIL, SERVED),
    "a byte behind the answer": (whole(GOOD) + "\n", SERVED),
    "a length that is too short": (whole(GOOD).replace(LENGTH, f"Content-Length: {len(GOOD) - 1}\r\n"), REFUSED),
    "a length of nothing": (f"{TYPED}Content-Length: 0\r\n\r\n{EVIL}", REFUSED),
    "two lengths": (f"{TYPED}{LENGTH}{LENGTH}\r\n{GOOD}", REFUSED),
    "two lengths that differ": (f"{TYPED}Content-Length: 0\r\n{LENGTH}\r\n{EVIL}", REFUSED),
    "a list of lengths": (f"{TYPED}Content-Length: {len(GOOD)}, {len(GOOD)}\r\n\r\n{GOOD}", REFUSED),
    "a length and chunks": (f"{TYPED}{LENGTH}{CHUNKED}\r\n{CHUNKS}", REFUSED),
    "chunks and a length": (f"{TYPED}{CHUNKED}Content-Length: 5\r\n\r\n0\r\n\r\n{EVIL}", REFUSED),
    "chunks twice": (f"{TYPED}{CHUNKED}{CHUNKED}\r\n{CHUNKS}", REFUSED),
    "chunks and identity": (f"{TYPED}Transfer-Encoding: chunked, identity\r\n\r\n{CHUNKS}", REFUSED),
    "chunks misspelt": (f"{TYPED}Transfer-Encoding: xchunked\r\n\r\n{CHUNKS}", REFUSED),
    "chunks behind a tab": (f"{TYPED}Transfer-Encoding:\tchunked\r\n\r\n{CHUNKS}", REFUSED),
    "chunks in HTTP/1.0": (f"{TYPED}{CHUNKED}\r\n{CHUNKS}".replace("1.1", "1.0"), REFUSED),
    "a negative length": (f"{TYPED}Content-Length: -1\r\n\r\n{GOOD}", REFUSED),
    "a length with a plus": (f"{TYPED}Content-Length: +{len(GOOD)}\r\n\r\n{GOOD}", REFUSED),
    "a length in hex": (f"{TYPED}Content-Length: {len(GOOD):#x}\r\n\r\n{GOOD}", REFUSED),
    "a length that wraps": (f"{TYPED}Content-Length: {(1 << 64) + len(GOOD)}\r\n\r\n{GOOD}", REFUSED),
    "a length in a fold": (f"{TYPED}X: y\r\n Content-Length: 5\r\n{LENGTH}\r\n{GOOD}", REFUSED),
    "a space before the colon": (f"{TYPED}Content-Length : 5\r\n{LENGTH}\r\n{GOOD}", REFUSED),
    "newlines alone": (whole(GOOD).replace("\r\n", "\n"), REFUSED),
    "a newline alone in the head": (f"{TYPED}X: y\n{LENGTH}\r\n{GOOD}", REFUSED),
    "a return alone in the head": (f"{TYPED}X: y\r{LENGTH}\r\n{GOOD}", REFUSED),
    "a NUL in the head": (f"{TYPED}X: \0\r\n{LENGTH}\r\n{GOOD}", REFUSED),
    "an empty line first": ("\r\n" + whole(GOOD), REFUSED),
    "a chunk size in hex notation": (chunks(GOOD, size=f"0x{len(GOOD):x}"), REFUSED),
    "a chunk size with a sign": (chunks(GOOD, size=f"+{len(GOOD):x}"), REFUSED),
    "a chunk size that wraps": (chunks(GOOD, size=f"1{len(GOOD):016x}"), REFUSED),
    "a chunk that is longer than said": (chunks(GOOD, size="5"), REFUSED),
    "a newline alone behind a chunk's size": (chunks(GOOD, size=f"{len(GOOD):x};\n"), REFUSED),
    "an interim answer with a body": ("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + whole(GOOD), REFUSED),
    "another protocol": ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + EVIL, REFUSED),
    "no content, and content": ("HTTP/1.1 204 No Content\r\n\r\n" + EVIL, REFUSED),
    "not modified, and content": ("HTTP/1.1 304 Not Modified\r\n\r\n" + EVIL, REFUSED),
}


@pytest.mark.parametrize("which", LIES)
def test_what_could_be_two_answers_is_one_or_none(door, liar, which):
    text, wanted = LIES[which]
    liar.lies.append(text.encode())
    wire = door.wire()
    answer = ask(wire, "first")
    assert answer.status == wanted and "evil" not in answer.text
    assert wanted == REFUSED or answer.content == "fine"
    assert ask(wire, "second").content == "second"
    assert ask(door.wire(), "third").content == "third"
    assert [words for _, words in liar.chats] == ["first", "second", "third"]
    liars = liar.chats[0][0]
    assert liars not in [number for number, _ in liar.chats[1:]]
    wait_for(lambda: liars in liar.closed, 5, "the end of the connection that lied")


STREAM = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n" + CHUNKED + "\r\n"
STREAMS = {
    "a second answer behind the stream": (f"{STREAM}{len(LINES):x}\r\n{LINES}\r\n0\r\n\r\n{EVIL}", True),
    "a second answer where trailers would be": (f"{STREAM}{len(LINES):x}\r\n{LINES}\r\n0\r\n{EVIL}", True),
    "a second answer where a chunk would be": (f"{STREAM}{len(LINES):x}\r\n{LINES}\r\n{EVIL}", True),
    "a second answer in the midst": (f"{STREAM}{len(compact(line('a'))) + 1:x}\r\n{compact(line('a'))}\n\r\n{EVIL}", False),
    "a second stream behind the last line": (f"{STREAM}{2 * len(LINES):x}\r\n{LINES}{LINES.replace('fine', 'evil')}\r\n0\r\n\r\n{EVIL}",
                                             True),
}


@pytest.mark.parametrize("which", STREAMS)
def test_what_could_be_two_streams_is_one(door, liar, which):
    text, is_whole = STREAMS[which]
    liar.lies.append(text.encode())
    wire = door.wire()
    answer = ask(wire, "first", stream=True)
    assert "evil" not in answer.text and answer.is_done == is_whole
    assert answer.content == ("fine" if is_whole else "a") and (answer.stream_error is None) == is_whole
    if is_whole:
        assert ask(wire, "second").content == "second"
    else:
        assert wire.is_closed()
    assert ask(door.wire(), "third").content == "third"
    liars = liar.chats[0][0]
    assert liars not in [number for number, _ in liar.chats[1:]]
    wait_for(lambda: liars in liar.closed, 5, "the end of the connection that lied")


def test_an_answer_that_nobody_asked_for_ends_the_kept_connection(door, liar):
    wire = door.wire()
    assert ask(wire, "first").content == "first"
    kept = liar.chats[0][0]
    liar.connections[kept].sendall(EVIL.encode())
    wait_for(lambda: kept in liar.closed, 5, "the end of the kept connection")
    assert ask(wire, "second").content == "second"
    assert liar.chats[1][0] != kept


def test_an_honest_connection_is_lent_again(door, liar):
    """What the tests above would not see if every connection were closed."""
    wire = door.wire()
    for words in ("first", "second", "third"):
        assert ask(wire, words).content == words
    assert len({number for number, _ in liar.chats}) == 1


SPLITS = ["\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "\n\ndata: [DONE]\n\n", "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
          "\u2028data: evil\u2028\u2028", "\x00\x1b[2J"]


@pytest.mark.parametrize("stream", [True, None], ids=["streamed", "whole"])
@pytest.mark.parametrize("text", SPLITS, ids=[repr(text)[:16] for text in SPLITS])
def test_words_of_the_model_stay_words(door, liar, text, stream):
    liar.lies.append(whole(compact(last_line(text)) + "\n").encode())
    wire = door.wire()
    answer = ask(wire, "first", stream=stream)
    assert answer.content == text
    assert answer.data.count("[DONE]") == 1 if stream else "\r" not in answer.text
    assert ask(wire, "second").content == "second"


@pytest.mark.parametrize("status", [400, 404, 429])
def test_words_and_headers_of_a_refusal_stay_within_it(door, liar, status):
    words = json.dumps({"error": "no\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\nmore"})
    liar.lies.append(whole(words, f"HTTP/1.1 {status} No\r\n",
                           "Set-Cookie: evil=1\r\nX-Request-Id: evil\r\nRetry-After: 1;evil\r\nLocation: http://b/\r\n").encode())
    wire = door.wire()
    answer = ask(wire, "first")
    assert answer.status == status and answer.error["message"]
    assert not [pair for pair in answer.headers if "evil" in "".join(pair).lower() or pair[0].lower() in ("location", "set-cookie")]
    assert ask(wire, "second").content == "second"
